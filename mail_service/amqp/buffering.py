"""
Fewer calls of the socket for the frames of an AMQP connection: reads take what there is, and what greenlets write in
the same turn of the event loop goes out together.

A delivery is three frames, which py-amqp reads in six calls; twenty workers acknowledge, and announce, one by one.
"""

from __future__ import annotations

from collections.abc import Callable

import eventlet
from kombu import Connection

#: bytes that are asked for at once
READ_AHEAD = 16 * 1024


def buffer(connection: Connection) -> Ahead:
    """
    Have an established *connection* read ahead and write together; answers what reads.

    Nothing but one greenlet may read from it: py-amqp (5.3) keeps what was read too much for the next frame, and two
    readers would lose it. A write never waits and so never fails; what cannot be written ends the connection for its
    reader.
    """
    transport = connection.connection.transport
    ahead = transport._quick_recv = Ahead(transport._quick_recv)  # noqa: SLF001 - there is no other place for these two
    transport._write = Together(transport._write)  # noqa: SLF001
    return ahead


class Ahead:
    """Reads what there is by one call of *receive*. Who waits for more need not wait until the time for it is over."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._reader: eventlet.greenlet.greenlet | None = None

    def __call__(self, count: int) -> bytes:
        self._reader = eventlet.getcurrent()
        try:
            return self._receive(max(count, READ_AHEAD))
        finally:
            self._reader = None

    def time_out(self) -> None:
        """Let who reads now have its time-out at once. Loses nothing. To be called in the event loop's own greenlet."""
        if self._reader is not None:
            self._reader.throw(TimeoutError("there is something else to do"))


class Together:
    """Writes what came in one turn of the event loop by one call of *write*."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._pieces: list[bytes] = []
        self._is_writing = False

    def __call__(self, data: bytes | memoryview) -> None:
        # py-amqp builds the next frame in the same memory
        self._pieces.append(bytes(data))
        if not self._is_writing:
            self._is_writing = True
            eventlet.spawn_n(self._write_all)

    def _write_all(self) -> None:
        try:
            while self._pieces:
                pieces, self._pieces = self._pieces, []
                self._write(b"".join(pieces))
        except OSError:
            # whoever reads hears of it, and what was to be written is of no use to anybody
            self._pieces.clear()
        finally:
            self._is_writing = False
