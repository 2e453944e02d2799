"""A flag for one greenlet that waits and others that have news for it."""

from __future__ import annotations

import eventlet
from eventlet.event import Event


class Flag:
    """Set by anybody, any number of times; one greenlet waits for it, and lowers it by that."""

    def __init__(self) -> None:
        self._event = Event()

    def set(self) -> None:
        """Wake who waits, or who will wait next."""
        if not self._event.ready():
            self._event.send(None)

    def wait(self, seconds: float) -> bool:
        """Wait until it is set, at most *seconds*. Answers whether it was."""
        with eventlet.Timeout(max(seconds, 0.0), exception=False):
            self._event.wait()
        if not self._event.ready():
            return False
        self._event = Event()
        return True
