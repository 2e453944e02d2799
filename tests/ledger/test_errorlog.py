from __future__ import annotations

import base64
from typing import Any

import pytest
import sqlalchemy as sa

from mail_service import clock
from mail_service.envelope import seal
from mail_service.errors import InvalidMessage, NotFound
from mail_service.ledger import Ledger, tables
from mail_service.ledger.errorlog import ErrorLog, Filter
from mail_service.ledger.records import Superseded, recipient
from mail_service.outcome import FINAL, WAITING, Status
from tests.support.messages import a_message

from .building import a_change, a_copy, a_mail, in_status


def found(error_log: ErrorLog, **filters: Any) -> list[str]:
    return [record["id"] for record in error_log.find(Filter.parse(filters, also=("limit", "after")))]


@pytest.fixture
def five(ledger: Ledger) -> list[str]:
    """Five entries, the newest first."""
    addresses = ["Ann@Example.org", "bob@example.org", "ANN@example.org", "zoë@example.org", "bob@example.org"]
    statuses = ["failed", "expired", "partly_sent", "suppressed", "discarded"]
    for number, (address, status) in enumerate(zip(addresses, statuses, strict=True)):
        mail = in_status(
            status,
            id=f"mail {number}",
            mailer="second" if number > 2 else "default",
            tenant="shop" if number % 2 else None,
            recipients={address: recipient(Status.FAILED)},
            updated_at=f"2026-11-22T03:00:0{number}.000000+00:00",
        )
        ledger.record(a_change(mail, content=seal(a_message(subject=str(number)), {}, door="submit").body()))
    return [f"mail {number}" for number in reversed(range(5))]


FILTERS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "nothing": ({}, [4, 3, 2, 1, 0]),
    "a status": ({"status": "expired"}, [1]),
    "statuses": ({"status": ["failed", "suppressed"]}, [3, 0]),
    "a status that no entry has": ({"status": "sent"}, []),
    "a mailer": ({"mailer": "second"}, [4, 3]),
    "a tenant": ({"tenant": "shop"}, [3, 1]),
    "a recipient in any case": ({"recipient": "ann@EXAMPLE.ORG"}, [2, 0]),
    "a recipient beyond ASCII": ({"recipient": "ZOË@example.org"}, [3]),
    "since": ({"since": "2026-11-22T03:00:03Z"}, [4, 3]),
    "until": ({"until": "2026-11-22T04:00:01+01:00"}, [1, 0]),
    "since and until without offset": ({"since": "2026-11-22T03:00:01", "until": "2026-11-22T03:00:02"}, [2, 1]),
    "a limit": ({"limit": 2}, [4, 3]),
    "after": ({"after": "mail 3"}, [2, 1, 0]),
    "after the last": ({"after": "mail 0"}, []),
    "several at once": ({"mailer": "default", "tenant": "shop", "recipient": "bob@example.org"}, [1]),
}


@pytest.mark.parametrize("name", FILTERS)
def test_the_filters_choose(name: str, five: list[str], error_log: ErrorLog) -> None:
    filters, numbers = FILTERS[name]

    assert found(error_log, **filters) == [f"mail {number}" for number in numbers]


def test_pages_cover_everything_once_also_at_the_same_moment(ledger: Ledger, error_log: ErrorLog) -> None:
    moment = clock.now_iso()
    for number in range(25):
        ledger.record(a_change(in_status("failed", id=f"mail {number:02}", updated_at=moment), diagnosis=None))
    seen: list[str] = []
    while page := found(error_log, limit=10, **({"after": seen[-1]} if seen else {})):
        seen += page

    assert seen == sorted((f"mail {number:02}" for number in range(25)), reverse=True)


def test_a_page_after_an_unknown_id_is_refused(error_log: ErrorLog) -> None:
    with pytest.raises(NotFound, match="after"):
        found(error_log, after="nobody")


