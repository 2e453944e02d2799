"""The bytes that travel: what goes in comes out, and nothing that anybody may publish gets past."""

from __future__ import annotations

import json
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail_service import clock
from mail_service.envelope import Envelope, ReplyTo, derived_id, seal
from mail_service.errors import InvalidMessage

MESSAGE = {"to": ["a@example.org"], "subject": "Grüße", "body": "x"}


def test_what_is_sealed_is_read_again() -> None:
    envelope = seal(MESSAGE, {"id": "m1", "priority": "bulk"}, door="send", sender="Me <me@example.org>")
    envelope = replace(
        envelope,
        reply_to=ReplyTo(routing_key="r", correlation_id="c"),
        settled={"a@example.org": {"status": "sent", "message_id": None, "detail": None}},
        unrecorded=[{"mail": {}}],
    )

    assert Envelope.parse(envelope.body()) == envelope


def test_other_letters_than_ascii_travel_as_they_are() -> None:
    """In escapes a mail in Cyrillic would be three times as large, and too large for RabbitMQ much sooner."""
    message = {**MESSAGE, "body": "Ж" * 1000}
    envelope = seal(message, {"tenant": "Ж"}, door="submit")

    assert len(envelope.body()) < 3000
    assert envelope.body(json.dumps(message, ensure_ascii=False, separators=(",", ":"))) == envelope.body()
    assert Envelope.parse(envelope.body()) == envelope


def test_half_of_a_surrogate_pair_is_carried_in_escapes() -> None:
    envelope = replace(seal(MESSAGE, {}, door="submit"), unrecorded=[{"text": "\udc80"}])

    assert Envelope.parse(envelope.body()) == envelope


def test_the_identity_is_fixed_when_the_mail_is_accepted() -> None:
    envelope = seal(MESSAGE, {}, door="submit", sender="Me <me@example.org>")

    assert envelope.message_id.endswith("@example.org>")
    age_s = (clock.now() - parsedate_to_datetime(envelope.date)).total_seconds()
    assert 0 <= age_s < 60
    assert envelope.lane == "normal"


@pytest.mark.parametrize(
    ("sender", "domain"),
    [
        pytest.param("me@exämple.org", "xn--exmple-cua.org", id="a domain of other letters as IDNA"),
        pytest.param("webmaster", "mail-service.invalid", id="no domain"),
        pytest.param("me@bad domain", "mail-service.invalid", id="nonsense"),
        pytest.param("me@e.org>\r\nBcc: x@y.org", "y.org", id="an injection leaves a domain at most"),
    ],
)
def test_the_message_id_has_a_domain_of_letters_digits_and_dots(sender: str, domain: str) -> None:
    assert seal(MESSAGE, {}, door="submit", sender=sender).message_id.endswith(f"@{domain}>")


def test_a_mail_that_is_handed_in_twice_has_one_message_id() -> None:
    first, second = (seal(MESSAGE, {"id": "m1"}, door="submit", sender="me@example.org") for _ in range(2))
    other = seal({**MESSAGE, "subject": "other"}, {"id": "m1"}, door="submit", sender="me@example.org")

    assert first.message_id == second.message_id != other.message_id


def test_a_request_that_is_delivered_twice_derives_one_id() -> None:
    assert derived_id("reply", "correlation", "0") == derived_id("reply", "correlation", "0")
    assert derived_id("reply", "correlation", "0") != derived_id("reply", "correlation", "1")


def changed(**changes: Any) -> bytes:
    facts = json.loads(seal(MESSAGE, {"id": "m1"}, door="submit").body())
    return json.dumps({name: value for name, value in {**facts, **changes}.items() if value != "absent"}).encode()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param(b"\x80\x04\x95", id="a pickle"),
        pytest.param(b"[" * 100_000, id="nested too deeply"),
        pytest.param(b"[]", id="no object"),
        pytest.param(changed(v="absent"), id="no version"),
        pytest.param(changed(v=99), id="a version of the future"),
        pytest.param(b"{}", id="empty"),
        pytest.param(changed(id="absent"), id="no id"),
        pytest.param(changed(id=""), id="an empty id"),
        pytest.param(changed(id="x" * 201), id="a long id"),
        pytest.param(changed(id="a\x00b"), id="an id with NUL"),
        pytest.param(changed(id=7), id="an id that is no string"),
        pytest.param(changed(message_id="<a@b>\r\nBcc: c@d"), id="a header in the Message-ID"),
        pytest.param(changed(date="now\nX: y"), id="a header in the Date"),
        pytest.param(changed(submitted_at="yesterday"), id="no time"),
        pytest.param(changed(options=[]), id="options that are no object"),
    ],
)
def test_what_is_no_envelope_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidMessage):
        Envelope.parse(body)


@pytest.mark.parametrize("nowhere", [7, [], ["r"], ["r", 7], ["r" * 256, "c"], ["r\x00", "c"]])
def test_a_caller_who_cannot_be_answered_does_not_spoil_the_mail(nowhere: object) -> None:
    assert Envelope.parse(changed(reply_to=nowhere)).reply_to is None


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_no_bytes_make_it_raise_anything_else(body: bytes | str) -> None:
    try:
        Envelope.parse(body)
    except InvalidMessage:
        return


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.none() | st.text(max_size=20) | st.integers() | st.lists(st.text(max_size=5), max_size=3)
            for name in ("v", "id", "options", "door", "submitted_at", "message_id", "date", "reply_to", "settled")
        },
    )
)
def test_no_fields_make_it_raise_anything_else(changes: dict[str, Any]) -> None:
    try:
        Envelope.parse(changed(**changes))
    except InvalidMessage:
        return
