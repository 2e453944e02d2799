"""The ledger for who would rather wait for the database than go on without it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import eventlet

from mail_service.ledger.database import StoreDown
from mail_service.ledger.ledger import Ledger
from mail_service.ledger.records import Change, Copy, Mail

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: seconds between two questions
LONGEST_PAUSE_S = 5.0


class Stopping(Exception):
    """The service stops while it waits for the database; the message stays with the broker."""


class PatientLedger:
    """The ledger as workers use it before an attempt: they wait while the database is away, and keep their message."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.stopping = False

    def accept(self, mail: Mail, content: bytes | None = None) -> Mail:
        """As Ledger.accept. Raises Stopping when the service stops meanwhile."""
        return self._patiently(lambda: self._ledger.accept(mail, content))

    def claim(self, copy: Copy) -> Any:
        """As Ledger.claim. Raises Stopping when the service stops meanwhile."""
        return self._patiently(lambda: self._ledger.claim(copy))

    def record(self, change: Change) -> Any:
        """As Ledger.record. Raises Stopping when the service stops meanwhile."""
        return self._patiently(lambda: self._ledger.record(change))

    def _patiently(self, ask: Callable[[], T]) -> T:
        pause_s = 0.2
        while True:
            try:
                return ask()
            except StoreDown as exc:
                if pause_s == LONGEST_PAUSE_S:
                    _log.error("deliveries wait for the database (%s)", exc)
                if self.stopping:
                    raise Stopping from exc
            eventlet.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
