"""
What travels through the queues: a mail as it was handed in, with all that was fixed when it was accepted.

The body never changes on its way through retries, but for the recipients that are settled; what does change (attempts,
generation, due time) stands in headers. Any door builds one, any worker reads one; kombu, nameko and Django are not
needed.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Any, Self, TypeGuard

from mail_service import clock, topology, tracing
from mail_service.errors import InvalidMessage
from mail_service.message import references
from mail_service.message.options import require_id
from mail_service.outcome import FINAL, is_state
from mail_service.tracing import Carrier

#: Of the body's format: a reader accepts its own version and all before. 2 is for mail with blobs alone, so that any
#: other can be read by the version before.
FORMAT = 2
CONTENT_TYPE = "application/json"
#: how a body begins that `Envelope.body` has written
OURS = b'{"v":'

#: UTF-8, not escapes: a mail in Cyrillic or Chinese would be two or three times as large
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_encode_sorted = json.JSONEncoder(sort_keys=True, default=str).encode

#: For ids derived from an RPC request, so that a redelivered request is the same mail.
_NAMESPACE = uuid.UUID("5f0c7f0e-3b2e-4c55-9c1b-0d6a3a6a9d11")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyTo:
    """Where the caller of ``send`` waits, in nameko's RPC protocol."""

    #: routing key on nameko's RPC exchange
    routing_key: str
    correlation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One accepted mail."""

    id: str
    #: as handed in
    message: Any
    #: as handed in
    options: Mapping[str, Any] = field(default_factory=dict)
    #: send, submit or event: decides the default schedule
    door: str = "submit"
    #: ISO 8601, UTC
    submitted_at: str
    #: the mail's Message-ID header, the same on every attempt
    message_id: str
    #: the mail's Date header (RFC 5322), the same on every attempt
    date: str
    reply_to: ReplyTo | None = None
    #: recipients that need no further attempt, as in a record; only after a partial success
    settled: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: changes the ledger could not take when they happened; written down before anything else is done
    unrecorded: Sequence[Mapping[str, Any]] = ()
    #: the message is no longer what was handed in, and can only be looked at
    redacted: bool = False
    #: the trace that its attempts belong to; empty for none
    trace: Carrier = field(default_factory=dict)

    @property
    def lane(self) -> str:
        """The priority, which names the work queue."""
        return str(self.options.get("priority") or "normal")

    def body(self, message_json: str | None = None) -> bytes:
        """The bytes that travel. *message_json* is the message as JSON, for whoever has it already."""
        if message_json is None:
            message_json = _encode(self.message)
        text = f'{_encode(self._facts())[:-1]},"message":{message_json}}}'
        try:
            return text.encode()
        except UnicodeEncodeError:
            # half of a surrogate pair, which UTF-8 cannot carry: in escapes it can be
            return json.dumps({**self._facts(), "message": self.message}, separators=(",", ":")).encode()

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "v": FORMAT if references.has_any(self.message) else 1,
            "id": self.id,
            "options": dict(self.options),
            "door": self.door,
            "submitted_at": self.submitted_at,
            "message_id": self.message_id,
            "date": self.date,
        }
        if self.reply_to:
            facts["reply_to"] = [self.reply_to.routing_key, self.reply_to.correlation_id]
        if self.settled:
            facts["settled"] = dict(self.settled)
        if self.unrecorded:
            facts["unrecorded"] = list(self.unrecorded)
        if self.redacted:
            facts["redacted"] = True
        if self.trace:
            facts["trace"] = dict(self.trace)
        return facts

    def headers(self) -> dict[str, Any]:
        """The headers of a first copy."""
        tenant = self.options.get("tenant")
        of_tenant = {topology.TENANT: topology.tenant_number(tenant)} if isinstance(tenant, str) else {}
        return {topology.SUBMITTED: clock.to_ms(clock.parse(self.submitted_at)), **of_tenant, **self.trace}

    def without_reply(self) -> Envelope:
        """The same for a copy that nobody waits for."""
        return replace(self, reply_to=None)

    @classmethod
    def parse(cls, body: bytes | memoryview | str) -> Self:
        """Read a body. Raises InvalidMessage when it is not one."""
        try:
            facts = json.loads(bytes(body) if isinstance(body, memoryview) else body)
        except (ValueError, RecursionError) as exc:
            raise InvalidMessage("body", f"is not JSON ({type(exc).__name__})") from None
        if not isinstance(facts, dict):
            raise InvalidMessage("body", "is not a JSON object")
        if not isinstance(facts.get("v"), int) or not 1 <= facts["v"] <= FORMAT:
            raise InvalidMessage("body.v", f"is not a format this version reads (1 to {FORMAT})")
        _require(facts, {"id": str, "options": dict, "door": str, "submitted_at": str, "message_id": str, "date": str})
        return cls(
            id=facts["id"],
            message=facts.get("message"),
            options=facts["options"],
            door=facts["door"],
            submitted_at=_time(facts["submitted_at"]),
            message_id=facts["message_id"],
            date=facts["date"],
            reply_to=_reply_to(facts.get("reply_to")),
            settled=_settled(facts.get("settled")),
            unrecorded=facts["unrecorded"] if isinstance(facts.get("unrecorded"), list) else (),
            redacted=facts.get("redacted") is True,
            trace=tracing.found_in(facts.get("trace")),
        )


def _require(facts: Mapping[str, Any], types: Mapping[str, type]) -> None:
    for name, kind in types.items():
        if not isinstance(facts.get(name), kind):
            raise InvalidMessage(f"body.{name}", f"is missing or not of type {kind.__name__}")
    require_id(facts["id"])
    for name in ("message_id", "date"):
        if len(facts[name]) > 500 or not (facts[name].isascii() and facts[name].isprintable()):
            raise InvalidMessage(f"body.{name}", "must be one line of ASCII")


def _time(text: str) -> str:
    """*text* as we write times: ISO 8601 allows fractions of any length, and any character between day and hour."""
    try:
        return clock.iso(clock.parse(text))
    except (ValueError, OverflowError) as exc:
        raise InvalidMessage("body.submitted_at", f"is no time ({type(exc).__name__})") from None


def _reply_to(value: Any) -> ReplyTo | None:
    """Where the caller waits; None for what AMQP cannot address, since the mail is no worse for it."""
    if isinstance(value, list) and len(value) == 2 and all(is_address(part) for part in value):
        return ReplyTo(routing_key=value[0], correlation_id=value[1])
    return None


def is_address(value: object) -> TypeGuard[str]:
    """Whether *value* can be a routing key or a correlation id: AMQP takes 255 bytes, databases no NUL."""
    if not isinstance(value, str) or "\x00" in value:
        return False
    try:
        return len(value.encode()) <= 255
    except UnicodeEncodeError:
        return False


def _settled(value: Any) -> Mapping[str, Mapping[str, Any]]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(is_state(state, FINAL) for state in value.values()):
        raise InvalidMessage("body.settled", "is not an object of recipients' final states")
    return value


def seal(
    message: Any,
    options: Mapping[str, Any],
    *,
    door: str,
    mail_id: str | None = None,
    sender: str = "",
    reply_to: ReplyTo | None = None,
) -> Envelope:
    """
    Accept *message*: give it its id, its Message-ID and its Date.

    Args:
        message: A JSON object that ``mail_service.message.validate`` takes.
        sender: Whose domain the Message-ID carries (RFC 5322, 3.6.4 asks for a domain of the author's host).
        mail_id: For callers that derive it; else the option ``id``, else a new UUID.
    """
    moment = clock.now()
    mail_id = mail_id or options.get("id") or str(uuid.uuid4())
    return Envelope(
        id=mail_id,
        message=message,
        options=options,
        door=door,
        submitted_at=clock.iso(moment),
        message_id=f"<{_unique_part(mail_id, message)}@{_domain(sender)}>",
        date=_date(moment.replace(microsecond=0)),
        reply_to=reply_to,
    )


@lru_cache(maxsize=2)
def _date(moment: datetime) -> str:
    """As RFC 5322 has it; kept, since thousands are sealed in one second."""
    return format_datetime(moment)


def _unique_part(mail_id: str, message: Any) -> str:
    """
    The same for the same mail, however often it is handed in: any copy of it may be the one that is sent.

    Made from the content too, since an id may be used again after its mail was purged.
    """
    return hashlib.sha256(f"{mail_id}\x1f{_encode_sorted(message)}".encode()).hexdigest()[:32]


def derived_id(*parts: str) -> str:
    """A UUID that is the same for the same *parts*: a request that is delivered twice is one mail."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(parts)))


def _domain(sender: str) -> str:
    _, at, domain = sender.rpartition("@")
    domain = domain.strip("<> \t") if at else ""
    try:
        domain = domain.encode("idna").decode() if not domain.isascii() else domain
    except UnicodeError:
        domain = ""
    return domain if domain and all(c.isalnum() or c in ".-" for c in domain) else "mail-service.invalid"
