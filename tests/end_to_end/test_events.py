"""Section 4: ``send_email`` events in, and an event out at each change."""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
from typing import Any

import pytest

from ..support.outside import dispatch
from ..support.waiting import eventually
from .conftest import House
from .test_rpc_methods import KEYS, mail


def entries_with(house: House, message: Any) -> list[dict[str, Any]]:
    """The error-log entries of raw bodies."""
    records = house.rpc.errors(status="failed", limit=1000)
    raw = [record["id"] for record in records if not record["recipients"]]
    return [entry for entry in map(house.rpc.error, raw) if entry["message"] == message]


@pytest.mark.parametrize("source", ["orders", "accounts"])
def test_the_events_of_every_source_are_mailed(any_house: House, source: str) -> None:
    person = any_house.person()

    dispatch(any_house.amqp_uri, source, mail(person))

    eventually(lambda: len(any_house.mails_to(person)) == 1)


def test_an_event_has_its_options_in_the_payload(any_house: House) -> None:
    person = any_house.person("once")
    options = {"id": f"event-{person}", "tenant": "acme", "priority": "bulk", "mailer": "second"}

    dispatch(any_house.amqp_uri, "orders", mail(person, options=options))

    record = any_house.becomes(f"event-{person}", "sent")
    assert (record["tenant"], record["priority"], record["mailer"]) == ("acme", "bulk", "second")
    assert record["attempts"] == 2
    dispatch(any_house.amqp_uri, "accounts", mail(person, options=options))
    marker = any_house.person()
    dispatch(any_house.amqp_uri, "accounts", mail(marker))
    eventually(lambda: any_house.mails_to(marker))
    assert len(any_house.mails_to(person)) == 1


def test_equal_events_without_an_id_are_as_many_mails(house: House) -> None:
    person = house.person()

    for _ in range(3):
        dispatch(house.amqp_uri, "orders", mail(person))

    eventually(lambda: len(house.mails_to(person)) == 3)


def test_other_event_types_are_left_alone(house: House) -> None:
    person, marker = house.person(), house.person()
    with pytest.raises(Exception, match="NO_ROUTE"):
        dispatch(house.amqp_uri, "orders", mail(person), kind="send_emails")

    dispatch(house.amqp_uri, "orders", mail(marker))

    eventually(lambda: house.mails_to(marker))
    assert house.mails_to(person) == []


def test_nameko_services_dispatch_to_us(house: House) -> None:
    person = house.person()
    program = (
        "import sys, json; from nameko.standalone.events import event_dispatcher;"
        "event_dispatcher({'AMQP_URI': sys.argv[1]})('orders', 'send_email', json.loads(sys.argv[2]))"
    )

    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, house.amqp_uri, json.dumps(mail(person))],
        check=True,
        timeout=30,
    )

    eventually(lambda: len(house.mails_to(person)) == 1)


