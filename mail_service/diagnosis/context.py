"""What is known about an attempt besides its error: who was asked, and how far the conversation had come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

#: Where an attempt was when it ended. ``data`` waits for the server's leave to send the content, ``body`` is everything
#: from the content's first byte to the server's answer to its end: only from there on a mail can have been accepted.
Stage: TypeAlias = Literal["connect", "helo", "starttls", "auth", "mail", "rcpt", "data", "body", "quit"]

#: nothing of the mail can have been accepted yet
BEFORE_CONTENT: frozenset[Stage] = frozenset({"connect", "helo", "starttls", "auth", "mail", "rcpt", "data"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The circumstances of a failure, the second argument of every classifier."""

    #: the mailer's name in the configuration
    mailer: str = ""
    #: dotted path of its backend
    backend: str = ""
    #: None when nobody can tell, as with most backends that are not ours
    stage: Stage | None = None
    #: 1 for the first; 0 when not known
    attempt: int = 0
    #: for waits that are given as a date; None asks the clock
    now: datetime | None = None


class DeadlineExceeded(TimeoutError):
    """An attempt took longer than ``mail.attempt_timeout``: its outcome is unknown, whatever stage it was in."""
