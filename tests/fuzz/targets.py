"""
Everything that reads what comes from outside, each with what it is fed and what it may do about it.

A target returns, or raises one of its own errors: the clear one that a caller gets or that an entry of the error log
has. Anything else, and any input that takes for ever, is a defect.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st
from kombu.message import Message as AmqpMessage
from nameko.exceptions import MalformedRequest

from mail_service import clock, tls, topology
from mail_service.amqp.retrying import kept_headers, raw_body
from mail_service.amqp.rpc import _arguments, caller_of
from mail_service.arguments import as_address, as_id, as_limit, as_moment_after, as_time
from mail_service.client import asking
from mail_service.delivery.copies import read
from mail_service.diagnosis import Context, diagnose
from mail_service.diagnosis.answer import read as read_answer
from mail_service.diagnosis.http import from_answer
from mail_service.diagnosis.providers import PROVIDERS
from mail_service.diagnosis.reading import one_line
from mail_service.diagnosis.smtp import diagnose_reply
from mail_service.diagnosis.statuses import diagnose_recipient
from mail_service.diagnosis.waits import LONGEST_S, asked_in_headers, asked_in_text
from mail_service.doors.accepting import _reread, split
from mail_service.envelope import Envelope, seal
from mail_service.errors import ConfigurationError, InvalidMessage, MailServiceError
from mail_service.ledger.errorlog import Filter
from mail_service.ledger.records import Change
from mail_service.mailers.compose import compose
from mail_service.mailers.content import has_lone_line_ends, mime_bytes
from mail_service.mailers.replies import LONGEST_REPLY, ReplyReader
from mail_service.message import Options, digest, load, recipients, send_at, stamp, validate
from mail_service.outcome import Diagnosis
from mail_service.settings import Settings, load_settings
from tests.support.messages import a_message, in_base64

from .inputs import ANYTHING, HEADERS, NUMBERS, TEXTS, as_json, damaged, damaged_bytes

SETTINGS = Settings()
FULL = a_message(
    cc='"Doe, Jo" <jo@bücher.example>',
    bcc=["a@example.org"],
    reply_to=["help@example.org"],
    headers={"X-A": "b", "List-Id": "<x.example.org>", "Content-Language": "de"},
    html="<p>",
    alternatives=[{"content": "x", "mimetype": "text/calendar; method=REQUEST"}],
    attachments=[
        {"filename": "a.pdf", "content": "QUJD", "mimetype": "application/pdf"},
        {"filename": "ä.txt", "content": "QUJD", "mimetype": None},
        {
            "mime": in_base64(
                b"Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/plain\n\na\n--x--\n"
            )
        },
    ],
    encoding="iso-8859-1",
    envelope_sender="<>",
    metadata={"a": {"b": [1, 2.5, None, True]}},
    merge_metadata={"ann@example.org": {"a": 1}},
    tags=["x"],
    track_opens=True,
    send_at="2030-01-31T12:00:00Z",
    template_id=7,
    merge_data={"ann@example.org": {"a": "b"}},
    merge_headers={"ann@example.org": {"X-A": "b"}},
    esp_extra={"x": {"y": []}},
    types={"/headers/X-A": "decimal"},
)
WHOLE = a_message(mime=in_base64(b"From: a@example.org\nTo: b@example.org\nSubject: x\n\nbody\n"))
OPTIONS = {
    "id": "order-1",
    "mailer": "default",
    "priority": "bulk",
    "backoff": "dynamic",
    "expires_at": "2030-01-31T12:00:00Z",
    "tenant": "acme",
}
STATE = {"status": "sent", "message_id": "x", "detail": "250 ok"}
CHANGE = {
    "mail": {
        "id": "order-1",
        "status": "deferred",
        "mailer": "default",
        "recipients": {"ann@example.org": STATE},
        "generation": 2,
        "attempts": 1,
        "submitted_at": clock.now_iso(),
        "updated_at": clock.now_iso(),
        "digest": "0" * 64,
    },
    "attempts": [
        {
            "at": clock.now_iso(),
            "mailer": "default",
            "diagnosis": "transient",
            "text": "later",
            "milliseconds": 5,
            "recipients": {"ann@example.org": STATE},
        }
    ],
}
ENVELOPES = [
    json.loads(seal(message, OPTIONS, door="submit").body())
    | {"settled": {"ann@example.org": STATE}, "unrecorded": [CHANGE], "reply_to": ["key", "id"]}
    for message in (FULL, WHOLE)
]
CONFIG = {
    "AMQP_URI": "amqp://guest:guest@localhost//",
    "AMQP_SSL": {"ca_certs": "/nowhere", "cert_reqs": "CERT_REQUIRED"},
    "WEB_SERVER_ADDRESS": "127.0.0.1:8000",
    "max_workers": 10,
    "mail": {
        "default_from": "Shop <shop@example.org>",
        "mailers": {
            "default": {
                "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
                "OPTIONS": {"host": "localhost", "port": 1025, "password": "secret"},
                "failover": ["second"],
                "on_unknown": "retry",
                "limit": {"rate": 14, "per": 1, "concurrency": 10},
            },
            "second": {"BACKEND": "anymail.backends.postmark.EmailBackend", "http_retry": {"connect": 2}},
        },
        "routing": [{"tag": "x", "sender_domain": ["*.example.org"], "mailer": {"second": 3, "default": 1}}],
        "tenants": {"acme": {"mailers": {"default": {"BACKEND": "a.b"}}}},
        "database": "sqlite:///var/mail.db",
        "event_sources": ["orders"],
        "schedules": {"x": {"schedule": [100, 200], "limit": 3}, "y": {"first": 1, "factor": 2, "longest": 9}},
        "backoff": {"send": "x"},
        "bounce": {"to_sender": True, "mailer": "second"},
        "redirect_to": "a@example.org",
        "allow_recipients": ["*@example.org"],
        "max_size": 1000,
        "max_recipients": 5,
        "hold_probe": 1,
        "attempt_timeout": 5.5,
    },
}
STAGES = [None, "connect", "helo", "starttls", "auth", "mail", "rcpt", "data", "body", "quit"]
REPLIES = [b"250-first\r\n250 2.0.0 ok\r\n", b"450 4.2.0 Greylisted, try again in 00:05:00\r\n", b"550 5.1.1 no\r\n"]
ANSWER_HEADERS = [
    {"Retry-After": "120", "Date": format_datetime(clock.now(), usegmt=True)},
    {"X-RateLimit-Reset": "1893456000", "X-RateLimit-Remaining": "0"},
    {"ratelimit-reset": "5", "x-apiquota-reset": "2030-01-01T00:00:00Z", "x-apiquota-remaining": "0"},
]
ANSWER_BODIES = [
    {"ErrorCode": 406, "Message": "inactive"},
    {"errors": [{"code": "x", "message": "quota exceeded", "field": "to"}], "message": "try again in 5 minutes"},
    [{"status": "rejected", "email": "ann@example.org", "reject_reason": "hard-bounce"}],
    {"Error": {"Code": "Throttling", "Message": "x"}, "ResponseMetadata": {"HTTPStatusCode": 400, "HTTPHeaders": {}}},
]


@dataclass(frozen=True, slots=True)
class Target:
    """One of those who read what comes from outside."""

    inputs: st.SearchStrategy[Any]
    read: Callable[[Any], Any]
    #: what it says about an input that it cannot use
    errors: tuple[type[Exception], ...] = ()


def _message(value: Any) -> None:
    canonical = validate(value, default_from="a@example.org")
    assert recipients(canonical)
    assert validate(canonical) == canonical
    digest(canonical)
    send_at(canonical)
    pieces = compose(canonical, message_id="<a@b>", date="Sun, 22 Nov 2026 10:00:00 +0000")
    assert pieces is None or not any(map(has_lone_line_ends, pieces))
    email = load(canonical)
    stamp(email, message_id="<a@b>", date="Sun, 22 Nov 2026 10:00:00 +0000")
    # Django may refuse what it is given: a permanent failure, in the error log
    with contextlib.suppress(Exception):
        assert not has_lone_line_ends(mime_bytes(email))


def _copy(given: tuple[bytes, dict[str, Any]]) -> None:
    body, headers = given
    amqp_message = AmqpMessage(body=body, headers=headers)
    delivery = read(raw_body(amqp_message), kept_headers(amqp_message), redelivered=False, settings=SETTINGS)
    assert 0 <= delivery.attempts <= 10**9
    assert 0 <= delivery.early_ms <= topology.LEVELS_MS[-1]
    for facts in delivery.envelope.unrecorded:
        with contextlib.suppress(TypeError, KeyError, ValueError):
            Change.from_json(facts, body)
    assert Envelope.parse(delivery.envelope.body()) == delivery.envelope


def _event(body: bytes) -> None:
    message, options, _door = _reread(body)
    Options.parse(options)
    validate(message, default_from="a@example.org")


def _request(given: tuple[bytes, dict[str, Any], dict[str, Any]]) -> None:
    body, headers, properties = given
    message = AmqpMessage(body=body, headers=headers, properties=properties, delivery_info={}, **_types(properties))
    caller_of(message)
    _arguments(message)


def _types(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {name: properties.get(name) for name in ("content_type", "content_encoding")}


def _filters(value: Any) -> None:
    Filter.parse(value, also=("limit", "after"))


def _argument(value: Any) -> None:
    for check in (
        as_id,
        as_limit,
        as_address,
        as_moment_after,
        lambda given: as_address(given, or_domain=True),
        lambda given: as_time("at", given),
    ):
        with contextlib.suppress(InvalidMessage):
            check(value)


class _Socket:
    """Gives the pieces of a stream, one for each call, and then its end."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = iter(pieces)

    def settimeout(self, _seconds: float) -> None:
        pass

    def recv(self, _size: int) -> bytes:
        return next(self._pieces, b"")


