"""
Tenants' mailers that a function of the user's knows: ``(tenant, name) -> {"BACKEND": ..., "OPTIONS": ...}``, or None
where everybody's mailer of that name is to be used.

What it says is kept for a while, for a bounded number of mailers. What it raises, or says wrongly, concerns the mailer
that was asked for, and nobody else's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from django.core.exceptions import ImproperlyConfigured

from mail_service.diagnosis.reading import described
from mail_service.errors import ConfigurationError
from mail_service.logs import say
from mail_service.mailers import Email, Mailer
from mail_service.outcome import Receipt
from mail_service.settings import Limit, MailerSettings, Settings, mask_text
from mail_service.settings.imports import backend_problem
from mail_service.settings.mailers import key_of, read_one

_log = logging.getLogger(__name__)

#: seconds for which an answer holds: a changed key of a tenant is in use after so long
KEEP_S: Final = 60.0
#: seconds after which a tenant's mailer that could not be loaded is asked for again
ASK_AGAIN_S: Final = 10.0
#: seconds for which the last answer goes on to hold while the function raises, as when its database is away
STALE_S: Final = 3600.0
#: answers kept; the one not asked for longest goes first, and its connections with it
MOST_KEPT: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A mailer that is there to be used."""

    mailer: Mailer
    #: the names of those that stand in for it
    failover: tuple[str, ...] = ()
    limit: Limit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What is known about one tenant's mailer of one name."""

    #: None means everybody's
    own: Opened | None
    #: what it was made of, where it could be made
    settings: MailerSettings | None = None
    #: the function gave it, at this time on the clock
    at: float
    holds_until: float
    is_failure: bool = False


def at_once(load: Callable[[], object]) -> object:
    """Run *load* without a limit of time."""
    return load()


class LoadedMailers:
    """
    The mailers that a function gives for tenants.

    Args:
        load: The function. It runs in the service's process, among green threads: it may wait for the network, not
            for what cannot yield.
        open_one: Makes a mailer.
        guard: Runs the function, and raises where that takes too long.
    """

    def __init__(
        self,
        load: Callable[[str, str], object],
        *,
        settings: Settings,
        open_one: Callable[[MailerSettings], Opened],
        guard: Callable[[Callable[[], object]], object] = at_once,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._settings = settings
        self._open_one = open_one
        self._guard = guard
        self._clock = clock
        self._answers: OrderedDict[tuple[str, str], _Answer] = OrderedDict()
        self._turns = _Turns()
        self._lock = threading.Lock()

    def get(self, tenant: str, name: str) -> Opened | None:
        """
        Return the mailer of *tenant* called *name*, None where it has none of its own. Never raises.

        The function is asked by one at a time for each mailer; who comes meanwhile waits for that answer.
        """
        key = (tenant, name)
        answer = self._valid(key)
        if answer is None:
            with self._turns.of(key):
                answer = self._valid(key) or self._keep(key, self._asked(key))
        return answer.own

    def all(self) -> list[Opened]:
        """Return those that are known now."""
        with self._lock:
            return [answer.own for answer in self._answers.values() if answer.own is not None]

    def _valid(self, key: tuple[str, str]) -> _Answer | None:
        with self._lock:
            answer = self._answers.get(key)
            if answer is None or answer.holds_until <= self._clock():
                return None
            self._answers.move_to_end(key)
            return answer

    def _keep(self, key: tuple[str, str], answer: _Answer) -> _Answer:
        with self._lock:
            before = self._answers.get(key)
            given_up = [before] if before is not None and before.own is not answer.own else []
            self._answers[key] = answer
            self._answers.move_to_end(key)
            while len(self._answers) > MOST_KEPT:
                given_up.append(self._answers.popitem(last=False)[1])
        for old in given_up:
            if old.own is not None:
                old.own.mailer.close()
        return answer

    def _asked(self, key: tuple[str, str]) -> _Answer:
        before = self._answers.get(key)
        try:
            entry = self._guard(lambda: self._load(*key))
        except Exception as error:  # noqa: BLE001 - whatever it raises, it is one tenant's own matter
            if before is not None and not before.is_failure and self._clock() - before.at < STALE_S:
                say(
                    _log,
                    logging.WARNING,
                    "a tenant's mailer cannot be loaded again (%(error)s); it stays as it was",
                    event="tenant_mailer",
                    error=type(error).__name__,
                )
                return replace(before, holds_until=self._clock() + ASK_AGAIN_S)
            return self._failure(key, f"mail.tenant_mailers raised {described(error)}")
        return self._understood(key, entry, before)

    def _understood(self, key: tuple[str, str], entry: object, before: _Answer | None) -> _Answer:
        now = self._clock()
        if entry is None:
            return _Answer(own=None, at=now, holds_until=now + KEEP_S)
        try:
            settings = self._read(*key, entry)
        except ConfigurationError as error:
            return self._failure(key, str(error))
        if before is not None and before.settings == settings:
            return replace(before, at=now, holds_until=now + KEEP_S)
        return _Answer(own=self._open_one(settings), settings=settings, at=now, holds_until=now + KEEP_S)

    def _read(self, tenant: str, name: str, entry: object) -> MailerSettings:
        settings = read_one(name, entry, "mail.tenant_mailers", self._settings.mailers_of(tenant))
        if problem := backend_problem(settings.backend):
            raise ConfigurationError(problem)
        return replace(settings, name=key_of(name, tenant))

    def _failure(self, key: tuple[str, str], problem: str) -> _Answer:
        tenant, name = key
        now = self._clock()
        mailer = UnusableMailer(key_of(name, tenant), mask_text(problem))
        return _Answer(own=Opened(mailer=mailer), at=now, holds_until=now + ASK_AGAIN_S, is_failure=True)


class UnusableMailer:
    """Stands in for a mailer that could not be made: every mail meets a fault in the configuration. See ``Mailer``."""

    backend = ""
    on_unknown = "retry"
    keeps_send_at = False

    def __init__(self, name: str, problem: str) -> None:
        self.name = name
        self._problem = problem

    def send(self, email: Email, waiting: Sequence[str], *, attempt: int = 0) -> list[Receipt]:  # noqa: ARG002
        """See ``Mailer.send``."""
        self._refuse()

    def check(self) -> str:
        """See ``Mailer.check``."""
        self._refuse()

    def close(self) -> None:
        """See ``Mailer.close``."""

    def _refuse(self) -> NoReturn:
        raise ImproperlyConfigured(f"mailer {self.name!r}: {self._problem}")


class _Turns:
    """One lock for each key that somebody holds or waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[object, tuple[threading.Lock, int]] = {}

    @contextmanager
    def of(self, key: object) -> Iterator[None]:
        """Hold the lock of *key*."""
        with self._lock:
            lock, users = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, users = self._locks[key]
                if users > 1:
                    self._locks[key] = (lock, users - 1)
                else:
                    del self._locks[key]
