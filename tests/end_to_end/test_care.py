"""Hard bounces, what is kept of mail that is over, and hooks, in a running service."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mail_service import clock
from mail_service.client import MailClient
from mail_service.local.node import Node

from ..support.outside import RemoteError, dispatch
from ..support.waiting import eventually
from .conftest import House, open_house
from .test_rpc_methods import mail


@pytest.fixture(scope="module")
def careful(rabbitmq_3: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two processes that take care of all of it."""
    rabbitmq_3.add_vhosts("careful")
    folder = tmp_path_factory.mktemp("careful")
    with ExitStack() as stack:
        yield open_house(
            stack,
            rabbitmq_3.uri("careful"),
            folder,
            f"sqlite:///{folder / 'mail.db'}",
            processes=2,
            hooks=["tests.support.hooks.by_subject"],
            hard_bounces={"suppress": True, "days": 30},
            retention={
                "every": 1,
                "records": {"expired": 0.00001},
                "tenants": {"dropping": "drop", "redacting": "redact"},
            },
        )


def fails(house: House, person: str, **options: Any) -> str:
    mail_id = f"care-{uuid.uuid4()}"
    with pytest.raises(RemoteError):
        house.rpc.send(mail([person]), id=mail_id, **options)
    return mail_id


def test_an_address_that_does_not_exist_is_not_mailed_again(careful: House) -> None:
    refused, ann = careful.person("refused"), careful.person("ann")

    first = careful.rpc.send(mail([refused, ann]))
    second = careful.rpc.send(mail([refused.title(), ann]))

    assert [each["status"] for each in first["recipients"].values()] == ["failed", "sent"]
    assert [each["status"] for each in second["recipients"].values()] == ["suppressed", "sent"]
    assert "hard bounce" in second["recipients"][refused.title()]["detail"]
    (entry,) = [each for each in careful.rpc.suppressions(limit=1000) if each["address"].lower() == refused]
    assert entry["reason"] == f"hard bounce of mail {first['id']}: 550 5.1.1 No such person (to RCPT TO)"
    assert clock.parse(entry["until"]) - clock.parse(entry["since"]) == pytest.approx(
        timedelta(days=30), abs=timedelta(minutes=1)
    )
    assert refused not in careful.log.lower()


def test_a_mail_that_is_spam_says_nothing_about_its_recipient(careful: House) -> None:
    person = careful.person("spam")

    fails(careful, person)

    assert person not in [each["address"] for each in careful.rpc.suppressions(limit=1000)]


def test_many_entries_come_in_at_once_and_a_bad_one_does_not_stop_the_others(careful: House) -> None:
    ann, bob = careful.person("ann"), careful.person("bob")

    answers = careful.rpc.suppress_many(
        [
            {"address": ann, "reason": "moved", "since": "2026-01-01T00:00:00Z", "until": None},
            {"address": " "},
            "nonsense",
            {"address": bob, "why": "?"},
            {"address": f"@{uuid.uuid4().hex}.example", "tenant": "acme"},
        ]
    )

    assert [each.get("error", {}).get("field") for each in answers] == [None, "address", "entry", "why", None]
    domain = answers[4]["address"]
    assert careful.rpc.suppressions(domain=domain) == [answers[4]]
    assert careful.rpc.suppressions(domain=domain.removeprefix("@"), tenant="acme") == [answers[4]]
    assert careful.rpc.suppressions(domain=domain, tenant="other") == []
    assert answers[0]["since"] == "2026-01-01T00:00:00.000000+00:00"
    with pytest.raises(RemoteError, match="moved"):
        careful.rpc.send(mail([ann]))
    with pytest.raises(RemoteError, match="entries"):
        careful.rpc.suppress_many({"address": ann})


@pytest.mark.parametrize(("tenant", "subject"), [("dropping", None), ("redacting", "[redacted]"), ("other", "Hello")])
def test_what_is_kept_of_a_mail_that_is_over(careful: House, tenant: str, subject: str | None) -> None:
    person = careful.person("spam")
    mail_id = fails(careful, person, tenant=tenant)

    entry = careful.rpc.error(mail_id)

    assert (entry["message"] or {}).get("subject") == subject
    assert entry["record"]["recipients"][person]["detail"].startswith("554 5.7.1 Spam")
    assert len(entry["attempts"]) == 1
    if tenant == "other":
        assert careful.rpc.replay(mail_id) == [mail_id]
    else:
        with pytest.raises(RemoteError, match="cannot be replayed") as raised:
            careful.rpc.replay(mail_id)
        assert raised.value.exc_type == "Conflict"
        assert careful.rpc.replay(tenant=tenant) == []


