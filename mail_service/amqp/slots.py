"""
How many messages are worked on at a time, and which wait their turn. Pure: time comes in as a number.

A worker that waits for a mail server that hangs does nothing but wait. Where there are other mailers, such workers lend
their slot: for each one that takes unusually long another message is begun, up to a limit. So a provider that hangs
keeps no other's mail waiting for longer than that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

M = TypeVar("M")

#: messages that may wait for a slot before all others
MOST_FIRST: Final = 4


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
        self._waiting: deque[M] = deque()
        #: what is begun before those
        self._first: deque[M] = deque()
        self._was_first = False

    @property
    def most(self) -> int:
        """Messages at a time when all spare slots are lent."""
        return self._size + self._spare

    def resize(self, size: int, spare: int) -> None:
        """Begin so many at a time from now on."""
        self._size, self._spare = size, spare

    def add(self, message: M, *, first: bool = False) -> None:
        """Begin *message* now, or when there is a slot; *first*: before all but one of those that wait already."""
        (self._first if first else self._waiting).append(message)
        self.begin()

    @property
    def has_room(self) -> bool:
        """Whether another message may wait before all others."""
        return len(self._first) < MOST_FIRST

    @property
    def are_taken(self) -> bool:
        """Whether a message that came now would have to wait."""
        return bool(self._first or self._waiting) or len(self._running) >= self._limit()

    def done(self, message: M) -> None:
        """*message* is settled. Nothing happens for one that was never begun."""
        self._running.pop(id(message), None)
        self.begin()

    def begin(self) -> None:
        """Begin what waits, as far as there are slots."""
        while (self._first or self._waiting) and len(self._running) < self._limit():
            message = self._next()
            self._running[id(message)] = (message, self._now())
            self._begin(message)

    def _next(self) -> M:
        """Of what goes first, but never twice while anything else waits: else that might wait for ever."""
        takes_first = bool(self._first) and not (self._was_first and self._waiting)
        self._was_first = takes_first
        return (self._first if takes_first else self._waiting).popleft()

    @property
    def is_full(self) -> bool:
        """Whether anything waits for a slot."""
        return bool(self._first or self._waiting)

    def forget_waiting(self) -> list[M]:
        """Give up what was not begun, and answer it; not what is to be begun first."""
        waiting, self._waiting = list(self._waiting), deque()
        return waiting

    def forget_first(self) -> list[M]:
        """The same for what is to be begun first."""
        first, self._first = list(self._first), deque()
        return first

    def _limit(self) -> int:
        if not self._spare or len(self._running) < self._size:
            return self._size
        now, slow_s = self._now(), self._slow_s()
        slow = sum(now - began > slow_s for _, began in self._running.values())
        return self._size + min(slow, self._spare)
