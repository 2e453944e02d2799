"""Section 3: what stands in the error log, and what operators do with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mail_service.client import MailClient
from mail_service.local.node import Node
from mail_service.local.smtp_server import Rule

from ..support.outside import RemoteError, dispatch
from ..support.waiting import eventually
from .conftest import PEOPLE, House, open_house
from .test_rpc_methods import KEYS, TIME, mail

FINAL = ("sent", "partly_sent", "failed", "expired", "suppressed", "discarded")


def failed(house: House, name: str = "refused", **options: Any) -> str:
    """The id of a mail that has ended badly."""
    mail_id: str = house.rpc.submit(mail(house.person(name)), **options)["id"]
    house.becomes(mail_id, *FINAL)
    return mail_id


def ids(records: list[dict[str, Any]]) -> list[str]:
    return [record["id"] for record in records]


def test_an_entry_has_everything(any_house: House) -> None:
    person = any_house.person("later")
    message = mail(
        [f"Änne <{person}>"],
        cc=person,
        headers={"X-A": "é"},
        attachments=[{"filename": None, "content": "YQ==\n", "mimetype": None}],
        tags=["a"],
    )
    del message["from_email"]
    message["tags"] = None
    options = {"id": f"entry-{person}", "tenant": "acme", "priority": "high", "expires_at": "2999-01-01T00:00:00+02:00"}

    any_house.rpc.submit(message, **options)
    record = any_house.becomes(f"entry-{person}", "expired")

    entry = any_house.rpc.error(f"entry-{person}")
    assert sorted(entry) == ["attempts", "message", "options", "record"]
    assert entry["record"] == record
    assert sorted(record) == sorted(KEYS)
    assert entry["message"] == message
    assert entry["options"] == options
    assert len(entry["attempts"]) == 3
    for attempt in entry["attempts"]:
        assert sorted(attempt) == ["at", "diagnosis", "mailer", "recipients", "text"]
        assert TIME.fullmatch(attempt["at"])
        assert attempt["mailer"] == "default"
        assert attempt["diagnosis"] == "transient"
        assert "450" in attempt["text"]
        assert list(attempt["recipients"]) == [person]
    assert [attempt["at"] for attempt in entry["attempts"]] == sorted(attempt["at"] for attempt in entry["attempts"])


def test_a_mail_that_was_sent_is_not_in_the_error_log(any_house: House) -> None:
    record = any_house.rpc.send(mail(any_house.person()))

    with pytest.raises(RemoteError) as raised:
        any_house.rpc.error(record["id"])

    assert raised.value.exc_type == "NotFound"
    assert record["id"] not in ids(any_house.rpc.errors(limit=1000))


def test_the_filters_choose(any_house: House) -> None:
    tenant = f"tenant-{any_house.person()}"
    one = failed(any_house, tenant=tenant)
    two = failed(any_house, "later", tenant=tenant, mailer="second")
    three = any_house.rpc.submit(mail([any_house.person(), any_house.person("refused")]), tenant=tenant)["id"]
    any_house.becomes(three, "partly_sent")
    other = failed(any_house, tenant=tenant.upper())
    person = next(iter(any_house.rpc.status(one)["recipients"]))
    rpc = any_house.rpc

    assert ids(rpc.errors(tenant=tenant)) == [three, two, one]
    assert ids(rpc.errors(tenant=tenant.upper())) == [other]
    assert ids(rpc.errors(tenant=tenant, status="failed")) == [one]
    assert ids(rpc.errors(tenant=tenant, status=["expired", "partly_sent"])) == [three, two]
    assert ids(rpc.errors(tenant=tenant, status="sent")) == []
    assert ids(rpc.errors(tenant=tenant, mailer="second")) == [two]
    assert ids(rpc.errors(tenant=tenant, mailer="secon")) == []
    assert ids(rpc.errors(recipient=person.upper())) == [one]
    assert ids(rpc.errors(recipient=person.capitalize(), tenant=tenant.upper())) == []
    assert ids(rpc.errors(recipient=person[:-1])) == []
    assert rpc.errors(tenant=tenant)[0] == rpc.status(three)


def test_the_recipient_filter_finds_every_recipient_in_any_case_of_letters(any_house: House) -> None:
    sent, refused = any_house.person("Mixed.Case"), any_house.person("refused")
    foreign = any_house.person("refused").replace("example.org", "BÜCHER.example")
    mail_id = any_house.rpc.submit(mail(sent, cc=refused, bcc=foreign))["id"]
    any_house.becomes(mail_id, *FINAL)

    for address in (sent.lower(), refused.upper(), foreign.lower(), foreign.upper()):
        assert mail_id in ids(any_house.rpc.errors(recipient=address)), address


def test_since_and_until_are_about_the_last_change(any_house: House) -> None:
    tenant = f"time-{any_house.person()}"
    one, two = failed(any_house, tenant=tenant), failed(any_house, tenant=tenant)
    first, second = (any_house.rpc.status(each)["updated_at"] for each in (one, two))
    rpc = any_house.rpc

    assert ids(rpc.errors(tenant=tenant, since=first)) == [two, one]
    assert ids(rpc.errors(tenant=tenant, until=second)) == [two, one]
    assert ids(rpc.errors(tenant=tenant, since=second)) == [two]
    assert ids(rpc.errors(tenant=tenant, until=first)) == [one]
    elsewhere = datetime.fromisoformat(second).astimezone(tz=None).astimezone(UTC) - timedelta(microseconds=1)
    assert ids(rpc.errors(tenant=tenant, since=elsewhere.replace(tzinfo=None).isoformat())) == [two]
    shifted = (datetime.fromisoformat(second) + timedelta(hours=5)).isoformat().replace("+00:00", "+05:00")
    assert ids(rpc.errors(tenant=tenant, since=shifted)) == [two]


def test_pages_have_every_entry_once_newest_first(any_house: House) -> None:
    tenant = f"pages-{any_house.person()}"
    answers = any_house.rpc.submit_many(
        [mail(any_house.person("refused"), options={"tenant": tenant}) for _ in range(25)]
    )
    for answer in answers:
        any_house.becomes(answer["id"], "failed")

    pages: list[dict[str, Any]] = []
    page = any_house.rpc.errors(tenant=tenant, limit=10)
    while page:
        assert len(page) <= 10
        pages += page
        page = any_house.rpc.errors(tenant=tenant, limit=10, after=page[-1]["id"])

    assert sorted(ids(pages)) == sorted(ids(answers))
    assert [each["updated_at"] for each in pages] == sorted((each["updated_at"] for each in pages), reverse=True)


def test_without_a_limit_there_are_a_hundred_and_more_may_be_asked_for(changeable: House) -> None:
    house = changeable
    answers = house.rpc.submit_many([mail(house.person("refused")) for _ in range(120)])
    for answer in answers:
        house.becomes(answer["id"], "failed")

    assert len(house.rpc.errors()) == 100
    assert len(house.rpc.errors(limit=5000)) == 120
    assert len(house.rpc.errors(limit=7)) == 7


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ({"status": "gone"}, "status"),
        ({"status": ["sent", 7]}, "status"),
        ({"since": "yesterday"}, "since"),
        ({"until": 7}, "until"),
        ({"limit": 0}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"mailer": 7}, "mailer"),
        ({"recipient": ["a"]}, "recipient"),
        ({"recipeint": "a"}, "recipeint"),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["errors", "replay", "discard"])
def test_a_filter_that_makes_no_sense_is_refused(
    house: House, method: str, filters: dict[str, Any], field: str
) -> None:
    with pytest.raises(RemoteError) as raised:
        getattr(house.rpc, method)(**filters)

    assert raised.value.exc_type == "InvalidMessage"
    assert field in raised.value.value


@pytest.mark.parametrize("value", ["\x00", "%", "'; drop table mail; --", "\ud800", "x" * 100_000], ids=repr)
@pytest.mark.parametrize("name", ["recipient", "tenant", "mailer", "after"])
def test_no_value_of_a_filter_breaks_anything(any_house: House, name: str, value: str) -> None:
    try:
        answer = any_house.rpc.errors(**{name: value})
    except RemoteError as error:
        answer = error.exc_type

    assert answer in ([], "InvalidMessage", "NotFound")


@pytest.mark.parametrize("value", ["\x00", "\ud800", "x" * 100_000], ids=lambda value: repr(value[:9]))
@pytest.mark.parametrize("method", ["status", "error", "replay", "discard"])
def test_no_id_breaks_anything(any_house: House, method: str, value: str) -> None:
    with pytest.raises(RemoteError) as raised:
        getattr(any_house.rpc, method)(value)

    assert raised.value.exc_type in {"InvalidMessage", "NotFound"}


@pytest.fixture(scope="module")
def _changeable(rabbitmq_3: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    rabbitmq_3.add_vhosts("changeable")
    folder = tmp_path_factory.mktemp("changeable")
    with ExitStack() as stack:
        yield open_house(stack, rabbitmq_3.uri("changeable"), folder, f"sqlite:///{folder / 'mail.db'}")


@pytest.fixture
def changeable(_changeable: House) -> Iterator[House]:
    """A service without any mail, whose mail server accepts everything from ``mend`` on."""
    house = _changeable
    house.smtp.script(*PEOPLE)
    house.smtp.forget()
    yield house
    mend(house)
    # what is left over is sent, deleted, and nobody's concern any more
    eventually(lambda: house.rpc.retry_now() == 0, 20)
    house.rpc.discard(all=True)
    house.rpc.purge(0, "all")
    assert house.rpc.errors() == []


def mend(house: House) -> None:
    house.smtp.script()


def test_replay_by_id_starts_anew_and_leaves_out_who_has_it_already(changeable: House) -> None:
    house = changeable
    fine, later, refused = house.person("fine"), house.person("later"), house.person("refused")
    mail_id = house.rpc.submit(mail([fine, later, refused]))["id"]
    house.becomes(mail_id, "partly_sent")
    (first,) = house.mails_to(fine)
    mend(house)

    assert house.rpc.replay(mail_id) == [mail_id]

    record = house.becomes(mail_id, "sent")
    assert record["attempts"] == 1
    assert {state["status"] for state in record["recipients"].values()} == {"sent"}
    assert len(house.mails_to(fine)) == 1
    (second,) = house.mails_to(later)
    assert sorted(second.rcpt_tos) == sorted([later, refused])
    assert second.email["Message-ID"] == first.email["Message-ID"]
    assert second.data == first.data
    with pytest.raises(RemoteError, match="NotFound"):
        house.rpc.error(mail_id)


def test_replay_counts_attempts_anew_and_may_fail_again(changeable: House) -> None:
    house = changeable
    mail_id = failed(house, "later")

    assert house.rpc.replay(mail_id) == [mail_id]

    record = house.becomes(mail_id, "expired")
    eventually(lambda: len(house.rpc.error(mail_id)["attempts"]) == 6)
    record = house.becomes(mail_id, "expired")
    assert record["attempts"] == 3


def test_replay_leaves_out_what_is_on_its_way_already(changeable: House) -> None:
    house = changeable
    mail_id = failed(house, "later", backoff="none")
    waiting = house.rpc.submit(mail(house.person("later")), backoff="hourly")["id"]
    house.becomes(waiting, "deferred")
    house.smtp.script(Rule(at="end", hang_s=2))

    assert house.rpc.replay(mail_id) == [mail_id]
    assert house.rpc.replay(mail_id) == []
    assert house.rpc.replay(all=True) == []
    assert house.rpc.replay(waiting) == []

    house.becomes(mail_id, "sent")


@pytest.mark.parametrize("method", ["replay", "discard"])
def test_everything_is_never_meant_by_mistake(house: House, method: str) -> None:
    for arguments in ({}, {"tenant": None}, {"all": False}):
        with pytest.raises(RemoteError) as raised:
            getattr(house.rpc, method)(**arguments)
        assert raised.value.exc_type == "InvalidMessage"


def test_replay_by_filter_and_all(changeable: House) -> None:
    house = changeable
    mine = {failed(house, tenant="mine") for _ in range(3)}
    others = {failed(house, "spam", tenant="others") for _ in range(3)}
    mend(house)

    assert set(house.rpc.replay(tenant="mine", status="failed")) == mine
    for mail_id in mine:
        house.becomes(mail_id, "sent")
    assert set(house.rpc.replay(all=True)) == others
    for mail_id in others:
        house.becomes(mail_id, "sent")
    assert house.rpc.errors() == []
    assert house.rpc.replay(all=True) == []


def test_two_replays_at_once_send_one_mail(changeable: House) -> None:
    house = changeable
    mail_ids = [failed(house, "spam") for _ in range(5)]
    people = [next(iter(house.rpc.status(each)["recipients"])) for each in mail_ids]
    mend(house)

    begun = [house.rpc.begin("replay", all=True) for _ in range(6)]
    for each in begun:
        house.rpc.wait(each)

    for mail_id in mail_ids:
        house.becomes(mail_id, "sent")
    house.rpc.send(mail(house.person()))
    assert [len(house.mails_to(person)) for person in people] == [1] * 5


def test_an_event_that_could_not_be_used_is_replayed_when_it_can(own_house: House) -> None:
    """It named a mailer that was not configured; afterwards it is."""
    house = own_house
    person = house.person()
    dispatch(house.amqp_uri, "orders", mail(person, options={"mailer": "new"}))
    (record,) = eventually(house.rpc.errors)
    with pytest.raises(RemoteError) as raised:
        house.rpc.replay(record["id"])
    assert raised.value.exc_type == "InvalidMessage"
    house.service.stop()
    mailers = house.service.config["mail"]["mailers"]
    house.service.config["mail"]["mailers"] = {**mailers, "new": mailers["default"]}
    house.service.start()

    assert house.rpc.replay(record["id"]) == [record["id"]]

    assert house.becomes(record["id"], "sent")["mailer"] == "new"
    assert len(house.mails_to(person)) == 1


def test_discard_marks_and_keeps_until_purged(changeable: House) -> None:
    house = changeable
    one, two = failed(house, tenant="a"), failed(house, tenant="b")

    assert house.rpc.discard(one) == [one]
    assert house.rpc.discard(one) == []
    assert house.rpc.status(one)["status"] == "discarded"
    assert ids(house.rpc.errors(status="discarded")) == [one]
    assert house.rpc.error(one)["message"]["subject"] == "Hello"
    assert house.rpc.discard(tenant="b", status="failed") == [two]
    assert house.rpc.purge(0, status="failed") == 0
    assert house.rpc.purge(0, "discarded") == 2
    with pytest.raises(RemoteError, match="NotFound"):
        house.rpc.status(one)


def test_a_discarded_entry_can_be_replayed_by_its_id(changeable: House) -> None:
    house = changeable
    mail_id = failed(house)
    house.rpc.discard(all=True)
    mend(house)
    assert house.rpc.replay(all=True) == []

    assert house.rpc.replay(mail_id) == [mail_id]

    house.becomes(mail_id, "sent")


def test_discard_does_not_touch_mail_on_its_way(changeable: House) -> None:
    house = changeable
    mail_id = house.rpc.submit(mail(house.person("later")), backoff="hourly")["id"]
    house.becomes(mail_id, "deferred")

    assert house.rpc.discard(mail_id) == []
    assert house.rpc.discard(all=True) == []
    assert house.rpc.status(mail_id)["status"] == "deferred"


def test_purge_deletes_old_entries_of_a_status_and_never_mail_on_its_way(changeable: House) -> None:
    house = changeable
    sent = house.rpc.send(mail(house.person()))["id"]
    bad, expired = failed(house), failed(house, "later")
    deferred = house.rpc.submit(mail(house.person("later")), backoff="hourly")["id"]
    held = house.rpc.submit(mail(house.person("overfull")), mailer="throttling")["id"]
    house.becomes(deferred, "deferred")
    house.becomes(held, "held")

    assert house.rpc.purge(1) == 0
    assert house.rpc.purge(older_than_days=0) == 1
    assert house.rpc.purge(older_than_days=0, status="expired") == 1
    assert house.rpc.purge(older_than_days=0, status="all") == 1
    assert house.rpc.purge(older_than_days=0, status="all") == 0
    for gone in (sent, bad, expired):
        with pytest.raises(RemoteError, match="NotFound"):
            house.rpc.status(gone)
    assert house.rpc.status(deferred)["status"] == "deferred"
    assert house.rpc.status(held)["status"] in ("held", "queued")


def test_retry_now_attempts_what_waits_and_nothing_twice(changeable: House) -> None:
    house = changeable
    deferred = [house.rpc.submit(mail(house.person("later")), backoff="hourly", tenant="t")["id"] for _ in range(3)]
    other = house.rpc.submit(mail(house.person("later")), backoff="hourly", mailer="second")["id"]
    for mail_id in [*deferred, other]:
        house.becomes(mail_id, "deferred")
    people = [next(iter(house.rpc.status(each)["recipients"])) for each in deferred]

    assert house.rpc.retry_now(mailer="absent") == 0
    assert house.rpc.retry_now(tenant="t") == 3
    for mail_id in deferred:
        eventually(lambda mail_id=mail_id: house.rpc.status(mail_id)["attempts"] == 2)  # type: ignore[misc]
        house.becomes(mail_id, "deferred")
    assert house.rpc.status(other)["attempts"] == 1
    mend(house)
    assert house.rpc.retry_now() == 4

    for mail_id in [*deferred, other]:
        house.becomes(mail_id, "sent")
    assert house.rpc.retry_now() == 0
    assert [len(house.mails_to(person)) for person in people] == [1, 1, 1]


def test_retry_now_does_not_give_a_mail_more_attempts_than_its_schedule(changeable: House) -> None:
    house = changeable
    mail_id = house.rpc.submit(mail(house.person("later")), backoff="hourly")["id"]
    for attempts in (1, 2, 3):
        eventually(lambda attempts=attempts: house.rpc.status(mail_id)["attempts"] == attempts)  # type: ignore[misc]
        house.becomes(mail_id, "deferred")
        assert house.rpc.retry_now(status="deferred") == 1

    assert house.becomes(mail_id, "expired")["attempts"] == 4


def test_retry_now_attempts_held_mail(changeable: House) -> None:
    house = changeable
    house.smtp.script(Rule(at="end", reply="454 4.7.0 Throttling failure, try again in 600 seconds", times=1))
    person = house.person()
    mail_id = house.rpc.submit(mail(person))["id"]
    house.becomes(mail_id, "held")

    assert house.rpc.retry_now(status="held") == 1

    house.becomes(mail_id, "sent")
    assert len(house.mails_to(person)) == 1


def test_what_a_client_put_into_a_lane_and_cannot_be_used_is_known_by_its_id(any_house: House) -> None:
    """The client's limit is 25 MB, this service's is 300 kB."""
    with MailClient(any_house.amqp_uri) as client:
        answer = client.submit(mail(any_house.person(), body="x" * 300_000))

    record = any_house.becomes(answer["id"], "failed")

    assert "max_size" in record["error"]
    assert any_house.rpc.error(answer["id"])["message"]["body"] == "x" * 300_000
    with pytest.raises(RemoteError) as raised:
        any_house.rpc.replay(answer["id"])
    assert raised.value.exc_type == "InvalidMessage"
