"""
A hard end for each attempt.

The attempt runs in a greenlet of its own, which is abandoned when its time is over: a backend that swallows the
exception it is stopped with does not keep the worker. Code that never yields to the event loop cannot be stopped from
inside a process; ``mail-service run`` watches for that from outside.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import eventlet
from eventlet.event import Event

from mail_service.diagnosis import DeadlineExceeded

T = TypeVar("T")

_STOPPING = "cut short, since the service is stopping"


class Exited(Exception):
    """The backend tried to end the process, by SystemExit or KeyboardInterrupt."""


class Deadline:
    """Runs attempts of at most *seconds*; `cut_short` ends those that are running, and all that come after."""

    def __init__(self, seconds: float) -> None:
        #: of one attempt, with all mailers that it asks
        self.seconds = seconds
        self._running: set[Event] = set()
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Nothing runs any more, since the service is stopping."""
        return self._is_over

    def end(self, within_s: float | None = None) -> float:
        """When the time of an attempt that begins now is over, on the monotonic clock."""
        return time.monotonic() + (self.seconds if within_s is None else within_s)

    def run(self, attempt: Callable[[], T], within_s: float | None = None) -> T:
        """
        What *attempt* returns or raises. Raises DeadlineExceeded, or Exited for what is no Exception.

        Args:
            within_s: Seconds, where less than usual are left.
        """
        seconds = self.seconds if within_s is None else min(self.seconds, within_s)
        if self._is_over:
            raise DeadlineExceeded(_STOPPING)
        ended: Any = Event()
        greenlet = eventlet.spawn(_report, attempt, ended)
        self._running.add(ended)
        text = f"no end after {seconds:.3g} seconds"
        try:
            with eventlet.Timeout(seconds, DeadlineExceeded(text)):
                result: T = ended.wait()
                return result
        finally:
            self._running.discard(ended)
            if not greenlet.dead:
                greenlet.kill()

    def cut_short(self) -> None:
        """End all attempts that are running now, and all that come after."""
        self._is_over = True
        for ended in list(self._running):
            if not ended.ready():
                ended.send_exception(DeadlineExceeded(_STOPPING))


def _report(attempt: Callable[[], Any], ended: Any) -> None:
    """
    Nothing may leave this greenlet: eventlet prints what does, with all it holds, and ends the process on SystemExit.
    """
    try:
        result, problem = attempt(), None
    except eventlet.greenlet.GreenletExit:
        return
    except Exception as exc:
        result, problem = None, exc
    except BaseException as exc:
        result, problem = None, Exited(type(exc).__name__)
    if ended.ready():
        return
    if problem is not None:
        # with its traceback, which a greenlet that is given the exception alone begins anew
        ended.send_exception(type(problem), problem, problem.__traceback__)
    else:
        ended.send(result)
