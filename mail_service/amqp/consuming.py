"""
nameko's queue consumer, made safe: it hands out raw messages, survives whatever is in them, and stops only when each is
settled.

What nameko's own does instead: decode in the consumer's loop and acknowledge what cannot be decoded; close the
connection on SIGTERM while workers are still busy, so that every mail in flight is delivered twice; die when an
acknowledgement meets a reset socket; wait up to 30 seconds between attempts to reconnect; hang in stop() while the
broker is away.
"""

from __future__ import annotations

import logging
import math
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import eventlet
from amqp.exceptions import AMQPError, PreconditionFailed
from eventlet.event import Event
from kombu import Connection, Consumer
from kombu.message import Message
from nameko.messaging import QueueConsumer as NamekoQueueConsumer
from nameko.messaging import QueueConsumerStopped

from mail_service import tls, topology
from mail_service.amqp import buffering, connecting
from mail_service.amqp.slots import Line, Slots

_log = logging.getLogger(__name__)

#: seconds between attempts to reach the broker: short, since a mail may be waiting for it
RECONNECT_S = 1
LONGEST_RECONNECT_S = 5
#: until a broker that does not answer a declaration counts as gone, whatever its heartbeat is, seconds
LEAST_SETUP_S = 5
#: seconds until a broker that does not answer a cancel counts as gone
LONGEST_CANCEL_S = 5
#: between looks at who is slow, while others wait for a slot, seconds
LOOK_S = 0.05
#: A process has to be gone 30 seconds after SIGTERM; attempts are cut short before this.
LONGEST_STOP_S = 27


class Provider:
    """What a provider of the queue consumer may do besides; by default nothing."""

    #: where its messages wait for a slot
    line = Line.NEW

    @property
    def spare_slots(self) -> int:
        """Messages more that are begun while others are slow."""
        return 0

    @property
    def slow_s(self) -> float:
        """Seconds after which one of its messages is slow, and lends its slot."""
        return math.inf

    def declare(self, _connection: Connection) -> None:
        """Make what it consumes, and what it publishes to, known to a broker that may have lost it."""

    def put_aside(self, _message: Message) -> bool:
        """Whether a message that just came is settled without a worker; then this has begun."""
        return False

    def settled(self, _message: Message) -> None:
        """A message was acknowledged, or given back."""


