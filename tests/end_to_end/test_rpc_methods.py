"""Section 3 of the contract: every method's answers and errors, as a plain kombu client gets them."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ..support.outside import RemoteError, Rpc, RpcTimeout
from ..support.waiting import eventually
from .conftest import House

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00")
KEYS = [
    "id",
    "status",
    "mailer",
    "tenant",
    "priority",
    "attempts",
    "recipients",
    "submitted_at",
    "updated_at",
    "next_attempt_at",
    "error",
]


def mail(to: Any, **changes: Any) -> dict[str, Any]:
    return {"subject": "Hello", "body": "Text", "from_email": "shop@example.org", "to": to, **changes}


def test_send_answers_the_record_of_a_delivered_mail(any_house: House) -> None:
    ann, bob = any_house.person(), any_house.person("Bob.Upper")

    record = any_house.rpc.send(mail([f"Ann <{ann}>"], cc=bob, bcc=[ann]), tenant="acme", priority="high")

    assert sorted(record) == sorted(KEYS)
    assert record["status"] == "sent"
    assert list(record["recipients"]) == [ann, bob]
    for state in record["recipients"].values():
        assert sorted(state) == ["detail", "message_id", "status"]
        assert state["status"] == "sent"
    assert (record["mailer"], record["tenant"], record["priority"]) == ("default", "acme", "high")
    assert record["attempts"] == 1
    assert record["error"] is None
    assert record["next_attempt_at"] is None
    assert TIME.fullmatch(record["submitted_at"])
    assert TIME.fullmatch(record["updated_at"])
    assert any_house.rpc.status(record["id"]) == record
    (taken,) = any_house.mails_to(ann)
    assert sorted(taken.rcpt_tos) == sorted([ann, bob])
    assert taken.mail_from == "shop@example.org"


def test_send_waits_through_retries(any_house: House) -> None:
    person = any_house.person("twice")

    record = any_house.rpc.send(mail(person))

    assert (record["status"], record["attempts"]) == ("sent", 3)
    assert len(any_house.mails_to(person)) == 1


def test_send_raises_expired_when_the_retries_are_used_up(any_house: House) -> None:
    person = any_house.person("later")

    with pytest.raises(RemoteError) as raised:
        any_house.rpc.send(mail(person), id=f"expires-{person}")

    assert raised.value.exc_type == "Expired"
    record = any_house.rpc.status(f"expires-{person}")
    assert (record["status"], record["attempts"]) == ("expired", 3)


def test_send_raises_delivery_failed_after_one_attempt(any_house: House) -> None:
    person = any_house.person("refused")

    with pytest.raises(RemoteError) as raised:
        any_house.rpc.send(mail(person), id=f"refused-{person}")

    assert raised.value.exc_type == "DeliveryFailed"
    record = any_house.rpc.status(f"refused-{person}")
    assert (record["status"], record["attempts"]) == ("failed", 1)
    assert "550" in record["error"]
    assert record["recipients"][person]["status"] == "failed"


def test_send_answers_the_record_when_the_mail_is_held(any_house: House) -> None:
    record = any_house.rpc.send(mail(any_house.person("overfull")), id=f"held-{uuid.uuid4()}", mailer="throttling")

    assert record["status"] == "held"
    assert record["attempts"] == 0
    assert TIME.fullmatch(record["next_attempt_at"])
    assert record["error"]


def test_submit_answers_queued_and_the_mail_is_delivered(any_house: House) -> None:
    person = any_house.person()

    answer = any_house.rpc.submit(mail(person))

    assert answer == {"id": answer["id"], "status": "queued"}
    assert str(uuid.UUID(answer["id"])) == answer["id"]
    any_house.becomes(answer["id"], "sent")
    assert len(any_house.mails_to(person)) == 1


def test_submit_many_answers_each_in_order_and_one_bad_message_does_not_stop_the_others(any_house: House) -> None:
    people = [any_house.person() for _ in range(4)]
    given: list[Any] = [mail(person) for person in people]
    given[1]["options"] = {"id": f"own-{people[1]}", "tenant": "acme"}
    given.insert(2, mail("Ann <"))
    given.insert(4, "no object")
    given.insert(5, mail(people[0], options={"priorty": "high"}))

    answers = any_house.rpc.submit_many(given)

    assert [sorted(answer) for answer in answers] == [
        *[["id", "status"]] * 2,
        ["error"],
        ["id", "status"],
        ["error"],
        ["error"],
        ["id", "status"],
    ]
    assert answers[1] == {"id": f"own-{people[1]}", "status": "queued"}
    for bad, field in ((2, "to"), (5, "priorty")):
        error = answers[bad]["error"]
        assert sorted(error) == ["field", "message", "type"]
        assert error["type"] == "InvalidMessage"
        assert field in error["field"]
        assert error["message"]
    for answer in (answers[0], answers[1], answers[3], answers[6]):
        any_house.becomes(answer["id"], "sent")
    assert any_house.rpc.status(f"own-{people[1]}")["tenant"] == "acme"


def test_submit_many_of_nothing_is_nothing(house: House) -> None:
    assert house.rpc.submit_many([]) == []


@pytest.mark.parametrize("value", [None, {}, "text", 3, mail("a@example.org")], ids=str)
def test_submit_many_takes_a_list_only(house: House, value: Any) -> None:
    with pytest.raises(RemoteError) as raised:
        house.rpc.submit_many(value)

    assert raised.value.exc_type == "InvalidMessage"
    assert "messages" in raised.value.value


INVALID = {
    "no recipients": ({"to": []}, {}, "to"),
    "no recipient fields": ({"to": None}, {}, "to"),
    "address": ({"to": ["ann@example.org", "a@b@c"]}, {}, "to[1]"),
    "line break in an address": ({"to": ["a@example.org\nBcc: b@example.org"]}, {}, "to[0]"),
    "line break in the subject": ({"subject": "a\r\nBcc: b@example.org"}, {}, "subject"),
    "line break in the sender": ({"from_email": "a@example.org\nX: y"}, {}, "from_email"),
    "line break in a header": ({"headers": {"X-A": "b\nBcc: c@example.org"}}, {}, 'headers["X-A"]'),
    "line break in a header's name": ({"headers": {"X-A\nBcc": "c"}}, {}, "headers"),
    "line break in reply_to": ({"reply_to": ["a@example.org\nBcc: b@example.org"]}, {}, "reply_to[0]"),
    "line break in a file name": (
        {"attachments": [{"filename": "a\nBcc: b@example.org", "content": "YQ==", "mimetype": "text/plain"}]},
        {},
        "attachments[0].filename",
    ),
    "line break in a type": (
        {"attachments": [{"filename": "a", "content": "YQ==", "mimetype": "text/plain\nBcc: b@example.org"}]},
        {},
        "attachments[0].mimetype",
    ),
    "line break in an alternative's type": (
        {"alternatives": [{"content": "a", "mimetype": "text/html\nBcc: b@example.org"}]},
        {},
        "alternatives[0].mimetype",
    ),
    "line break in the subtype": ({"content_subtype": "html\nBcc: b@example.org"}, {}, "content_subtype"),
    "line break in the encoding": ({"encoding": "utf-8\nBcc: b@example.org"}, {}, "encoding"),
    "line break in the envelope sender": ({"envelope_sender": "a@example.org>\r\nRCPT TO:<b@x.org"}, {}, "envelope"),
    "line break in a tag": ({"tags": ["a\nb"]}, {}, "tags[0]"),
    "unknown field": ({"subjekt": "Hello"}, {}, "subjekt"),
    "wrong kind": ({"body": 7}, {}, "body"),
    "not base64": ({"attachments": [{"filename": "a", "content": "!", "mimetype": None}]}, {}, "attachments[0]"),
    "unknown option": ({}, {"proirity": "high"}, "proirity"),
    "priority": ({}, {"priority": "urgent"}, "priority"),
    "mailer": ({}, {"mailer": "absent"}, "mailer"),
    "backoff": ({}, {"backoff": "absent"}, "backoff"),
    "expires_at": ({}, {"expires_at": "tomorrow"}, "expires_at"),
    "id too long": ({}, {"id": "x" * 201}, "id"),
    "id of another kind": ({}, {"id": 7}, "id"),
    "empty id": ({}, {"id": ""}, "id"),
    "tenant too long": ({}, {"tenant": "x" * 201}, "tenant"),
    "too large": ({"body": "x" * 300_001}, {}, "message"),
    "half a surrogate pair": ({"subject": "\ud800"}, {}, "subject"),
}


@pytest.mark.parametrize("method", ["send", "submit"])
@pytest.mark.parametrize(("changes", "options", "field"), INVALID.values(), ids=INVALID)
def test_an_invalid_message_is_refused_with_its_field(
    house: House, method: str, changes: dict[str, Any], options: dict[str, Any], field: str
) -> None:
    message = {name: value for name, value in {**mail(house.person()), **changes}.items() if value is not None}

    with pytest.raises(RemoteError) as raised:
        getattr(house.rpc, method)(message, **options)

    assert raised.value.exc_type == "InvalidMessage"
    assert field in raised.value.value.partition(": ")[0]


@pytest.mark.parametrize("message", [None, [], "text", 7, True], ids=str)
def test_a_message_that_is_no_object_is_refused(house: House, message: Any) -> None:
    with pytest.raises(RemoteError) as raised:
        house.rpc.submit(message)

    assert raised.value.exc_type == "InvalidMessage"
    assert raised.value.value.startswith("message")


def test_a_call_without_a_message_is_refused(house: House) -> None:
    with pytest.raises(RemoteError) as raised:
        house.rpc.submit()

    assert raised.value.exc_type == "InvalidMessage"


def test_options_of_null_are_not_given(house: House) -> None:
    names = ("id", "mailer", "priority", "backoff", "expires_at", "tenant")

    record = house.rpc.send(mail(house.person()), **dict.fromkeys(names))

    assert record["status"] == "sent"
    assert record["tenant"] is None


def test_the_same_id_is_one_mail(any_house: House) -> None:
    person = any_house.person()
    message = mail(person)
    mail_id = f"same-{person}"
    any_house.rpc.send(message, id=mail_id)

    again = any_house.rpc.submit(message, id=mail_id, tenant="ignored", priority="bulk", mailer="second")
    sent_again = any_house.rpc.send(message, id=mail_id)
    many = any_house.rpc.submit_many([{**message, "options": {"id": mail_id}}] * 2)

    record = any_house.rpc.status(mail_id)
    assert again == sent_again == record
    assert many == [record, record]
    assert (record["tenant"], record["mailer"]) == (None, "default")
    assert len(any_house.mails_to(person)) == 1


def test_the_same_id_many_times_at_once_is_one_mail(any_house: House) -> None:
    person = any_house.person()
    mail_id = f"rush-{person}"
    begun = [any_house.rpc.begin("submit", mail(person), id=mail_id) for _ in range(20)]

    answers = [any_house.rpc.wait(each) for each in begun]

    assert {answer["id"] for answer in answers} == {mail_id}
    any_house.becomes(mail_id, "sent")
    eventually(lambda: len(any_house.mails_to(person)) == 1)
    any_house.rpc.send(mail(any_house.person()), priority="normal")
    assert len(any_house.mails_to(person)) == 1


EQUAL = {
    "keys in another order": lambda m: dict(reversed(m.items())),
    "one recipient as a string": lambda m: m | {"to": m["to"][0]},
    "empty fields": lambda m: m | {"cc": [], "headers": {}, "attachments": []},
    "null fields": lambda m: m | {"cc": None, "headers": None},
    "html as an alternative": lambda m: (
        {k: v for k, v in m.items() if k != "html"}
        | {"alternatives": [{"content": m["html"], "mimetype": "text/html"}]}
    ),
    "the default sender left out": lambda m: {k: v for k, v in m.items() if k != "from_email"},
}


@pytest.mark.parametrize("change", EQUAL.values(), ids=EQUAL)
def test_a_message_that_is_equal_in_its_canonical_form_is_the_same(house: House, change: Any) -> None:
    message = mail([house.person()], html="<p>Hello</p>", from_email="sender@example.org")
    record = house.rpc.send(message, id=f"equal-{uuid.uuid4()}")

    assert house.rpc.submit(change(message), id=record["id"]) == record


@pytest.mark.parametrize("method", ["send", "submit"])
def test_the_same_id_with_another_message_is_a_conflict(any_house: House, method: str) -> None:
    person = any_house.person()
    any_house.rpc.send(mail(person), id=f"conflict-{person}")

    with pytest.raises(RemoteError) as raised:
        getattr(any_house.rpc, method)(mail(person, subject="Other"), id=f"conflict-{person}")

    assert raised.value.exc_type == "Conflict"
    assert len(any_house.mails_to(person)) == 1


def test_a_conflict_in_submit_many_is_an_error_of_its_message(house: House) -> None:
    person = house.person()
    options = {"id": f"conflict-{person}"}

    answers = house.rpc.submit_many(
        [mail(person, options=options), mail(person, subject="Other", options=options), mail(person)]
    )

    assert answers[0]["status"] == "queued"
    assert answers[1]["error"]["type"] == "Conflict"
    assert answers[2]["status"] == "queued"


def test_send_joins_the_wait_for_the_same_id(any_house: House) -> None:
    person = any_house.person("once")
    mail_id = f"join-{person}"
    other = Rpc(any_house.amqp_uri)
    first = any_house.rpc.begin("send", mail(person), id=mail_id, backoff="seconds")
    any_house.becomes(mail_id, "deferred")

    second = other.begin("send", mail(person), id=mail_id)
    third = other.begin("send", mail(person), id=mail_id)

    records = [any_house.rpc.wait(first), other.wait(second), other.wait(third)]
    other.close()
    assert [record["status"] for record in records] == ["sent"] * 3
    assert records[0]["id"] == records[1]["id"] == mail_id
    assert len(any_house.mails_to(person)) == 1


def test_send_joins_the_wait_for_a_submitted_mail(house: House) -> None:
    person = house.person("once")
    house.rpc.submit(mail(person), id=f"joined-{person}", backoff="seconds")

    record = house.rpc.send(mail(person), id=f"joined-{person}")

    assert (record["status"], record["attempts"]) == ("sent", 2)


def test_send_of_a_failed_mail_raises_again(house: House) -> None:
    person = house.person("refused")
    for _ in range(2):
        with pytest.raises(RemoteError) as raised:
            house.rpc.send(mail(person), id=f"twice-{person}")
        assert raised.value.exc_type == "DeliveryFailed"
    assert house.rpc.status(f"twice-{person}")["attempts"] == 1


def test_a_caller_whose_time_is_over_leaves_the_mail_on_its_way(house: House) -> None:
    person = house.person("once")
    begun = house.rpc.begin("send", mail(person), id=f"slow-{person}", backoff="seconds")

    with pytest.raises(RpcTimeout):
        house.rpc.wait(begun, timeout_s=0.3)

    house.becomes(f"slow-{person}", "sent")
    assert house.rpc.wait(begun)["status"] == "sent"


def test_no_worker_waits_while_a_caller_does(house: House) -> None:
    """There are ten workers, and thirty callers wait for their retries."""
    people = [house.person("once") for _ in range(30)]
    begun = [house.rpc.begin("send", mail(person), backoff="seconds") for person in people]

    assert house.rpc.send(mail(house.person()))["status"] == "sent"

    assert {house.rpc.wait(each)["status"] for each in begun} == {"sent"}


@pytest.mark.parametrize("method", ["status", "error", "replay", "discard"])
def test_an_unknown_id_is_not_found(any_house: House, method: str) -> None:
    with pytest.raises(RemoteError) as raised:
        getattr(any_house.rpc, method)("no such id")

    assert raised.value.exc_type == "NotFound"


@pytest.mark.parametrize("method", ["status", "error"])
@pytest.mark.parametrize("value", [None, 7, [], "", {}], ids=repr)
def test_an_id_of_another_kind_is_refused(house: House, method: str, value: Any) -> None:
    with pytest.raises(RemoteError) as raised:
        getattr(house.rpc, method)(value)

    assert raised.value.exc_type in {"InvalidMessage", "NotFound"}


@pytest.mark.parametrize("method", ["status", "error", "replay", "discard", "purge", "retry_now", "health", "errors"])
def test_an_unknown_keyword_is_named(house: House, method: str) -> None:
    with pytest.raises(RemoteError) as raised:
        getattr(house.rpc, method)(foo="bar")

    assert raised.value.exc_type == "InvalidMessage"
    assert "foo" in raised.value.value


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "older_than_days"),
        ({"older_than_days": "x"}, "older_than_days"),
        ({"older_than_days": -1}, "older_than_days"),
        ({"older_than_days": float("1e300")}, "older_than_days"),
        ({"older_than_days": 1, "status": "queued"}, "status"),
        ({"older_than_days": 1, "status": "deferred"}, "status"),
        ({"older_than_days": 1, "status": ["sent"]}, "status"),
    ],
    ids=str,
)
def test_purge_refuses_what_it_does_not_understand(house: House, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(RemoteError) as raised:
        house.rpc.purge(**arguments)

    assert raised.value.exc_type == "InvalidMessage"
    assert field in raised.value.value


def test_health_has_a_line_for_every_part_and_says_what_is_bad(any_house: House) -> None:
    health = any_house.rpc.health()

    assert set(health) == {
        "broker",
        "database",
        *(f"mailer {name}" for name in ("default", "second", "throttling", "give_up", "fussy", "closed", "rehearsal")),
    }
    assert all(sorted(part) == ["ok", "text"] and part["text"] for part in health.values())
    # a test before this one may have had the other one held
    assert {name for name, part in health.items() if not part["ok"]} - {"mailer throttling"} == {"mailer closed"}


def test_an_id_of_two_hundred_characters_of_any_alphabet_is_taken(any_house: House) -> None:
    mail_id = ("Ünïcode ✉ 日本 %?/'\";" * 20)[:200]

    record = any_house.rpc.send(mail(any_house.person()), id=mail_id, tenant="Ä" * 200)

    assert record["id"] == mail_id
    assert any_house.rpc.status(mail_id) == record


def test_expires_at_in_the_past_is_accepted_and_ends_expired(any_house: House) -> None:
    person = any_house.person()
    past = (datetime.now(UTC) - timedelta(minutes=1)).replace(tzinfo=None).isoformat()

    answer = any_house.rpc.submit(mail(person), expires_at=past)
    assert answer["status"] == "queued"

    record = any_house.becomes(answer["id"], "expired")
    assert record["attempts"] == 0
    assert any_house.mails_to(person) == []
    assert any_house.rpc.error(answer["id"])["attempts"] == []
    with pytest.raises(RemoteError) as raised:
        any_house.rpc.send(mail(person), expires_at=past)
    assert raised.value.exc_type == "Expired"


def test_a_mail_is_not_attempted_after_expires_at(house: House) -> None:
    person = house.person("later")
    end = datetime.now(UTC) + timedelta(seconds=1.6)

    with pytest.raises(RemoteError) as raised:
        house.rpc.send(mail(person), id=f"ends-{person}", expires_at=end.isoformat(), backoff="seconds")

    assert raised.value.exc_type == "Expired"
    tries = [fired for fired in house.smtp.fired() if person in fired.rcpt_tos]
    assert all(fired.time <= end.timestamp() for fired in tries)
    assert house.rpc.status(f"ends-{person}")["attempts"] == len(tries) >= 1


def test_expires_at_in_the_future_with_another_offset_changes_nothing(house: House) -> None:
    assert house.rpc.send(mail(house.person()), expires_at="2999-01-01T00:00:00+14:00")["status"] == "sent"


@pytest.mark.parametrize(
    "request_",
    [
        {"body": b"\xff\xfe", "content_type": "application/json", "content_encoding": "utf-8"},
        {"body": b"{", "content_type": "application/json", "content_encoding": "utf-8"},
        {"body": b"text", "content_type": "text/plain", "content_encoding": "utf-8"},
        {"body": b"\x80\x04N.", "content_type": "application/x-python-serialize", "content_encoding": "binary"},
        {"body": b"[]", "content_type": "application/json", "content_encoding": "utf-8"},
        {"body": b'{"args": 1, "kwargs": 2}', "content_type": "application/json", "content_encoding": "utf-8"},
        {"body": b'{"args": [1, 2, 3, 4], "kwargs": {}}', "content_type": "application/json"},
        {"body": b'{"args": [], "kwargs": {}}', "content_type": "nonsense", "content_encoding": "nonsense"},
        {"body": b"[" * 100_000, "content_type": "application/json", "content_encoding": "utf-8"},
    ],
    ids=lambda request: f"{request['content_type']} {request['body'][:10]!r}",
)
def test_a_request_that_cannot_be_read_is_answered(house: House, request_: dict[str, Any]) -> None:
    properties = {name: value for name, value in request_.items() if name != "body"}
    properties.setdefault("content_encoding", "utf-8")

    house.rpc.publish("submit", request_["body"], correlation_id="bad", reply_to=house.rpc.reply_key, **properties)

    with pytest.raises(RemoteError):
        house.rpc.wait("bad")
    assert house.rpc.send(mail(house.person()))["status"] == "sent"


def test_requests_without_a_way_back_do_not_end_the_service(house: House) -> None:
    person = house.person()
    good = {"args": [mail(person)], "kwargs": {}}
    house.rpc.publish("submit", good)
    house.rpc.publish("submit", good, headers={})
    house.rpc.publish("submit", good, headers={"nameko.call_id_stack": "not a list"})
    house.rpc.publish("send", good, headers={"nameko.call_id_stack": [1, None]})
    house.rpc.publish("no_such_method", good)
    house.rpc.publish("submit", {"args": [], "kwargs": {"x": 1}})

    eventually(lambda: len(house.mails_to(person)) == 4)
    assert house.service.is_alive


def test_a_method_that_does_not_exist_is_answered(house: House) -> None:
    with pytest.raises(RemoteError) as raised:
        house.rpc.no_such_method()

    assert raised.value.exc_type == "MethodNotFound"
