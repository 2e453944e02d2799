"""
Delete what is old from time to time, as ``mail.retention`` says. One process of many makes each pass.

What was decided when a mail ended (keep, redact or drop its content) is no matter of passes: see ``ledger.contents``.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import eventlet

from mail_service import clock
from mail_service.ledger import StoreDown
from mail_service.ledger.chores import Chore
from mail_service.ledger.database import Database
from mail_service.ledger.errorlog import ENTRY_STATUSES
from mail_service.ledger.purging import drop_contents, drop_ended_suppressions, purge
from mail_service.logs import say
from mail_service.settings import Retention

_log = logging.getLogger(__name__)

#: by which all processes know the pass
NAME = "retention"
#: seconds for which a pass is taken; kept while it goes on, so that another process soon goes on for one that died
LEASE_S = 60.0
#: seconds between looks whether a pass is due, unless passes are closer together
LOOK_S = 60.0
#: how many times longer than it uses the database a pass leaves it to others, and for how many seconds at least
REST_FACTOR, REST_S = 3.0, 0.05


class Lost(Exception):
    """The pass is not to go on: another process took it over, since this one was not heard of for too long."""


@dataclass(slots=True)
class Swept:
    """What a pass deleted."""

    mails: int = 0
    contents: int = 0
    suppressions: int = 0


class Passes:
    """
    The passes of this process.

    Args:
        sleep: Waits for so many seconds.
    """

    def __init__(
        self, settings: Retention, database: Database, sleep: Callable[[float], None] = eventlet.sleep
    ) -> None:
        self._settings = settings
        self._database = database
        self._sleep = sleep
        self._chore = Chore(database, NAME, every_s=settings.every, lease_s=LEASE_S)
        self._kept_until = clock.now()

    def watch(self) -> None:
        """Make the passes that are due and nobody else makes, for ever."""
        while True:
            # not all processes at once
            self._sleep(min(LOOK_S, self._settings.every) * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            try:
                self.make_one()
            except (StoreDown, Lost):
                # whoever takes it next begins again, with less to do
                continue
            except Exception as exc:  # noqa: BLE001 - if this loop ended, nothing would be deleted any more
                _log.warning("a pass of retention failed (%s)", type(exc).__name__)

    def make_one(self) -> Swept | None:
        """Make a pass if one is due; None if it is not. Raises StoreDown, and Lost."""
        if not self._chore.take():
            return None
        self._kept_until = clock.later(LEASE_S / 2)
        swept = self._sweep()
        self._chore.done()
        if swept.mails or swept.contents or swept.suppressions:
            say(
                _log,
                logging.INFO,
                "retention: deleted %(mails)d mails, %(contents)d contents and %(suppressions)d entries that are over",
                event="retention",
                mails=swept.mails,
                contents=swept.contents,
                suppressions=swept.suppressions,
            )
        return swept

    def _sweep(self) -> Swept:
        swept = Swept()
        for status, days in self._settings.records.items():
            swept.mails += purge(self._database, status, _before(days), self._rest)
        if self._settings.content_days is not None:
            before = _before(self._settings.content_days)
            for status in ENTRY_STATUSES:
                swept.contents += drop_contents(self._database, status, before, self._rest)
        swept.suppressions = drop_ended_suppressions(self._database, self._rest)
        return swept

    def _rest(self, took_s: float) -> None:
        self._sleep(max(REST_S, took_s * REST_FACTOR))
        if clock.now() >= self._kept_until:
            if not self._chore.keep():
                raise Lost
            self._kept_until = clock.later(LEASE_S / 2)


def _before(days: float) -> str:
    return clock.iso(clock.now() - timedelta(days=days))
