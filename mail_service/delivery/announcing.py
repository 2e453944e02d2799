"""
Tell others how it went: the caller who waits in ``send``, and whoever listens for our events.

Observers never change an outcome: what cannot be told is logged and forgotten, the ledger has it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kombu import Connection
from nameko.constants import RPC_EXCHANGE_CONFIG_KEY
from nameko.exceptions import serialize

from mail_service import topology
from mail_service.amqp.publisher import Publisher
from mail_service.envelope import CONTENT_TYPE, Envelope, ReplyTo
from mail_service.errors import DeliveryFailed, Expired
from mail_service.ledger.holdings import Hold
from mail_service.ledger.records import Mail
from mail_service.outcome import Status

_log = logging.getLogger(__name__)

#: dumps() with arguments makes an encoder for each call
_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode

SERVICE = "mail_service"
_ANSWERED_WITH_RECORD = frozenset({Status.SENT, Status.PARTLY_SENT, Status.HELD})
_DISPATCHED = frozenset(Status) - {Status.QUEUED, Status.DISCARDED}


#: tells a sender of a mail's end; raises nothing but PublishFailed
Report = Callable[[Envelope, Mail], None]


class Announcer:
    """Publishes replies in nameko's RPC protocol and events in nameko's event protocol."""

    def __init__(self, publisher: Publisher, config: Mapping[str, Any]) -> None:
        self._publisher = publisher
        self._rpc_exchange = config.get(RPC_EXCHANGE_CONFIG_KEY) or "nameko-rpc"
        self._events = topology.event_exchange(SERVICE)

    def declare(self, connection: Connection) -> None:
        """The exchange of our events, so that listeners find it."""
        with connection.channel() as channel:
            self._events(channel).declare()

    def change(self, mail: Mail, callers: Iterable[ReplyTo]) -> None:
        """Dispatch the event of a mail's new state, and answer *callers* if that is what they wait for."""
        record = mail.record()
        for caller in callers:
            self.answer(mail, caller)
        if mail.status in _DISPATCHED:
            self._tell(record, exchange=self._events.name, routing_key=f"email_{mail.status}")

    def held(self, what: str, hold: Hold) -> None:
        """Dispatch ``mailer_held`` or ``mailer_released``."""
        facts = {"mailer": hold.mailer, "reason": str(hold.reason), "text": hold.text, "since": hold.since}
        self._tell(facts, exchange=self._events.name, routing_key=what)

    def answer(self, mail: Mail, caller: ReplyTo) -> None:
        """Answer *caller* of ``send`` if the mail is final or held."""
        if mail.status in _ANSWERED_WITH_RECORD:
            self.reply(caller, result=mail.record())
        elif mail.status.is_final:
            kind = Expired if mail.status == Status.EXPIRED else DeliveryFailed
            self.reply(caller, error=kind(f"mail {mail.id} {mail.status}: {mail.error}"))

    def reply(self, caller: ReplyTo, *, result: Any = None, error: Exception | None = None) -> None:
        """Send one RPC reply; a caller who is gone is nobody's fault."""
        payload = {"result": result, "error": serialize(error) if error else None}
        self._tell(
            payload,
            exchange=self._rpc_exchange,
            routing_key=caller.routing_key,
            correlation_id=caller.correlation_id,
        )

    def _tell(self, payload: Any, **where: Any) -> None:
        body = _encode(payload).encode()
        try:
            self._publisher.publish(body, mandatory=False, content_type=CONTENT_TYPE, content_encoding="utf-8", **where)
        except Exception as exc:  # noqa: BLE001 - a caller may have named any address to reply to
            _log.warning("an event or a reply could not be published (%s)", type(exc).__name__)
