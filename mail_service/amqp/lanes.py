"""The entrypoints of the work queues: one consumer per lane, one for events, one for what was parked."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kombu import Connection
from kombu.message import Message

from mail_service import topology, tracing
from mail_service.amqp.publisher import PublishFailed
from mail_service.amqp.retrying import STORE_AGAIN_MS, Consumer, kept_headers, raw_body
from mail_service.amqp.slots import Line
from mail_service.delivery.backoff import levels_for, levels_of
from mail_service.delivery.closing import CARRY_MS
from mail_service.delivery.copies import read, with_turn
from mail_service.delivery.courier import BUSY_MS
from mail_service.delivery.verdicts import made_use
from mail_service.envelope import Envelope
from mail_service.errors import InvalidMessage
from mail_service.ledger import StoreDown
from mail_service.ledger.patient import Stopping
from mail_service.limits.keys import LANE
from mail_service.limits.turnstile import Turnstile
from mail_service.tracing import Carrier
from mail_service.wiring import Runtime

_log = logging.getLogger(__name__)


def declare_all(connection: Connection, runtime: Runtime) -> None:
    """All queues, exchanges and delay levels that *runtime*'s configuration needs."""
    settings = runtime.settings
    levels = levels_for([BUSY_MS, CARRY_MS, STORE_AGAIN_MS]).union(topology.hold_levels(settings.hold_probe))
    levels = levels.union(*(levels_of(schedule) for schedule in settings.schedules.values()))
    topology.declare_all(connection, settings.event_sources, levels)
    turns = runtime.turnstiles.static_queues()
    topology.declare(connection, [topology.work_queue(queue.name) for queue in turns])
    runtime.queue.are_declared(levels, [queue.name for queue in turns])
    runtime.turnstiles.are_declared(turns)


class LaneConsumer(Consumer):
    """
    Delivers the mails of one priority; the handler gets a Delivery and returns a Verdict or raises a Backoff.

    Args:
        lane: The priority.
        again: Of those that were here before and have waited since; each priority needs one of both.
    """

    def __init__(self, lane: str, *, again: bool = False, **kwargs: Any) -> None:
        super().__init__(topology.again_queue(lane) if again else topology.lane_queue(lane), **kwargs)
        self.lane = lane
        self.line = Line.AGAIN if again else Line.NEW
        #: RabbitMQ took what was put off last; else mail would go round and be parked in the end
        self._lends = True
        #: by their identity: messages that had their turn, and whether they made use of it
        self._turns: dict[int, tuple[Turnstile, bool]] = {}

    @property
    def spare_slots(self) -> int:
        """Attempts more that are made while a mailer is slow and another one may not be."""
        return 2 * self.runtime.workers if self.runtime.has_several_mailers else 0

    @property
    def slow_s(self) -> float:
        """Seconds after which an attempt lends its slot."""
        return self.runtime.keeper.slow_s

    def declare(self, connection: Connection) -> None:
        """All queues, exchanges and delay levels of this configuration."""
        if self.line is Line.NEW:
            declare_all(connection, self.runtime)
            self.runtime.turnstiles.enter(self.lane, self)
        super().declare(connection)

    @property
    def has_room(self) -> bool:
        """See ``limits.turnstile.Taker``."""
        room: bool = self.queue_consumer.has_room
        return room

    def take(self, message: Message, turnstile: Turnstile) -> None:
        """See ``limits.turnstile.Taker``."""
        message.headers[topology.TURNS] = with_turn(message.headers, turnstile.key)
        self._turns[id(message)] = (turnstile, False)
        self.queue_consumer.take_first(self, message)

    def settled(self, message: Message) -> None:
        """Tell whoever lets mail pass that a worker may be free, and whether a turn was of use."""
        turnstiles = self.runtime.turnstiles
        turnstile, was_used = self._turns.pop(id(message), (None, False))
        if turnstile is not None:
            turnstile.done(was_used=was_used)
        turnstiles.room()

    def put_aside(self, message: Message) -> bool:
        """
        Where more mail comes than the workers take, have that of tenants wait in queues of their own, and take turns.

        Not what comes again: in these queues new mail could not pass it.
        """
        if self.line is Line.AGAIN:
            return False
        turnstiles, headers = self.runtime.turnstiles, message.headers or {}
        if not (self.queue_consumer.is_full or turnstiles.has_sharers(self.lane)):
            return False
        if topology.STATE in headers or not turnstiles.may_share(self.lane, headers):
            return False
        self._spawn(self.share, message)
        return True

    @property
    def is_full(self) -> bool:
        """See ``limits.sorter.Sharer``."""
        full: bool = self.queue_consumer.is_full
        return full

    def share(self, message: Message) -> None:
        """See ``limits.sorter.Sharer``."""
        self._pass_on(message, partial(self.runtime.turnstiles.put, self.lane, f"{LANE}{self.lane}"))

    def handle_delivery(self, message: Message) -> None:
        """Start a worker, unless the mail has to wait for its mailer anyway."""
        headers = message.headers or {}
        if topology.TENANT in headers and self.runtime.turnstiles.may_share(self.lane, headers) and self.is_full:
            self.runtime.turnstiles.sort(self.lane)
        wait_ms = self.runtime.courier.waits.glance(raw_body(message), headers)
        if wait_ms:
            queue = topology.again_queue_name(self.lane)
            put_off = partial(self.runtime.queue.delay, queue=queue, delay_ms=wait_ms)
            self._spawn(self._pass_on, message, put_off)
            if self._lends:
                self.queue_consumer.lend_slot(message)
        else:
            super().handle_delivery(message)

    def _pass_on(self, message: Message, publish: Callable[..., None]) -> None:
        """Publish a successor that is all that this copy was, and be done with this one."""
        try:
            publish(raw_body(message), headers=_untouched(message), message_id=message.properties.get("message_id"))
        except Exception as problem:
            self._lends = False
            self.leave(message, problem)
        else:
            self._lends = True
            self.queue_consumer.ack_message(message)

    def arguments(self, message: Message) -> tuple[Any, ...]:
        # whoever may hand in mail may write any header: a turn is one that we have just given
        headers = kept_headers(message) if id(message) in self._turns else _without_turns(message)
        delivery = read(
            raw_body(message),
            headers,
            redelivered=bool(message.delivery_info.get("redelivered")),
            settings=self.runtime.settings,
        )
        return (delivery,)

    def settle(self, message: Message, worker_ctx: Any, result: Any, exc: BaseException | None) -> None:
        if isinstance(exc, Stopping):
            # nothing was attempted
            self.leave(message, exc)
            return
        if id(message) in self._turns:
            turnstile, _ = self._turns[id(message)]
            self._turns[id(message)] = (turnstile, made_use(result, exc, turnstile.key))
        try:
            self.runtime.desk.close(worker_ctx.args[0], result, exc, self.backoff_publisher.delay_ms)
        except Exception as problem:
            self.leave(message, problem)
        else:
            self.queue_consumer.ack_message(message)

    def log(self, body: bytes, status: str, text: str) -> None:
        self.runtime.unusable.refused(body, status=status, error=text)

    def _refuse(self, message: Message, exc: Exception) -> None:
        """A mail that got past a door that did not look, such as a client's; whoever waits for it is told."""
        super()._refuse(message, exc)
        if isinstance(exc, InvalidMessage):
            try:
                envelope = Envelope.parse(raw_body(message))
            except InvalidMessage:
                return
            if envelope.reply_to:
                self.runtime.announcer.reply(envelope.reply_to, error=exc)


