"""
Keeps opened backends between mails, so that a provider's API is asked over connections that are there already.

Only Anymail's, whose ``open`` is made for it: those built on requests have a session, the one for Amazon SES a client
of boto, which takes a tenth of a second of processor time to make. Each serves one mail at a time.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from mail_service.mailers.kinship import descends_from

#: Seconds after which connections that nobody used are closed, while the session stays. A server may close an idle
#: one at any time, and a request that crosses that has an unknown outcome; few close earlier than this. The defaults
#: are 5 s in Apache (KeepAliveTimeout) and Node.js (keepAliveTimeout), 60 s in AWS's load balancers, 75 s in nginx.
FRESH_S: Final = 4.0
#: seconds after which a backend that nobody used is given up, so that a rush leaves nothing behind for ever
KEEP_S: Final = 600.0
#: Backends that may wait in one process, those of all tenants together; a client of boto has megabytes.
MOST_KEPT: Final = 200

_ANYMAIL: Final = "anymail.backends.base.AnymailBaseBackend"
#: Anymail's words for a mail that it did not ask the provider about, or that the provider refused in so many words
_HARMLESS: Final = (
    "anymail.exceptions.AnymailRecipientsRefused",
    "anymail.exceptions.AnymailUnsupportedFeature",
    "anymail.exceptions.AnymailInvalidAddress",
    "anymail.exceptions.AnymailSerializationError",
)
#: answers that say something about who asks, or how: what was read of credentials is read anew
_OF_THE_ASKER: Final = frozenset({401, 403, 407, 408})


@dataclass(slots=True)
class _Idle:
    """A backend that waits, on the clock since *since*."""

    since: float
    backend: Any
    is_connected: bool = True


class Household:
    """All that waits in a process. It is tidied whenever something is put back, at most once in ``FRESH_S``."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._members: weakref.WeakSet[Sessions] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._next = 0.0

    def add(self, sessions: Sessions) -> None:
        """Look after *sessions* as long as somebody uses them."""
        with self._lock:
            self._members.add(sessions)

    def tidy(self, now: float) -> None:
        """Close what waits for too long, and the oldest of what is too many."""
        with self._lock:
            if now < self._next:
                return
            self._next = now + FRESH_S
            members = list(self._members)
        waiting = sorted((since for each in members for since in each.tidy(now)), reverse=True)
        if len(waiting) > self._most:
            for each in members:
                each.give_up(until=waiting[self._most])


_HOUSEHOLD: Final = Household()


class Sessions:
    """
    Backends of one mailer that wait for their next mail. The one used last goes first, so that those too many grow old.

    Args:
        size: At most so many; None for as many as were in use at a time.
    """

    def __init__(
        self, size: int | None, clock: Callable[[], float] = time.monotonic, *, household: Household = _HOUSEHOLD
    ) -> None:
        self._size = size
        self._clock = clock
        self._household = household
        self._idle: list[_Idle] = []
        self._lock = threading.Lock()
        household.add(self)

    def take(self) -> Any | None:
        """Return an opened backend that nobody else uses until it is put back, or None."""
        with self._lock:
            if not self._idle:
                return None
            idle = self._idle.pop()
        if self._clock() - idle.since >= FRESH_S:
            _disconnect(idle)
        return idle.backend

    def put(self, backend: Any) -> None:
        """Keep a backend on which nothing is under way, or close it where enough wait."""
        now = self._clock()
        with self._lock:
            is_kept = self._size is None or len(self._idle) < self._size
            if is_kept:
                self._idle.append(_Idle(now, backend))
        if not is_kept:
            close(backend)
        self._household.tidy(now)

    def tidy(self, now: float) -> list[float]:
        """Close what was not used for too long. Answers since when the others wait."""
        self.give_up(until=now - KEEP_S)
        with self._lock:
            for idle in self._idle:
                if now - idle.since >= FRESH_S:
                    _disconnect(idle)
            return [idle.since for idle in self._idle]

    def give_up(self, *, until: float) -> None:
        """Close what waits since *until* or longer."""
        with self._lock:
            old = [idle for idle in self._idle if idle.since <= until]
            self._idle = [idle for idle in self._idle if idle.since > until]
        for idle in old:
            close(idle.backend)

    def empty(self) -> None:
        """Close all that wait."""
        self.give_up(until=float("inf"))


def _disconnect(idle: _Idle) -> None:
    """Close the connections alone: both requests' Session and boto's client make new ones when they are asked."""
    if idle.is_connected:
        idle.is_connected = False
        with suppress(Exception):
            connection_of(idle.backend).close()  # type: ignore[union-attr] # it had one when it was put here


def connection_of(backend: Any) -> Any | None:
    """What an opened backend of Anymail asks its provider with, or None when there is nothing to keep."""
    if not descends_from(backend, _ANYMAIL):
        return None
    found = getattr(backend, "session", None) or getattr(backend, "client", None)
    return found if callable(getattr(found, "close", None)) else None


def is_good_after(error: BaseException) -> bool:
    """Whether connections are certainly sound after *error*: nothing was sent, or a clear no was read to its end."""
    if descends_from(error, *_HARMLESS):
        return True
    status = _status(getattr(error, "response", None))
    return 400 <= status < 500 and status not in _OF_THE_ASKER


def close(backend: Any) -> None:
    """Close *backend*, whatever it raises."""
    with suppress(Exception):
        backend.close()


def _status(response: Any) -> int:
    """An HTTP answer's status, 0 without one: requests has it in an attribute, boto in a dict."""
    if isinstance(response, dict):
        metadata = response.get("ResponseMetadata")
        status = metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None
    else:
        status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else 0
