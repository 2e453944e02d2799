"""
py-amqp under a time limit: no connecting, reading or writing goes on after it.

By itself it waits for ever wherever a broker has stopped answering: in the handshake, for ``declare-ok``, for a
confirm. Only the look-up of a host name stays outside: the resolver cannot be interrupted, and has limits of its own.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

from amqp import transport as amqp_transport
from kombu.transport import pyamqp

#: seconds; a socket's time limit must be above 0, which would mean "do not block at all"
_SHORTEST = 0.001
#: bytes; what goes to the socket at once
_LARGEST_WRITE = 128 * 1024
#: bytes; what is taken from the socket at once, a few hundred confirms
_LARGEST_READ = 4 * 1024


class Limit:
    """The moment by which whatever is under way has to be over; set anew for each piece of work."""

    def __init__(self) -> None:
        #: of ``time.monotonic``
        self.deadline = time.monotonic()

    @property
    def left_s(self) -> float:
        """Seconds left. Raises TimeoutError when there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time is over")
        return max(left, _SHORTEST)


class _Bounded:
    """
    Part of both transports: connects, reads and writes within the limit, and with few system calls.

    py-amqp makes three calls to read a frame and five more for its time limit: a sixth of what handing over a mail
    costs.
    """

    limit: Limit
    sock: Any
    #: seconds that a read may wait for its first byte; the limit holds besides
    patience_s: float | None = None
    _quick_recv: Callable[[int], bytes]
    #: written by ``release``, or None when nothing is held back
    _held: bytearray | None = None

    def write(self, frame: bytes | memoryview) -> None:
        if self._held is None:
            self._write_now(frame)
            return
        self._held += frame
        if len(self._held) >= _LARGEST_WRITE:
            held, self._held = self._held, bytearray()
            self._write_now(held)

    def hold_back(self) -> None:
        """Collect frames: a system call for each message would cost a third of a batch's time."""
        self._held = bytearray()

    def release(self) -> None:
        """Write what was collected."""
        held, self._held = self._held, None
        if held:
            self._write_now(held)

    def _write_now(self, data: bytes | bytearray | memoryview) -> None:
        self.sock.settimeout(self.limit.left_s)
        super().write(data)  # type: ignore[misc]  # of the transport that this is mixed into

    def _setup_transport(self) -> None:
        super()._setup_transport()  # type: ignore[misc]
        receive = self._quick_recv

        def receive_within_limit(size: int) -> bytes:
            left_s = self.limit.left_s
            self.sock.settimeout(left_s if self.patience_s is None else min(self.patience_s, left_s))
            # what is too much is kept by the caller for the next frame
            return receive(max(size, _LARGEST_READ))

        self._quick_recv = receive_within_limit

    def _connect(self, host: str, port: int, _timeout: float) -> None:
        addresses = [entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        for untried, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            try:
                # py-amqp would give all of the time to each of a host's addresses
                super()._connect(address, port, self.limit.left_s / untried)  # type: ignore[misc]
            except OSError:
                if untried == 1:
                    raise
            else:
                return


class _TCPTransport(_Bounded, amqp_transport.TCPTransport):
    pass


class _SSLTransport(_Bounded, amqp_transport.SSLTransport):
    pass


class BoundedConnection(pyamqp.Connection):
    """An AMQP connection that raises TimeoutError when its *limit* is over, whatever it waits for."""

    def __init__(self, *args: Any, limit: Limit, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limit = limit

    def Transport(self, host: str, _timeout: Any, ssl: Any, *_timeouts: Any, **settings: Any) -> Any:  # noqa: N802
        kind = _SSLTransport if ssl else _TCPTransport
        transport = kind(host, connect_timeout=self.limit.left_s, ssl=ssl, **settings)
        transport.limit = self.limit
        return transport

    def connect(self, callback: Any = None) -> Any:
        try:
            return super().connect(callback)
        except BaseException:
            # by itself it leaves the socket open when the broker refuses the login
            self.collect()
            raise

    def blocking_read(self, timeout: float | None = None) -> Any:
        self.transport.patience_s = timeout
        return self.on_inbound_frame(self.transport.read_frame())

    def abandon(self) -> None:
        """Close the socket without a word."""
        # not the property, which would connect again
        transport = self._transport
        # whatever a half-dead socket says, we are done with it
        with contextlib.suppress(Exception):
            if transport is not None and transport.sock is not None:
                # TLS would wait for the other side's goodbye
                transport.sock.settimeout(0)
            self.collect()


class PlainTransport(pyamqp.Transport):
    """Kombu's, with connections under a limit."""

    Connection = BoundedConnection


class TLSTransport(pyamqp.SSLTransport):
    """The same for ``amqps://``."""

    Connection = BoundedConnection
