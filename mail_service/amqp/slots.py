"""
How many messages are worked on at a time, and which wait their turn. Pure: time comes in as a number.

A worker that waits for a mail server that hangs does nothing but wait. Where there are other mailers, such workers lend
their slot: for each one that takes unusually long another message is begun, up to a limit. So a provider that hangs
keeps no other's mail waiting for longer than that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Final, Generic, TypeVar

M = TypeVar("M")

#: messages whose turn it is that may wait for a slot
MOST_IN_TURN: Final = 4


class Line(IntEnum):
    """Where a message waits for a slot. The lines take turns, so that no crowd in one keeps another waiting."""

    #: it has had its turn with a limit, or with other tenants
    TURN = 0
    NEW = 1
    #: it was here before
    AGAIN = 2


class Slots(Generic[M]):
    """
    Begins messages, at most *size* at a time and *spare* more while others are slow.

    Args:
        begin: Called with each message whose turn has come. Must not wait.
        slow_s: Answers after how many seconds a message is slow now.
    """

    def __init__(
        self, size: int, spare: int, begin: Callable[[M], None], now: Callable[[], float], slow_s: Callable[[], float]
    ) -> None:
        self._size = size
        self._spare = spare
        self._begin = begin
        self._now = now
        self._slow_s = slow_s
        #: by identity: the message, which stays alive so that no other gets its identity, and when it was begun
        self._running: dict[int, tuple[M, float]] = {}
        self._lines: tuple[deque[M], ...] = tuple(deque() for _ in Line)
        #: whose turn it was last
        self._last = Line.AGAIN
        self._is_beginning = False

    @property
    def most(self) -> int:
        """Messages at a time when all spare slots are lent."""
        return self._size + self._spare

    def resize(self, size: int, spare: int) -> None:
        """Begin so many at a time from now on."""
        self._size, self._spare = size, spare

    def add(self, message: M, line: Line = Line.NEW) -> None:
        """Begin *message* now, or when there is a slot for its line."""
        self._lines[line].append(message)
        self.begin()

    @property
    def has_room(self) -> bool:
        """Whether another message may wait whose turn it is."""
        return len(self._lines[Line.TURN]) < MOST_IN_TURN

    @property
    def are_taken(self) -> bool:
        """Whether a message that came now would have to wait."""
        return self.any_wait or len(self._running) >= self._limit()

    def done(self, message: M) -> None:
        """*message* is settled. Nothing happens for one that was never begun."""
        self._running.pop(id(message), None)
        self.begin()

    def begin(self) -> None:
        """Begin what waits, as far as there are slots."""
        if self._is_beginning:
            # called by what was just begun: once it returns, the loop goes on
            return
        self._is_beginning = True
        try:
            while self.any_wait and len(self._running) < self._limit():
                message = self._next()
                self._running[id(message)] = (message, self._now())
                self._begin(message)
        finally:
            self._is_beginning = False

    def _next(self) -> M:
        """Of the next line in which any waits."""
        order = [Line((self._last + step) % len(Line)) for step in range(1, len(Line) + 1)]
        self._last = next(line for line in order if self._lines[line])
        return self._lines[self._last].popleft()

    @property
    def any_wait(self) -> bool:
        """Whether anything waits for a slot."""
        return any(self._lines)

    def forget(self, *lines: Line) -> list[M]:
        """Give up what was not begun of *lines*, and answer it."""
        forgotten = [message for line in lines for message in self._lines[line]]
        for line in lines:
            self._lines[line].clear()
        return forgotten

    def _limit(self) -> int:
        if not self._spare or len(self._running) < self._size:
            return self._size
        now, slow_s = self._now(), self._slow_s()
        slow = sum(now - began > slow_s for _, began in self._running.values())
        return self._size + min(slow, self._spare)
