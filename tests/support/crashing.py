"""
The service with points at which its process kills itself with -9, and a clock that somebody may set.

Where it dies is said by ``CRASH_AT``, once: ``CRASHED`` is a file that is there afterwards. Or, for a process that
somebody arms while it runs, by the file ``CRASH_PLAN``: the name of a point and, after a space, how often that is
passed before. ``CLOCK`` is a file with the seconds by which the process's clock is wrong.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mail_service.ledger.ledger as ledger_module
from mail_service import clock
from mail_service.amqp.mailqueue import MailQueue
from mail_service.ledger import Ledger
from mail_service.service import BulkLane, HighLane, MailService, NormalLane

__all__ = ["POINTS", "BulkLane", "HighLane", "MailService", "NormalLane", "crash_once"]

#: each point with what is patched, and whether the process dies before or after that
POINTS: dict[str, tuple[Any, str, bool]] = {
    # the claim is committed, and nobody was asked to take the mail
    "claimed": (Ledger, "claim", False),
    # the mailer has handed the mail over, and the ledger does not know yet
    "accepted": (Ledger, "record", True),
    # it is written, in a transaction that is not committed
    "writing": (ledger_module, "_record_all", False),
    # the ledger knows, and nothing else was done
    "committed": (Ledger, "record", False),
    # the next copy is on its way, and the old one not acknowledged
    "republished": (MailQueue, "put_later", False),
}


def crash_once() -> None:
    """End the process as kill -9 does, unless one before it ended here."""
    crashed = Path(os.environ["CRASHED"])
    if not crashed.exists():
        crashed.touch()
        _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _crashing(method: Callable[..., Any], crash: Callable[[], None], *, before: bool) -> Callable[..., Any]:
    def passed(*args: Any, **kwargs: Any) -> Any:
        if before:
            crash()
        answer = method(*args, **kwargs)
        if not before:
            crash()
        return answer

    return passed


def _patch(point: str, crash: Callable[[], None]) -> None:
    owner, name, before = POINTS[point]
    setattr(owner, name, _crashing(getattr(owner, name), crash, before=before))


class _Plan:
    """The file that somebody arms."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._passed = 0

    def crash_at(self, point: str) -> Callable[[], None]:
        def crash() -> None:
            try:
                planned, _, after = self._path.read_text().partition(" ")
            except FileNotFoundError:
                return
            self._passed += planned == point
            if planned == point and self._passed > int(after or 0):
                # one death for one plan
                self._path.unlink(missing_ok=True)
                _die()

        return crash


def _set_clock(path: Path) -> None:
    """All times of the service come from these two; what it waits for, it measures by the monotonic clock."""

    def offset_s() -> float:
        try:
            return float(path.read_text() or 0)
        except FileNotFoundError:
            return 0.0

    clock.now = lambda: datetime.now(UTC) + timedelta(seconds=offset_s())
    clock.now_ms = lambda: int((time.time() + offset_s()) * 1000)


if crash_at := os.environ.get("CRASH_AT"):
    _patch(crash_at, crash_once)
if "CRASH_PLAN" in os.environ:
    plan = _Plan(Path(os.environ["CRASH_PLAN"]))
    for each in POINTS:
        _patch(each, plan.crash_at(each))
if "CLOCK" in os.environ:
    _set_clock(Path(os.environ["CLOCK"]))
