"""A process's connections: lent to one thread at a time, never shared with a forked child, closed when long unused."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator

from mail_service.client.wire import Wire

#: seconds without use after which a spare connection is closed
LONGEST_IDLE_S = 60.0


class Wires:
    """
    As many connections as threads work at the same time.

    Lending keeps what a connection per thread gives (nobody waits for another, nobody reads another's confirms), and
    the threads of a web server or nameko's greenlets may live as short as they like: the next one takes the connection
    over. No locks: a lock that another thread holds during a fork would stay locked in the child.
    """

    def __init__(self, make: Callable[[], Wire]) -> None:
        self._make = make
        self._stock: tuple[int, deque[Wire]] = (os.getpid(), deque())
        #: of the processes that forked us; kept, so that nothing closes them here while they are in use there
        self._inherited: list[deque[Wire]] = []

    @contextlib.contextmanager
    def lent(self) -> Iterator[Wire]:
        """A wire for the calling thread alone; it may not be open."""
        stock = self._own()
        wire = self._take(stock)
        try:
            yield wire
        finally:
            self._give_back(wire, stock)

    def close(self) -> None:
        """Close this process's connections; what is lent is closed when it comes back."""
        stock = self._own()
        self._stock = (os.getpid(), deque())
        with contextlib.suppress(IndexError):
            while True:
                stock.pop().close()

    def _own(self) -> deque[Wire]:
        pid, stock = self._stock
        if pid != os.getpid():
            self._inherited.append(stock)
            stock = deque()
            self._stock = (os.getpid(), stock)
        return stock

    def _take(self, stock: deque[Wire]) -> Wire:
        # the one used last: those on the other side grow old and are closed
        try:
            return stock.pop()
        except IndexError:
            return self._make()

    def _give_back(self, wire: Wire, stock: deque[Wire]) -> None:
        if not wire.is_open:
            return
        if stock is not self._stock[1]:
            wire.close()
            return
        stock.append(wire)
        with contextlib.suppress(IndexError):
            while len(stock) > 1 and stock[0].idle_s > LONGEST_IDLE_S:
                stock.popleft().close()