class Bomb:
    """Unpickling it would write a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


UNUSABLE: dict[str, tuple[bytes, dict[str, Any]]] = {
    "not JSON": (b"{not json at all", {}),
    "not UTF-8": (b'{"to": "\xff\xfe"}', {}),
    "a list": (b'[1, "list"]', {}),
    "a number": (b"42424242", {}),
    "nothing": (b"", {}),
    "another type": (b"hello there", {"content_type": "text/plain"}),
    "an unknown type": (b"no such type", {"content_type": "application/no-such"}),
    "deeply nested": (b"[" * 50_000 + b"]" * 50_000, {}),
    "a strange encoding": (b'{"to": []}', {"content_encoding": "no-such-encoding"}),
    "said to be compressed": (b"not compressed", {"headers": {"compression": "application/x-gzip"}}),
    "compressed in an unknown way": (b"how?", {"headers": {"compression": "application/x-no-such"}}),
}


@pytest.mark.parametrize(("body", "properties"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_payload_that_cannot_be_used_is_in_the_error_log(
    any_house: House, body: bytes, properties: dict[str, Any]
) -> None:
    try:
        expected: Any = body.decode()
    except UnicodeDecodeError:
        expected = {"raw": base64.b64encode(body).decode()}

    dispatch(any_house.amqp_uri, "orders", body, **properties)

    entry, *_ = eventually(lambda: entries_with(any_house, expected))
    assert entry["record"]["status"] == "failed"
    assert sorted(entry["record"]) == sorted(KEYS)
    assert entry["record"]["error"]
    assert entry["attempts"] == []


def test_a_pickle_is_never_loaded(any_house: House, tmp_path: Any) -> None:
    body = pickle.dumps(Bomb(str(tmp_path / "exploded")))

    dispatch(
        any_house.amqp_uri,
        "orders",
        body,
        content_type="application/x-python-serialize",
        content_encoding="binary",
    )

    try:
        expected: Any = body.decode()
    except UnicodeDecodeError:
        expected = {"raw": base64.b64encode(body).decode()}
    eventually(lambda: entries_with(any_house, expected))
    assert not (tmp_path / "exploded").exists()


INVALID: dict[str, dict[str, Any]] = {
    "no recipients": {"subject": "Hello", "body": "nobody"},
    "an unknown field": {"to": "a@example.org", "subjcet": "Hello"},
    "an unknown option": {"to": "a@example.org", "options": {"prio": "high"}},
    "options of another kind": {"to": "a@example.org", "options": ["high"]},
    "an unknown mailer": {"to": "a@example.org", "options": {"mailer": "absent"}},
    "an id that is too long": {"to": "a@example.org", "options": {"id": "x" * 201}},
}


@pytest.mark.parametrize("payload", INVALID.values(), ids=INVALID)
def test_an_invalid_event_is_in_the_error_log_with_its_raw_body(any_house: House, payload: dict[str, Any]) -> None:
    body = json.dumps(payload).encode()

    dispatch(any_house.amqp_uri, "orders", body)

    entry, *_ = eventually(lambda: entries_with(any_house, body.decode()))
    assert entry["record"]["status"] == "failed"
    eventually(lambda: any_house.events.types(entry["record"]["id"]) == ["email_failed"])


def test_an_event_in_conflict_with_a_mail_gets_an_entry_of_its_own(any_house: House) -> None:
    person = any_house.person()
    any_house.rpc.send(mail(person), id=f"event-{person}")
    before = any_house.rpc.status(f"event-{person}")
    body = json.dumps(mail(person, subject="Other", options={"id": f"event-{person}"})).encode()

    dispatch(any_house.amqp_uri, "orders", body)

    entry, *_ = eventually(lambda: entries_with(any_house, body.decode()))
    assert entry["record"]["id"] != f"event-{person}"
    assert "belongs to another" in entry["record"]["error"]
    assert any_house.rpc.status(f"event-{person}") == before
    assert len(any_house.mails_to(person)) == 1


CHANGES = {
    "sent": ("ann", {}, ["email_sent"]),
    "sent at the second attempt": ("once", {}, ["email_deferred", "email_sent"]),
    "failed": ("refused", {}, ["email_failed"]),
    "expired": ("later", {}, ["email_deferred", "email_deferred", "email_expired"]),
    "held": ("overfull", {"mailer": "throttling"}, ["email_held"]),
    "never attempted": ("ann", {"expires_at": "2020-01-01T00:00:00"}, ["email_expired"]),
}


@pytest.mark.parametrize(("name", "options", "expected"), CHANGES.values(), ids=CHANGES)
def test_each_change_is_dispatched_with_its_record(
    any_house: House, name: str, options: dict[str, Any], expected: list[str]
) -> None:
    person = any_house.person(name)

    mail_id = any_house.rpc.submit(mail(person), tenant="acme", **options)["id"]

    eventually(lambda: any_house.events.types(mail_id)[: len(expected)] == expected)
    for kind, record in any_house.events.of(mail_id):
        assert sorted(record) == sorted(KEYS)
        assert record["status"] == kind.removeprefix("email_")
        assert record["tenant"] == "acme"
        assert list(record["recipients"]) == [person]
    if "held" not in expected[-1]:
        assert any_house.rpc.status(mail_id) == any_house.events.of(mail_id)[-1][1]


def test_partly_sent_is_dispatched(house: House) -> None:
    mail_id = house.rpc.submit(mail([house.person(), house.person("refused")]))["id"]

    eventually(lambda: house.events.types(mail_id) == ["email_partly_sent"])


def test_an_event_source_may_dispatch_before_the_service_has_run_again(own_house: House) -> None:
    """The queue is durable: what is dispatched while the service is stopped is mailed when it runs again."""
    own_house.service.stop()
    people = [own_house.person() for _ in range(5)]
    for person in people:
        dispatch(own_house.amqp_uri, "orders", mail(person))

    own_house.service.start()

    eventually(lambda: all(len(own_house.mails_to(person)) == 1 for person in people))
