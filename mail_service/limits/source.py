"""A connection over which messages are taken out of queues one by one, kept while it is of use."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import eventlet
from amqp.exceptions import AMQPError, NotFound
from eventlet.semaphore import Semaphore
from kombu import Connection, Consumer
from kombu.message import Message

from mail_service import topology

#: for the broker to answer; a connection that takes longer counts as broken
ANSWER_S = 15.0
#: a connection that nobody needs is closed after so long, seconds
KEPT_S = 10.0
#: between looks after the connection's heartbeat, seconds
TEND_S = 5.0


class Source:
    """
    Raises OSError or AMQPError when the broker does not answer; `close` and begin again then.

    Several may take from it, one at a time; whoever closes it gives back what they all have not acknowledged.
    """

    def __init__(self, connect: Callable[[], Connection], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._connect = connect
        self._now = monotonic
        self._connection: Connection | None = None
        self._channel: Any = None
        self._queues: dict[str, Any] = {}
        #: nothing but one greenlet may read from a connection
        self._reading = Semaphore()
        self._needed = monotonic()
        self._tended = monotonic()

    def get(self, name: str) -> Message | None:
        """The next message of the queue, which is the broker's until it is acknowledged; None when it is empty."""
        with self._reading, eventlet.Timeout(ANSWER_S, OSError("no answer in time")):
            channel = self._opened()
            queue = self._queues.get(name)
            if queue is None:
                queue = self._queues[name] = topology.work_queue(name)(channel)
            try:
                message: Message | None = queue.get(no_ack=False)
            except NotFound:
                # somebody has deleted it, which closed the channel
                self._channel = None
                return None
            return message

    @contextlib.contextmanager
    def consuming(self, name: str, prefetch: int, take: Callable[[Message], None]) -> Iterator[Callable[[float], bool]]:
        """
        Have *take* called with each message of the queue, at most *prefetch* of them not yet acknowledged.

        Gives what waits for the next ones, at most so many seconds, and answers whether there were any.
        """
        with eventlet.Timeout(ANSWER_S, OSError("no answer in time")):
            channel = self._opened()
            channel.basic_qos(0, prefetch, a_global=False)
            queue = topology.work_queue(name)
            consumer = Consumer(channel, queues=[queue], on_message=take, auto_declare=False)
            consumer.consume()
        yield self._drain
        with eventlet.Timeout(ANSWER_S, OSError("no answer in time")):
            consumer.cancel()

    def _drain(self, seconds: float) -> bool:
        assert self._connection is not None  # noqa: S101 - it is consumed
        try:
            self._connection.drain_events(timeout=seconds)
        except TimeoutError:
            return False
        return True

    def count(self, name: str) -> int:
        """Messages in the queue; 0 where there is none of this name."""
        with self._reading, eventlet.Timeout(ANSWER_S, OSError("no answer in time")):
            try:
                return int(self._opened().queue_declare(name, passive=True).message_count)
            except NotFound:
                # which closed the channel
                self._channel = None
                return 0

    def tend(self, *, is_needed: bool) -> None:
        """Keep the connection alive while it *is_needed*, and close it some time after."""
        now = self._now()
        if is_needed:
            self._needed = now
        if self._connection is None or self._reading.locked():
            return
        if now - self._needed > KEPT_S:
            self.close()
        elif now - self._tended > TEND_S:
            self._tended = now
            with self._reading:
                # only what has been read tells that the other side is there
                self._drain(0.001)
                self._connection.heartbeat_check()

    def close(self) -> None:
        """Drop the connection without a word; what was not acknowledged is the broker's again."""
        connection, self._connection, self._channel = self._connection, None, None
        self._queues = {}
        if connection is not None:
            with contextlib.suppress(OSError, AMQPError, AttributeError):
                connection.collect()

    def _opened(self) -> Any:
        self._needed = self._now()
        if self._connection is None:
            connection = self._connect()
            connection.connect()
            self._connection = connection
        if self._channel is None:
            self._channel = self._connection.channel()
            # as for what comes over the consumer's own connection
            self._channel.auto_decode = False
            self._queues = {}
        return self._channel