def _replies(pieces: list[bytes]) -> None:
    reader = ReplyReader(_Socket([piece for piece in pieces if piece]), 5)
    with contextlib.suppress(EOFError):
        for _ in range(1 + sum(map(len, pieces))):
            reply = reader.reply()
            assert -1 <= reply.code <= 999
            assert len(reply.text) <= LONGEST_REPLY
            diagnose_reply(reply.code, reply.text, "rcpt")


def _reply(given: tuple[Any, Any, Any]) -> None:
    code, text, stage = given
    _sound(diagnose_reply(code, text, stage))


def _answer(given: tuple[Any, Any, bytes, str]) -> None:
    status, headers, content, name = given
    response = SimpleNamespace(status_code=status, headers=headers, content=content)
    provider = PROVIDERS[name]
    answer = read_answer(response, provider)
    if found := from_answer(answer, one_line(answer.text), Context(mailer="x")):
        _sound(found)
    asked_in_headers(answer.status, answer.headers)
    _sound(
        diagnose_recipient(
            "ann@example.org", "rejected", SimpleNamespace(esp_response=response), Context(), esp_name=provider.names[0]
        )
    )


def _waits(text: str) -> None:
    for seconds in (asked_in_text(text), asked_in_headers(429, {"retry-after": text, "date": text})):
        assert seconds is None or 0 <= seconds <= LONGEST_S