class QueueConsumer(NamekoQueueConsumer):
    """Consumes for all entrypoints of one container over one connection."""

    def __init__(self) -> None:
        super().__init__()
        self._pending: set[int] = set()
        #: of those, what came over another connection, which may live longer than this one
        self._apart: set[int] = set()
        self._connected = False
        #: those that gave their slot back before they were settled
        self._lent: set[int] = set()
        #: when `stop` gives up, by the monotonic clock; set by the first provider that leaves
        self._stop_until: float | None = None
        #: ends an attempt to declare and to consume, over a connection on which nobody answers
        self._setting_up: Any = None
        #: the connection that messages come from
        self._link: Connection | None = None
        self._reading: buffering.Ahead | None = None
        #: it waits for messages, and for nothing else
        self._is_draining = False
        #: the broker answered each cancel
        self._is_answered = True
        # what it really has is known when its providers are: in `get_consumers`
        self._slots: Slots[Message] = Slots(1, 0, self._begin, time.monotonic, self._slow_s)
        self._is_looking = False
        #: whose message it is, by its identity
        self._handlers: dict[int, Any] = {}
        #: The container is killed by the very greenlet that ended with an error: it lives on until that is done.
        self._ended = False

    def run(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().run(*args, **kwargs)
        finally:
            self._ended = True

    @property
    def connection(self) -> Connection:
        return connecting.connection(self.container.config)

    @contextmanager
    def establish_connection(self) -> Iterator[Connection]:
        # kombu calls on_consume_end after an orderly end only, not when the connection broke
        self._connected = False
        with self.create_connection() as connection:
            connection.ensure_connection(
                self.on_connection_error,
                interval_start=RECONNECT_S,
                interval_step=RECONNECT_S,
                interval_max=LONGEST_RECONNECT_S,
            )
            self._reading = buffering.buffer(connection)
            self._link = connection
            # No time limit that raises here: a channel that is closed on the way out waits for an answer as well.
            limit = eventlet.spawn_after(self._longest_setup_s(), connecting.hang_up, connection)
            self._setting_up = limit
            try:
                yield connection
            except BaseException:
                # Heartbeats do not come, or we are told to end: kombu would wait for ever for an answer to its goodbye.
                connecting.drop(connection)
                raise
            finally:
                self._link = self._reading = None
                self._is_draining = False
                limit.cancel()

    def _longest_setup_s(self) -> float:
        """Two heartbeats, as later on, when kombu looks at them. What was declared until then need not be again."""
        heartbeat_s: float = self.container.config.get("HEARTBEAT", connecting.HEARTBEAT_S)
        return max(2 * heartbeat_s, LEAST_SETUP_S)

    def on_consume_ready(self, *args: Any, **kwargs: Any) -> None:
        self._setting_up.cancel()
        super().on_consume_ready(*args, **kwargs)

    def on_connection_error(self, exc: Exception, interval: float) -> None:
        # the name of the class alone would not say whether the certificate is old, or somebody else's
        why = f": {tls.reason(exc)}" if isinstance(exc, ssl.SSLError) else ""
        _log.warning("the broker cannot be reached (%s%s), next try in %g s", type(exc).__name__, why, interval)

    def get_consumers(self, consumer_cls: Callable[..., Consumer], channel: Any) -> Iterable[Consumer]:
        """
        Called after each (re)connection; every provider declares what it consumes, since it may have been deleted.
        """
        # a body is bytes, whatever is said about it: else py-amqp makes text of it, and each look at it bytes again
        channel.auto_decode = False
        # what was taken over the old connection belongs to the broker again, whoever still works on it
        self._pending &= self._apart
        for message in self._slots.forget(Line.NEW, Line.AGAIN):
            self._handlers.pop(id(message), None)
        self._make_room()
        for provider in self._providers:
            provider.declare(channel.connection.client)
            try:
                consumer = consumer_cls(
                    queues=[provider.queue],
                    on_message=partial(self.on_delivery, provider),
                    on_decode_error=partial(self._on_decode_error, provider),
                )
            except PreconditionFailed as exc:
                # kombu would try again for ever, and nobody would know why nothing happens
                raise topology.other_arguments(provider.queue, exc) from exc
            self._consumers[provider] = consumer
        # for each of them: RabbitMQ gives a consumer what was asked last before it begins, and they begin together
        channel.basic_qos(0, self._slots.most, a_global=False)
        self._connected = True
        consumers: Iterable[Consumer] = self._consumers.values()
        return consumers

    def _make_room(self) -> None:
        spare = max((provider.spare_slots for provider in self._providers), default=0)
        self._slots.resize(self.container.max_workers, spare)
        # its own limit would block the loop that sends the heartbeats
        self.container._worker_pool.resize(self._slots.most + 1)  # noqa: SLF001 - nameko has no other word for it

    def on_consume_end(self, connection: Connection, channel: Any) -> None:
        self._connected = self._is_draining = False

    def on_delivery(self, provider: Any, message: Message) -> None:
        """A message arrived, in whatever state. The provider settles it by ``ack_message`` or ``requeue_message``."""
        self._pending.add(id(message))
        self._handlers[id(message)] = provider
        if not provider.put_aside(message):
            self._slots.add(message, provider.line)
            self._look_again()

    def take_first(self, provider: Any, message: Message) -> None:
        """A message whose turn it is, taken over another connection: of the next slots one is its own."""
        self._pending.add(id(message))
        self._apart.add(id(message))
        self._handlers[id(message)] = provider
        self._slots.add(message, Line.TURN)
        self._look_again()

    @property
    def has_room(self) -> bool:
        """Whether `take_first` may be called."""
        has_room = self._slots.has_room and len(self._lent) < self._slots.most
        return self._stop_until is None and not self.should_stop and has_room

    @property
    def is_full(self) -> bool:
        """Whether a message that comes now has to wait for a slot."""
        return self._slots.are_taken

    def _look_again(self) -> None:
        """Those who are at work may turn out to be slow."""
        if self._slots.any_wait and not self._is_looking:
            self._is_looking = True
            eventlet.spawn_after(LOOK_S, self._look)

    def _look(self) -> None:
        self._is_looking = False
        self._slots.begin()
        self._look_again()

    def _slow_s(self) -> float:
        """Of those who lend slots, the least patient one."""
        return min((provider.slow_s for provider in self._providers), default=math.inf)

    def _begin(self, message: Message) -> None:
        self._handlers[id(message)].handle_delivery(message)

    def _on_decode_error(self, provider: Any, message: Message, _exc: Exception) -> None:
        """What cannot be decompressed is the provider's too, with its body as it came; kombu would drop it."""
        self.on_delivery(provider, message)

    def lend_slot(self, message: Message) -> None:
        """*message* only waits for a confirm now, and another one may be begun meanwhile; of so many at a time."""
        if len(self._lent) < self._slots.most:
            self._lent.add(id(message))
            self._slots.done(message)

    def ack_message(self, message: Message) -> None:
        self._settle(message, message.ack)

    def requeue_message(self, message: Message) -> None:
        self._settle(message, message.requeue)

    def _settle(self, message: Message, settle: Any) -> None:
        # A connection that broke took the message back: it comes again, marked as redelivered.
        try:
            if not message.acknowledged and message.channel and message.channel.connection:
                settle()
        except (OSError, AMQPError, AttributeError) as exc:
            _log.info("the broker takes a message back, the connection broke (%s)", type(exc).__name__)
        finally:
            self._pending.discard(id(message))
            self._apart.discard(id(message))
            self._lent.discard(id(message))
            provider = self._handlers.pop(id(message), None)
            self._slots.done(message)
            if provider is not None:
                provider.settled(message)
            if self._stop_until is not None:
                self._wake()

    def on_iteration(self) -> None:
        self._is_draining = False
        while self._pending_remove_providers:
            self._cancel_consumers_if_requested()
        if not self._consumers and not self._pending:
            self.should_stop = True
            self._wake()
        self._is_draining = True

    def _wake(self) -> None:
        """Have `on_iteration` called now, which kombu does after each message, and otherwise each second."""
        eventlet.hubs.get_hub().schedule_call_global(0, self._stop_draining)

    def _stop_draining(self) -> None:
        if self._is_draining and self._reading is not None:
            self._reading.time_out()

    def _handle_thread_exited(self, gt: Any) -> None:
        """Tell `start`, which may still wait, that there will be no connection."""
        problem: BaseException = QueueConsumerStopped()
        try:
            gt.wait()
        except eventlet.greenlet.GreenletExit:
            pass
        except BaseException as exc:
            problem = exc
        if not self._consumers_ready.ready():
            self._consumers_ready.send_exception(problem)

    def unregister_provider(self, provider: Any) -> None:
        """
        Stop taking messages for *provider*.

        Returns at once when there is no connection to cancel on, and in time when nobody answers on it.
        """
        removed = Event()
        self._pending_remove_providers[provider] = removed
        self._wake()
        self._return_waiting()
        with eventlet.Timeout(LONGEST_CANCEL_S, exception=False):
            while not removed.ready() and self._may_wait():
                eventlet.sleep(0.02)
        self._is_answered = self._is_answered and removed.ready()
        # what came in meanwhile
        self._return_waiting()
        self._providers.discard(provider)
        if not self._providers and not self._last_provider_unregistered.ready():
            self._last_provider_unregistered.send()

    def _return_waiting(self) -> None:
        """What nobody has begun belongs to another process."""
        for message in self._slots.forget(*Line):
            self.requeue_message(message)

    def _may_wait(self) -> bool:
        """Whether there still is a connection, and time: one deadline for all that has to be done before the end."""
        if self._stop_until is None:
            self._stop_until = time.monotonic() + LONGEST_STOP_S
        return self._connected and not self._finished and time.monotonic() < self._stop_until

    @property
    def _finished(self) -> bool:
        return self._gt is None or self._gt.dead or self._ended

    def stop(self) -> None:
        """Return when all consumers are cancelled and every message is settled, or the time for it is over."""
        self.wait_for_providers()
        # a broker that does not even answer a cancel will not take the acknowledgements: only the work is waited for
        while self._may_wait() and (self._is_answered or self._pending):
            eventlet.sleep(0.02)
        self._end()

    def kill(self) -> None:
        self._end()

    def _end(self) -> None:
        self.should_stop = True
        if self._finished:
            return
        if self._link is not None and not self._connected:
            # it still declares, and on its way out would wait for answers
            connecting.hang_up(self._link)
        self._gt.kill()
