"""
The service with a point at which its process kills itself with -9, once: ``CRASH_AT`` names it, ``CRASHED`` is a file.

    accepted      the mailer has handed the mail over, and the ledger does not know yet
    committed     the ledger knows, and nothing else was done
    republished   the next copy is on its way, and the old one not acknowledged
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mail_service.amqp.mailqueue import MailQueue
from mail_service.ledger import Ledger
from mail_service.service import BulkLane, HighLane, MailService, NormalLane

__all__ = ["BulkLane", "HighLane", "MailService", "NormalLane"]


def crash_once() -> None:
    """End the process as kill -9 does, unless one before it ended here."""
    crashed = Path(os.environ["CRASHED"])
    if not crashed.exists():
        crashed.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _crashing(method: Callable[..., Any], *, before: bool) -> Callable[..., Any]:
    def crash(*args: Any, **kwargs: Any) -> Any:
        if before:
            crash_once()
        answer = method(*args, **kwargs)
        crash_once()
        return answer

    return crash


match os.environ.get("CRASH_AT"):
    case "accepted":
        Ledger.record = _crashing(Ledger.record, before=True)  # type: ignore[method-assign]
    case "committed":
        Ledger.record = _crashing(Ledger.record, before=False)  # type: ignore[method-assign]
    case "republished":
        MailQueue.put_later = _crashing(MailQueue.put_later, before=False)  # type: ignore[method-assign]