def test_old_mail_is_deleted_by_itself_and_only_what_is_named(careful: House) -> None:
    gone, stays = f"old-{uuid.uuid4()}", fails(careful, careful.person("spam"))

    careful.rpc.submit(mail([careful.person()]), id=gone, expires_at="2020-01-01T00:00:00")
    careful.becomes(gone, "expired")

    def is_gone() -> bool:
        try:
            careful.rpc.status(gone)
        except RemoteError as error:
            return error.exc_type == "NotFound"
        return False

    eventually(is_gone, 20)
    assert careful.rpc.status(stays)["status"] == "failed"
    eventually(lambda: "retention: deleted 1 mails" in careful.log)


def test_a_hook_sees_the_mail_of_every_door(careful: House) -> None:
    people = {door: careful.person() for door in ("send", "submit", "client", "event")}

    careful.rpc.send(mail([people["send"]]))
    careful.rpc.submit_many([mail([people["submit"]])])
    with MailClient(careful.amqp_uri) as client:
        client.submit(mail([people["client"]]))
    dispatch(careful.amqp_uri, "orders", mail([people["event"]]))

    eventually(lambda: all(careful.mails_to(person) for person in people.values()))
    assert {door: careful.mails_to(person)[0].email["X-Door"] for door, person in people.items()} == {
        door: door for door in people
    }


@pytest.mark.parametrize(
    ("subject", "transactions"),
    [("split this", [1, 1, 1]), ("domains this", [1, 2]), ("alone please", [1, 1, 1])],
)
def test_parts_are_handed_over_on_their_own_and_are_one_mail(
    careful: House, subject: str, transactions: list[int]
) -> None:
    ann, bob = careful.person("ann"), careful.person("bob")
    cy = careful.person("cy").replace("example.org", "example.net")

    record = careful.rpc.send(mail([ann], cc=[bob], bcc=[cy], subject=subject))

    taken = {id(each): each for person in (ann, bob, cy) for each in careful.mails_to(person)}.values()
    assert record["status"] == "sent"
    assert record["attempts"] == 1
    assert sorted(len(each.rcpt_tos) for each in taken) == transactions
    assert len({each.email["Message-ID"] for each in taken}) == 1
    to = {str(each.email["To"]) for each in taken}
    assert to == ({ann, bob, cy} if subject.startswith("alone") else {ann})
    assert eventually(lambda: careful.events.types(record["id"])) == ["email_sent"]


def test_only_the_part_that_failed_is_tried_again(careful: House) -> None:
    ann, once = careful.person("ann"), careful.person("once")

    record = careful.rpc.send(mail([ann, once], subject="split this"))

    assert (record["status"], record["attempts"]) == ("sent", 2)
    assert len(careful.mails_to(ann)) == 1
    assert len(careful.mails_to(once)) == 1


@pytest.mark.parametrize(
    ("subject", "text", "trace"),
    [
        ("refuse this", "refused by tests.support.hooks.by_subject: not today", None),
        ("break this", "tests.support.hooks.by_subject failed", "ZeroDivisionError"),
    ],
)
def test_what_a_hook_refuses_or_breaks_has_failed_and_stands_in_the_error_log(
    careful: House, subject: str, text: str, trace: str | None
) -> None:
    person = careful.person()

    with pytest.raises(RemoteError, match=text) as raised:
        careful.rpc.send(mail([person], subject=subject))

    assert raised.value.exc_type == "DeliveryFailed"
    (record,) = careful.rpc.errors(recipient=person)
    assert (record["status"], record["attempts"]) == ("failed", 1)
    (attempt,) = careful.rpc.error(record["id"])["attempts"]
    assert attempt["diagnosis"] == "permanent"
    assert (trace or text) in attempt["text"]
    assert ("in by_subject" in attempt["text"]) == (trace is not None)
    assert careful.mails_to(person) == []


def test_a_part_that_was_over_when_the_process_was_killed_is_not_handed_over_again(
    amqp_uri: str, tmp_path: Path
) -> None:
    hooks = ["tests.support.hooks.by_subject"]
    with ExitStack() as stack:
        house = open_house(
            stack, amqp_uri, tmp_path, f"sqlite:///{tmp_path / 'mail.db'}", hooks=hooks, attempt_timeout=20
        )
        # takes 1.5 s, and then one that takes 5 s
        first, second = house.person("lazy"), house.person("slow")
        house.rpc.submit(mail([first, second], subject="split this"), id="parts")
        eventually(lambda: house.rpc.status("parts")["recipients"][first]["status"] == "sent")

        house.service.kill9()
        house.service.start()

        record = house.becomes("parts", "sent", timeout_s=30)
        assert record["attempts"] >= 2
        assert len(house.mails_to(first)) == 1
        assert house.mails_to(second)
