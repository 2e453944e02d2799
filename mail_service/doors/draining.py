"""
``mail-service drain``: deliver what is due, one mail after the other, and end. For those who send by cron.

The attempts are the service's own, with the same ledger, so a drain may run beside a service or another drain. What is
put off waits in its delay level and is due in a later pass.
"""

from __future__ import annotations

import logging
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import eventlet
from amqp.exceptions import AMQPError
from kombu import Connection
from kombu.message import Message

from mail_service import topology
from mail_service.amqp import connecting
from mail_service.amqp.lanes import declare_all
from mail_service.amqp.publisher import PublishFailed
from mail_service.amqp.retrying import BackoffPublisher, kept_headers, raw_body
from mail_service.delivery.copies import Delivery, read, with_turn
from mail_service.errors import InvalidMessage, Unavailable
from mail_service.ledger import StoreDown
from mail_service.ledger.patient import Stopping
from mail_service.ledger.records import Change
from mail_service.outcome import Status
from mail_service.retention import Lost, Passes
from mail_service.wiring import Runtime

_log = logging.getLogger(__name__)

#: of a pass, in the order in which they are told
OUTCOMES = ("sent", "deferred", "held", "failed")
_OUTCOME_OF = {
    Status.SENT: "sent",
    Status.PARTLY_SENT: "sent",
    Status.DEFERRED: "deferred",
    Status.HELD: "held",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a pass ends before everything that is due was attempted. django-mailer's three settings, by meaning."""

    #: ``MAILER_EMAIL_MAX_BATCH``: mails that were sent
    max_batch: int | None = None
    #: ``MAILER_EMAIL_MAX_DEFERRED``: mails that were put off, deferred or held
    max_deferred: int | None = None
    #: ``MAILER_EMAIL_THROTTLE``: seconds to wait after each mail
    throttle_s: float = 0.0

    def are_reached(self, done: Mapping[str, int]) -> bool:
        """Whether enough was done."""
        is_full = self.max_batch is not None and done["sent"] >= self.max_batch
        return is_full or (self.max_deferred is not None and done["deferred"] + done["held"] >= self.max_deferred)


def drain(config: Mapping[str, Any], **limits: Any) -> dict[str, int]:
    """
    Attempt each mail that is due now, those of the higher priorities first; answers how many came to what.

    Ends in good order at SIGTERM or SIGINT, after the mail that is under way. Raises ConfigurationError, and
    Unavailable when the broker or the database is away.
    """
    runtime = Runtime(config)
    # whoever sends by cron comes again: a pass does not wait for a database
    runtime.patient_ledger.stopping = True
    one_pass = _Pass(runtime, Limits(**limits))
    try:
        with _until_told_to_stop(one_pass.stop), connecting.connection({**config, "HEARTBEAT": 0}) as connection:
            one_pass.run(connection)
            one_pass.tend()
    except (Stopping, StoreDown) as exc:
        raise Unavailable(f"the database is away ({exc})") from exc
    except (OSError, AMQPError, PublishFailed) as exc:
        raise Unavailable(f"the broker is away ({type(exc).__name__})") from exc
    finally:
        runtime.close()
    return {outcome: one_pass.done[outcome] for outcome in OUTCOMES}


@contextmanager
def _until_told_to_stop(stop: Callable[[], None]) -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda _number, _frame: stop()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class _Pass:
    def __init__(self, runtime: Runtime, limits: Limits) -> None:
        self._runtime = runtime
        self._limits = limits
        self._is_stopped = False
        self._delay_of = BackoffPublisher().delay_ms
        self._desk = runtime.a_desk(self._note)
        self.done: Counter[str] = Counter()

    def stop(self) -> None:
        """End after the mail that is under way."""
        self._is_stopped = True

    def run(self, connection: Connection) -> None:
        connection.connect()
        declare_all(connection, self._runtime)
        self._runtime.announcer.declare(connection)
        names = [name for lane in topology.LANES for name in topology.queue_names(lane)]
        # asked before anything is attempted: what is put off for a moment comes back, and is for another pass
        for name, count in [(name, topology.count(connection, name)) for name in names]:
            self._drain(connection, name, count)
        for queue in self._runtime.turnstiles.known():
            self._drain(connection, queue.name, topology.count(connection, queue.name), queue.key)

    def tend(self) -> None:
        """Delete what is old, if that is due and no service does it."""
        settings = self._runtime.settings.retention
        if settings.has_passes and not self._is_stopped:
            with suppress(Lost):
                Passes(settings, self._runtime.database, self._rest).make_one()

    def _rest(self, seconds: float) -> None:
        if self._is_stopped:
            # who takes it next goes on
            raise Lost
        eventlet.sleep(seconds)

    def _drain(self, connection: Connection, name: str, count: int, key: str | None = None) -> None:
        """At most *count* mails of the queue *name*; behind a limit, of this *key*, as much of it as may go now."""
        if not count:
            return
        with connection.channel() as channel:
            channel.auto_decode = False
            self._drain_queue(topology.work_queue(name)(channel), count, key)

    def _drain_queue(self, queue: Any, count: int, key: str | None) -> None:
        for _ in range(count):
            if self._is_stopped or self._limits.are_reached(self.done):
                return
            if key is not None and not self._runtime.turnstiles.may_pass(key):
                return
            message = queue.get(no_ack=False)
            if message is None:
                return
            passed = with_turn(message.headers, key) if key is not None else []
            message.headers[topology.TURNS] = passed
            before = self.done.total()
            self._settle(message)
            if self._limits.throttle_s and self.done.total() > before:
                self._pause()

    def _pause(self) -> None:
        left_s = self._limits.throttle_s
        while left_s > 0 and not self._is_stopped:
            eventlet.sleep(min(left_s, 0.1))
            left_s -= 0.1

    def _settle(self, message: Message) -> None:
        """Bring a message to its end; what goes wrong with the broker or the database leaves it where it was."""
        try:
            self._attempt(message)
        except BaseException:
            message.requeue()
            raise
        message.ack()

    def _attempt(self, message: Message) -> None:
        headers, body = kept_headers(message), raw_body(message)
        if headers.get(topology.STATE) == topology.STATE_LOG and topology.STATUS in headers:
            # a service could not store how it ended
            status = "expired" if headers[topology.STATUS] == "expired" else "failed"
            self._refuse(body, str(headers.get(topology.ERROR) or ""), status)
            return
        try:
            redelivered = bool(message.delivery_info.get("redelivered"))
            delivery = read(body, headers, redelivered=redelivered, settings=self._runtime.settings)
        except InvalidMessage as exc:
            self._refuse(body, f"the message cannot be used: {exc}"[:2000])
            return
        result: object = None
        problem: BaseException | None = None
        try:
            result = self._runtime.courier.attempt(delivery)
        except Stopping:
            raise
        except Exception as exc:  # noqa: BLE001 - a Backoff, or what nobody foresaw: the desk knows what to do
            problem = exc
        self._desk.close(delivery, result, problem, self._delay_of)

    def _refuse(self, body: bytes, error: str, status: str = "failed") -> None:
        self._runtime.unusable.refused(body, status=status, error=error)
        self.done["failed"] += 1

    def _note(self, delivery: Delivery, change: Change) -> None:
        self.done[_OUTCOME_OF.get(change.mail.status, "failed")] += 1
        if self._runtime.metrics is not None:
            self._runtime.metrics.closed(delivery, change)
