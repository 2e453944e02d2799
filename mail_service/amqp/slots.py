"""
How many messages are worked on at a time, and which wait their turn. Pure: time comes in as a number.

A worker that waits for a mail server that hangs does nothing but wait. Where there are other mailers, such workers lend
their slot: for each one that takes unusually long another message is begun, up to a limit. So a provider that hangs
keeps no other's mail waiting for longer than `SLOW_S`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

M = TypeVar("M")

#: an attempt that takes longer lends its slot, seconds; a usual one takes a tenth of this
SLOW_S: Final = 0.5


class Slots(Generic[M]):
    """
    Begins messages, at most *size* at a time and *spare* more while others are slow.

    Args:
        begin: Called with each message whose turn has come. Must not wait.
    """

    def __init__(self, size: int, spare: int, begin: Callable[[M], None], now: Callable[[], float]) -> None:
        self._size = size
        self._spare = spare
        self._begin = begin
        self._now = now
        #: by identity: the message, which stays alive so that no other gets its identity, and when it was begun
        self._running: dict[int, tuple[M, float]] = {}
        self._waiting: deque[M] = deque()

    @property
    def most(self) -> int:
        """Messages at a time when all spare slots are lent."""
        return self._size + self._spare

    def resize(self, size: int, spare: int) -> None:
        """Begin so many at a time from now on."""
        self._size, self._spare = size, spare

    def add(self, message: M) -> None:
        """Begin *message* now, or when there is a slot."""
        self._waiting.append(message)
        self.begin()

    def done(self, message: M) -> None:
        """*message* is settled. Nothing happens for one that was never begun."""
        self._running.pop(id(message), None)
        self.begin()

    def begin(self) -> None:
        """Begin what waits, as far as there are slots."""
        while self._waiting and len(self._running) < self._limit():
            message = self._waiting.popleft()
            self._running[id(message)] = (message, self._now())
            self._begin(message)

    @property
    def is_full(self) -> bool:
        """Whether anything waits for a slot."""
        return bool(self._waiting)

    def forget_waiting(self) -> list[M]:
        """Give up what was not begun, and answer it."""
        waiting, self._waiting = list(self._waiting), deque()
        return waiting

    def _limit(self) -> int:
        if not self._spare or len(self._running) < self._size:
            return self._size
        now = self._now()
        slow = sum(now - began > SLOW_S for _, began in self._running.values())
        return self._size + min(slow, self._spare)
