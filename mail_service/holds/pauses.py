"""
What somebody has paused, as this process knows it, and the end of pauses whose time is over.

Whoever has a claim asks `of`, which hears of a change made anywhere before that claim. A mail that is known to be held
asks `look` without a claim, so that a large backlog costs little while it waits. What a pause held is put back on its
way at once when the pause ends: by the process that ends it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import eventlet

from mail_service import clock
from mail_service.holds.gate import LOOKS_PER_S
from mail_service.holds.keeper import REFRESH_S, SOONER, Held
from mail_service.ledger import StoreDown
from mail_service.ledger.pauses import Pause
from mail_service.ledger.records import Mail
from mail_service.logs import say
from mail_service.settings.mailers import key_of

_log = logging.getLogger(__name__)

#: between looks at whether a pause is over, seconds
WATCH_S = 1.0
#: while the database is away, tries of a mail that has its claim to hear what is paused, and seconds between them
TRIES, TRY_AGAIN_S = 20, 0.25


class Store(Protocol):
    """What is shared: ``PauseList``. Every method but `revision` may raise StoreDown."""

    @property
    def revision(self) -> int:
        """Changes with every change, as far as this process has heard."""
        ...

    def all(self) -> tuple[int, Sequence[Pause]]:
        """The revision, and all pauses."""
        ...

    def end_overdue(self) -> list[Pause]:
        """End those whose time has passed; answers them to the one process that does."""
        ...


class Pauses:
    """
    One for all workers of a process.

    Args:
        hold_probe_s: Seconds; ``mail.hold_probe``.
        release: Called in a greenlet of its own when the mail that a pause held may go: the pause, and a function that
            answers how many mails a second may go now (0: it is paused again).
        monotonic: The clock that it goes by, seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        hold_probe_s: float,
        release: Callable[[Pause, Callable[[], float]], object],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._look_s = hold_probe_s * SOONER
        self._release = release
        self._now = monotonic
        self._pauses: Sequence[Pause] = ()
        self._revision = -1
        self._refreshed = float("-inf")
        #: when the next of those who wait is to look again
        self._next_look = float("-inf")

    def of(self, mail: Mail) -> Held | None:
        """What holds *mail*, which has its claim; None when nothing is paused that it is."""
        for _ in range(TRIES):
            if self._store.revision == self._revision or self._refresh():
                break
            eventlet.sleep(TRY_AGAIN_S)
        pause = longest(self._pauses, mail)
        return Held(seconds=self._turn(pause), text=pause.text) if pause else None

    def look(self, mail: Mail) -> float | None:
        """Seconds until a mail that is held already should look again; None when no pause holds it."""
        if self._now() - self._refreshed > REFRESH_S:
            self._refresh()
        pause = longest(self._pauses, mail)
        return self._turn(pause) if pause else None

    def stop(self, mail: Mail, key: str) -> bool:
        """Whether *mail* would be held if it were for the mailer of this key."""
        name = key.removesuffix(key_of("", mail.tenant)) if mail.tenant else key
        return longest(self._pauses, replace(mail, mailer=name)) is not None

    def all(self) -> list[Pause]:
        """Every pause, oldest first. Raises StoreDown."""
        self._load()
        return [pause for pause in self._pauses if not pause.is_over]

    def ended(self, pauses: Iterable[Pause], *, why: str = "") -> None:
        """Let go what *pauses* held, which have ended."""
        for pause in pauses:
            scope = pause.criteria.loggable
            say(_log, logging.INFO, "resumed: %(scope)s", event="resumed", scope=scope, reason=why or None)
            eventlet.spawn_n(self._release, pause, partial(self._rate, pause.criteria))

    def watch(self) -> None:
        """End pauses when their time is over, for ever."""
        while True:
            try:
                if self._revision < 0:
                    self._load()
                if any(pause.is_over for pause in self._pauses):
                    self.ended(self._store.end_overdue(), why="its time is over")
                    self._load()
            except StoreDown:
                # nothing that is paused goes on before the database is back
                pass
            except Exception as exc:  # noqa: BLE001 - if this loop ended, no pause would end any more
                _log.warning("pauses could not be looked at (%s)", type(exc).__name__)
            eventlet.sleep(WATCH_S)

    def _rate(self, criteria: object) -> float:
        is_paused = any(pause.criteria == criteria and not pause.is_over for pause in self._pauses)
        return 0.0 if is_paused else float("inf")

    def _turn(self, pause: Pause) -> float:
        """Seconds until the next of those who wait looks again: not all at once, and not long after the end."""
        now = self._now()
        left_s = (clock.parse(pause.until) - clock.now()).total_seconds() if pause.until else self._look_s
        self._next_look = max(now + min(max(left_s, 0.0), self._look_s), self._next_look + 1 / LOOKS_PER_S)
        return self._next_look - now

    def _refresh(self) -> bool:
        try:
            self._load()
        except StoreDown:
            return False
        return True

    def _load(self) -> None:
        self._refreshed = self._now()
        self._revision, self._pauses = self._store.all()


def longest(pauses: Iterable[Pause], mail: Mail) -> Pause | None:
    """Of the pauses that *mail* is held by, the one that ends last: until then it waits."""
    those = [pause for pause in pauses if pause.has(mail) and not pause.is_over]
    return max(those, key=lambda pause: pause.until or "9999", default=None)
