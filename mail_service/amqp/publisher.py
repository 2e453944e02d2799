"""
Publish with confirms, many at a time over one channel.

kombu waits for one confirm before it publishes the next message. Here every greenlet publishes at once and waits for
its own confirm only; one reader hands the confirms out. A publish either returns (the broker has it, durably, in a
queue) or raises: it never hangs, and nothing it cannot route is dropped in silence.

RabbitMQ answers a message that is too large by closing the channel, and with it everybody's confirms. So none is
published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import eventlet
from amqp import Message, spec
from amqp.exceptions import AMQPError, PreconditionFailed
from eventlet.event import Event
from eventlet.semaphore import Semaphore
from kombu import Connection

from mail_service import sizes
from mail_service.amqp import buffering, connecting

T = TypeVar("T")

#: Longer than a usual memory alarm, which blocks publishers: giving up earlier only makes a second copy.
CONFIRM_TIMEOUT_S = 15.0
#: In the last seconds of a process: a copy, an answer and an event may each have to be given up.
LAST_CONFIRM_TIMEOUT_S = 2.0


class PublishFailed(Exception):
    """The broker did not confirm. It may have the message all the same: repeat it with the same id."""


class Unroutable(PublishFailed):
    """No queue is there to take the message."""


class TooLarge(PublishFailed):
    """The broker does not take messages of this size; nothing was published, and to repeat it would not help."""

    def __init__(self, size: int, largest: int) -> None:
        super().__init__(sizes.too_large(size, largest))


class Publisher:
    """One confirmed channel for all greenlets of a process; reconnects by itself."""

    def __init__(self, connect: Callable[[], Connection], *, confirm_timeout_s: float = CONFIRM_TIMEOUT_S) -> None:
        self._connect = connect
        self._confirm_timeout_s = confirm_timeout_s
        self._opening = Semaphore()
        self._link: _Link | None = None

    def publish(
        self,
        body: bytes,
        *,
        routing_key: str,
        exchange: str = "",
        headers: Mapping[str, Any] | None = None,
        mandatory: bool = True,
        room: int = 0,
        **properties: Any,
    ) -> None:
        """
        Hand *body* to the broker and wait until it is confirmed.

        Raises Unroutable when no queue takes it (only if *mandatory*), TooLarge when the broker would not take it with
        *room* bytes more, PublishFailed when there is no confirm in time. A connection that turns out to be dead is
        replaced once; the message is then published again.
        """
        message = Message(body, application_headers=dict(headers or {}), delivery_mode=2, **properties)
        with self.time_limit():
            try:
                self._open_link(len(body), room).publish(message, exchange, routing_key, mandatory)
            except _LinkDown:
                self._open_link(len(body), room).publish(message, exchange, routing_key, mandatory)

    def declare(self, declaration: Callable[[Connection], T]) -> T:
        """
        What *declaration* answers, run on a connection of its own: the channel of the confirms has a reader already.

        Raises PublishFailed, also when there is no answer in time.
        """
        connection = self._connect()
        # the channel of a declaration that is broken off is closed, and waits for an answer to that
        ending = eventlet.spawn_after(self._confirm_timeout_s, connecting.hang_up, connection)
        try:
            with eventlet.Timeout(self._confirm_timeout_s, PublishFailed("no answer in time")):
                answer = declaration(connection)
                connection.release()
                return answer
        except (OSError, AMQPError) as exc:
            raise PublishFailed(f"cannot declare: {type(exc).__name__}") from exc
        finally:
            ending.cancel()
            # a broker that does not answer would not answer a goodbye either
            connecting.drop(connection)

    def time_limit(self) -> eventlet.Timeout:
        """A context in which PublishFailed is raised when a confirm would have come too late."""
        return eventlet.Timeout(self._confirm_timeout_s, PublishFailed("no confirm in time"))

    def hurry(self) -> None:
        """From now on, give up sooner: the process is about to end, and what is not confirmed stays where it is."""
        self._confirm_timeout_s = min(self._confirm_timeout_s, LAST_CONFIRM_TIMEOUT_S)

    def close(self) -> None:
        """Close the connection; what waits for a confirm raises."""
        if self._link:
            self._link.fail(PublishFailed("the publisher was closed"))
            self._link = None

    def _open_link(self, size: int, room: int) -> _Link:
        """Return the connection, if it takes a message of *size* and *room* bytes. Raises TooLarge."""
        with self._opening:
            if self._link is None or self._link.dead:
                largest = self._link.refused_above if self._link else None
                try:
                    self._link = _Link(self._connect(), largest)
                except (OSError, AMQPError) as exc:
                    raise PublishFailed(f"the broker cannot be reached: {type(exc).__name__}") from exc
            if size + room > self._link.largest:
                raise TooLarge(size, self._link.largest)
            return self._link


class _LinkDown(PublishFailed):
    """This connection broke; another one may work."""


class _Link:
    """A connection, its channel, and those who wait for confirms on it."""

    def __init__(self, connection: Connection, largest: int | None) -> None:
        connection.connect()
        buffering.buffer(connection)
        self._kombu_connection = connection
        self._connection = connection.connection
        #: bytes of the largest message that this broker takes, as far as we know
        self.largest = largest or sizes.largest_of(self._connection.server_properties.get("version", ""))
        #: set to the true one when the broker ended this connection's channel because of a larger message
        self.refused_above: int | None = None
        self._channel = self._connection.channel()
        self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._on_ack)
        self._channel.events["basic_nack"].add(self._on_nack)
        self._channel.events["basic_return"].add(self._on_return)
        self._next_tag = 1
        self._waiting: dict[int, tuple[Event, str, str]] = {}
        self._unroutable: set[int] = set()
        self.dead = False
        # a write must not inherit the reader's time limit, so the reader has none and the heart beats beside it
        self._connection.sock.settimeout(None)
        self._greenlets = [eventlet.spawn(self._read), eventlet.spawn(self._beat)]

    def publish(self, message: Message, exchange: str, routing_key: str, mandatory: bool) -> None:
        if self.dead:
            raise _LinkDown("the connection is gone")
        done = Event()
        tag, self._next_tag = self._next_tag, self._next_tag + 1
        self._waiting[tag] = (done, exchange, routing_key)
        # Not basic_publish: it looks for news before each message, and would be a second reader of the socket.
        call = (0, exchange, routing_key, mandatory, False)
        try:
            self._channel.send_method(spec.Basic.Publish, "Bssbb", call, message)
        except Exception as exc:
            # what the broker counts as its messages may no longer be what is counted here
            self.fail(_LinkDown(type(exc).__name__))
            if isinstance(exc, OSError | AMQPError):
                raise _LinkDown(type(exc).__name__) from exc
            raise
        try:
            done.wait()
        finally:
            self._waiting.pop(tag, None)

    def fail(self, problem: PublishFailed) -> None:
        """The connection is of no more use: everybody who waits is told."""
        if self.dead:
            return
        self.dead = True
        waiting, self._waiting = self._waiting, {}
        for done, *_ in waiting.values():
            if not done.ready():
                done.send_exception(problem)
        eventlet.spawn_n(self._close)

    def _close(self) -> None:
        for greenlet in self._greenlets:
            greenlet.kill()
        connecting.drop(self._kombu_connection)

    def _read(self) -> None:
        try:
            while not self.dead:
                self._connection.drain_events()
        except (OSError, AMQPError) as exc:
            if isinstance(exc, PreconditionFailed):
                self.refused_above = sizes.refused_above(exc.reply_text)
            self.fail(_LinkDown(type(exc).__name__))

    def _beat(self) -> None:
        interval_s = self._connection.heartbeat / 4 if self._connection.heartbeat else None
        try:
            while interval_s and not self.dead:
                eventlet.sleep(interval_s)
                self._connection.heartbeat_tick()
        except (OSError, AMQPError) as exc:
            self.fail(_LinkDown(type(exc).__name__))

    def _tags(self, tag: int, multiple: bool) -> list[int]:
        return [known for known in self._waiting if known <= tag] if multiple else [tag]

    def _on_ack(self, tag: int, multiple: bool) -> None:
        for known in self._tags(tag, multiple):
            if known not in self._waiting:
                continue
            done = self._waiting.pop(known)[0]
            if known in self._unroutable:
                self._unroutable.discard(known)
                done.send_exception(Unroutable("no queue takes this message"))
            else:
                done.send(None)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        # A channel that was opened while a queue had no leader goes on refusing when there is one: RabbitMQ asks the
        # node that is gone (3.10). What others publish again is recognised when it comes twice.
        if any(known in self._waiting for known in self._tags(tag, multiple)):
            self.fail(_LinkDown("the broker refused the message"))

    def _on_return(self, _exc: Exception, exchange: str, routing_key: str, _message: Message) -> None:
        # A return precedes its own confirm, and returns come in the order of the publishes: the oldest that waits is
        # meant.
        for tag, (_, waiting_exchange, waiting_key) in self._waiting.items():
            if tag not in self._unroutable and (waiting_exchange, waiting_key) == (exchange, routing_key):
                self._unroutable.add(tag)
                return