def _error(given: tuple[Any, ...]) -> None:
    for kind in (Exception, OSError, ValueError, ConnectionError, UnicodeError):
        with contextlib.suppress(TypeError):
            _sound(diagnose(kind(*given), Context(mailer="x")))


def _sound(diagnosis: Diagnosis) -> None:
    assert len(diagnosis.text) <= 500
    assert "\n" not in diagnosis.text
    assert "\n" not in diagnosis.code
    assert diagnosis.wait_s is None or 0 <= diagnosis.wait_s <= LONGEST_S


def _config(value: Any) -> None:
    settings = load_settings(value)
    assert "secret" not in str(settings.masked()["mailers"])


def _tls(value: Any) -> None:
    tls.check(value)
    tls.options(value, "localhost", is_asked_for=True)


TARGETS: dict[str, Target] = {
    "message": Target(damaged(FULL, WHOLE) | ANYTHING, _message, (InvalidMessage,)),
    "options": Target(damaged(OPTIONS) | ANYTHING, Options.parse, (InvalidMessage,)),
    "envelope": Target(damaged_bytes(*map(as_json, ENVELOPES)), Envelope.parse, (InvalidMessage,)),
    "copy": Target(
        st.tuples(
            damaged(*ENVELOPES).map(as_json) | damaged_bytes(*map(as_json, ENVELOPES)),
            HEADERS
            | st.dictionaries(
                st.sampled_from(
                    [
                        *(topology.ATTEMPTS, topology.GENERATION, topology.SUBMITTED, topology.DUE, topology.DEATHS),
                        *(topology.STATE, topology.STATUS, topology.ERROR, topology.REPLAY, topology.REDELIVERED),
                        *(topology.HELD, "x-death", "CC", "compression"),
                    ]
                ),
                ANYTHING,
            ),
        ),
        _copy,
        (InvalidMessage,),
    ),
    "change": Target(
        damaged(CHANGE) | ANYTHING, lambda facts: Change.from_json(facts, b""), (TypeError, KeyError, ValueError)
    ),
    "event": Target(
        damaged({**FULL, "options": OPTIONS}).map(as_json) | damaged_bytes(as_json(FULL)), _event, (InvalidMessage,)
    ),
    "event payload": Target(damaged({**FULL, "options": OPTIONS}) | ANYTHING, split, (InvalidMessage,)),
    "request": Target(
        st.tuples(
            damaged({"args": [FULL], "kwargs": {"id": "x"}}).map(as_json) | st.binary(max_size=50),
            HEADERS,
            st.fixed_dictionaries(
                {},
                optional={
                    "reply_to": TEXTS,
                    "correlation_id": TEXTS,
                    "content_type": TEXTS | st.sampled_from(["application/json", "application/x-python-serialize"]),
                    "content_encoding": TEXTS | st.sampled_from(["utf-8", "binary", "utf-16", "rot13", "zlib"]),
                },
            ),
        ),
        _request,
        (MalformedRequest,),
    ),
    "filters": Target(
        st.dictionaries(
            st.sampled_from(["status", "mailer", "recipient", "tenant", "since", "until", "limit", "after"]) | TEXTS,
            ANYTHING,
            max_size=4,
        ),
        _filters,
        (InvalidMessage,),
    ),
    "argument": Target(ANYTHING, _argument),
    "answer of the service": Target(
        damaged({"result": {"id": "x"}, "error": None}, {"result": None, "error": {"exc_type": "X", "value": "y"}}).map(
            as_json
        )
        | st.binary(max_size=50),
        asking.result,
        (MailServiceError,),
    ),
    "replies of a mail server": Target(st.lists(damaged_bytes(*REPLIES), max_size=6), _replies),
    "reply": Target(st.tuples(st.integers(-1, 999), TEXTS | damaged_bytes(*REPLIES), st.sampled_from(STAGES)), _reply),
    "answer of a provider": Target(
        st.tuples(
            st.integers(0, 999) | ANYTHING,
            damaged(*ANSWER_HEADERS) | ANYTHING,
            damaged(*ANSWER_BODIES).map(as_json) | st.binary(max_size=80),
            st.sampled_from(sorted(PROVIDERS)),
        ),
        _answer,
    ),
    "waits": Target(
        TEXTS
        | st.from_regex(r"\A(try again in|Retry-After:|wait) [0-9]{1,8} ?(s|minutes|h|:[0-9]{2}:[0-9]{2})?\Z")
        | NUMBERS.map(str),
        _waits,
    ),
    "error": Target(st.lists(ANYTHING, max_size=5).map(tuple), _error),
    "configuration": Target(
        damaged(CONFIG).filter(lambda value: isinstance(value, dict)), _config, (ConfigurationError,)
    ),
    "AMQP_SSL": Target(damaged({"ca_certs": "x", "cert_reqs": "CERT_NONE"}) | ANYTHING, _tls, (ConfigurationError,)),
}