@pytest.mark.parametrize("status", sorted(WAITING | {Status.SENT}))
def test_what_waits_or_was_sent_is_no_entry(status: str, ledger: Ledger, error_log: ErrorLog) -> None:
    ledger.record(a_change(in_status(status)))

    assert found(error_log) == []
    if status == "sent":
        with pytest.raises(NotFound):
            error_log.entry("mail")


WRONG: dict[str, dict[str, Any]] = {
    "stauts": {"stauts": "failed"},
    "status": {"status": "lost"},
    "status of numbers": {"status": [5]},
    "mailer": {"mailer": 5},
    "recipient": {"recipient": ["a@b.c"]},
    "recipient with NUL": {"recipient": "\x00"},
    "tenant of surrogates": {"tenant": "\ud800"},
    "since": {"since": "yesterday"},
    "since of a number": {"since": 5},
    "limit": {"limit": 0},
    "limit of text": {"limit": "5"},
    "limit that is a bool": {"limit": True},
    "limit beyond all": {"limit": 10**9},
    "after": {"after": 5},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_filter_is_named(name: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        Filter.parse(WRONG[name], also=("limit", "after"))

    assert caught.value.field == next(iter(WRONG[name]))


def test_a_misspelt_filter_gets_a_suggestion() -> None:
    with pytest.raises(InvalidMessage, match="did you mean mailer"):
        Filter.parse({"mailr": "x"})


def test_an_entry_has_everything(ledger: Ledger, error_log: ErrorLog) -> None:
    envelope = seal(a_message(subject="Hé"), {"tenant": "shop"}, door="submit", mail_id="mail")
    for generation in (1, 2):
        ledger.record(a_change(in_status("failed", generation=generation, tenant="shop"), content=envelope.body()))

    entry = error_log.entry("mail")

    assert entry["message"] == a_message(subject="Hé")
    assert entry["options"] == {"tenant": "shop"}
    assert [list(attempt) for attempt in entry["attempts"]] == [["at", "mailer", "diagnosis", "text", "recipients"]] * 2
    assert entry["record"]["id"] == "mail"
    assert list(entry["record"]) == [
        "id", "status", "mailer", "tenant", "priority", "attempts", "recipients", "submitted_at", "updated_at",
        "next_attempt_at", "error",
    ]  # fmt: skip


RAW: dict[str, tuple[bytes, Any]] = {
    "text": (b"no JSON", "no JSON"),
    "bytes": (b"\xff\x00", {"raw": base64.b64encode(b"\xff\x00").decode()}),
    "text with NUL": (b"a\x00b", "a\x00b"),
    "JSON of another form": (b'{"to": 1}', '{"to": 1}'),
    "nothing": (b"", ""),
}


@pytest.mark.parametrize("name", RAW)
def test_what_could_not_be_read_is_shown_raw(name: str, ledger: Ledger, error_log: ErrorLog) -> None:
    body, shown = RAW[name]
    ledger.record(a_change(in_status("failed", recipients={}), diagnosis=None, content=body or b""))
    if not body:
        ledger.database.write(_empty_content, None)

    assert error_log.entry("mail")["message"] == shown
    assert error_log.entry("mail")["options"] == {}


def _empty_content(connection: sa.Connection, items: Any) -> list[None]:
    connection.execute(sa.update(tables.mail).values(content=b""))
    return [None] * len(items)


def test_an_unknown_entry_is_not_found(error_log: ErrorLog) -> None:
    with pytest.raises(NotFound):
        error_log.entry("nobody")
    with pytest.raises(NotFound):
        list(error_log.contents("nobody", ["failed"]))
    with pytest.raises(NotFound):
        error_log.discard("nobody")


def test_contents_come_in_slices_and_only_once(ledger: Ledger, error_log: ErrorLog) -> None:
    for number in range(450):
        ledger.record(a_change(in_status("failed", id=f"mail {number}"), diagnosis=None))

    ids = [mail.id for mail, _ in error_log.contents(Filter(), ["failed"])]

    assert len(ids) == len(set(ids)) == 450


def test_a_mail_that_is_being_attempted_is_not_among_the_contents(ledger: Ledger, error_log: ErrorLog) -> None:
    ledger.record(a_change(in_status("deferred")))
    ledger.claim(a_copy(generation=1))

    assert list(error_log.contents(Filter(), ["deferred"])) == []


def test_discarded_entries_stay_and_cannot_be_attempted(five: list[str], ledger: Ledger, error_log: ErrorLog) -> None:
    assert error_log.discard("mail 0") == ["mail 0"]
    assert error_log.discard("mail 0") == []
    assert error_log.discard(Filter.parse({"mailer": "default"})) == ["mail 1", "mail 2"]

    assert found(error_log, status="discarded", mailer="default") == ["mail 2", "mail 1", "mail 0"]
    # a copy that is still under way does not bring it back
    claim = ledger.claim(a_copy(id="mail 0", generation=1))
    assert isinstance(claim, Superseded)
    assert claim.mail.status == "discarded"


@pytest.mark.parametrize("status", sorted(WAITING | {Status.SENT}))
def test_what_is_no_entry_is_not_discarded(status: str, ledger: Ledger, error_log: ErrorLog) -> None:
    ledger.record(a_change(in_status(status)))

    assert error_log.discard("mail") == []
    assert error_log.discard(Filter()) == []


def test_an_entry_that_is_put_back_is_no_entry_any_more(ledger: Ledger, error_log: ErrorLog) -> None:
    ledger.record(a_change(in_status("failed")))
    failed = ledger.find("mail")
    assert failed

    error_log.put_back(failed.reopened(failed.generation + 1))

    assert found(error_log) == []
    assert list((ledger.find("mail") or failed).recipients.values()) == [recipient(Status.QUEUED)]


def test_putting_back_does_not_disturb_a_worker_that_was_faster(ledger: Ledger, error_log: ErrorLog) -> None:
    ledger.record(a_change(in_status("failed")))
    failed = ledger.find("mail")
    assert failed
    reopened = failed.reopened(2)
    ledger.claim(a_copy(generation=2, replay=True))
    ledger.record(a_change(in_status("sent", generation=3)))

    error_log.put_back(reopened)

    assert (ledger.find("mail") or failed).status == "sent"


def test_purge_deletes_old_final_mails_in_slices_and_nothing_else(
    ledger: Ledger, error_log: ErrorLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mail_service.ledger.purging.WRITE_SLICE", 10)
    old, new = clock.iso(clock.later(-10 * 86400)), clock.now_iso()
    for number in range(25):
        ledger.record(a_change(in_status("sent", id=f"old {number}", updated_at=old)))
    for status in sorted(set(Status)):
        ledger.record(a_change(in_status(status, id=f"old {status}", updated_at=old)))
        ledger.record(a_change(in_status(status, id=f"new {status}", updated_at=new)))

    assert error_log.purge(older_than_days=5, status="sent") == 26
    assert error_log.purge(older_than_days=5, status="failed") == 1
    assert error_log.purge(older_than_days=5, status="all") == len(FINAL) - 2
    left = set(ledger.database.read(lambda c: c.execute(sa.select(tables.mail.c.id)).scalars().all()))
    assert left == {f"new {status}" for status in Status} | {f"old {status}" for status in WAITING}
    orphans = sa.select(sa.func.count()).where(tables.attempt.c.mail_id.like("old %"))
    assert ledger.database.read(lambda c: c.execute(orphans).scalar_one()) == len(WAITING)


def test_a_mail_that_is_being_attempted_again_is_not_purged(ledger: Ledger, error_log: ErrorLog) -> None:
    ledger.record(a_change(in_status("failed", updated_at=clock.iso(clock.later(-86400)))))
    ledger.claim(a_copy(generation=2, replay=True))

    assert error_log.purge(older_than_days=0, status="all") == 0


def test_records_are_those_of_the_contract() -> None:
    record = a_mail(next_attempt_at=None).record()

    assert record["recipients"] == {"Ann@example.org": {"status": "queued", "message_id": None, "detail": None}}
    assert record["status"] == "queued"