def _untouched(message: Message) -> dict[str, Any]:
    """The headers of a copy that is all that *message* was; a turn that it had is not kept for later."""
    return _without_turns(message) | ({topology.REDELIVERED: True} if message.delivery_info.get("redelivered") else {})


def _without_turns(message: Message) -> dict[str, Any]:
    return {name: value for name, value in kept_headers(message).items() if name != topology.TURNS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A ``send_email`` event as it arrived."""

    payload: Any
    #: what it is recognised by when it is delivered again: body and headers, since an event has no id
    fingerprint: str
    redelivered: bool
    #: of the trace of whoever dispatched it, if there is one
    trace: Carrier = field(default_factory=dict)


class EventConsumer(Consumer):
    """Takes the ``send_email`` events of all configured sources; the handler accepts them or raises."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(topology.event_queue(), **kwargs)

    def declare(self, connection: Connection) -> None:
        """The queue, bound to every source."""
        topology.declare_events(connection, self.runtime.settings.event_sources)
        super().declare(connection)

    def arguments(self, message: Message) -> tuple[Any, ...]:
        message.accept = {"application/json"}
        try:
            payload = message.decode()
        except RecursionError:
            raise InvalidMessage("payload", "is nested too deeply") from None
        identity = json.dumps(kept_headers(message), sort_keys=True, default=str).encode()
        fingerprint = hashlib.sha256(raw_body(message) + b"\x00" + identity).hexdigest()
        redelivered = bool(message.delivery_info.get("redelivered"))
        trace = tracing.found_in(message.headers)
        return (Event(payload=payload, fingerprint=fingerprint, redelivered=redelivered, trace=trace),)


class ParkedConsumer(Consumer):
    """Moves what was returned to its queue too often to the error log. It never starts a worker for it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(topology.parked_queue(), **kwargs)

    def declare(self, connection: Connection) -> None:
        """The queue."""
        topology.declare(connection, [topology.parked_queue()])
        super().declare(connection)

    def handle_delivery(self, message: Message) -> None:
        self._spawn(self._log, message)

    def _log(self, message: Message) -> None:
        try:
            self.runtime.unusable.parked(raw_body(message))
        except (StoreDown, PublishFailed) as exc:
            self.leave(message, exc)
        except Exception as exc:
            _log.critical("a parked message could not be stored (%s)", type(exc).__name__)
            self.leave(message, exc)
        else:
            _log.error("a message was returned to its queue too often; it is in the error log")
            self.queue_consumer.ack_message(message)


deliver = LaneConsumer.decorator
events = EventConsumer.decorator
parked = ParkedConsumer.decorator
