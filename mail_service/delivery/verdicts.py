"""What an attempt ends in: exactly one of these, or a Backoff that is raised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mail_service.delivery.settling import Settled
from mail_service.ledger.records import Change, Mail


@dataclass(frozen=True, slots=True, kw_only=True)
class Postponed:
    """Nothing was attempted; this copy, or its successor, comes back later."""

    delay_ms: int
    mail: Mail


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """This copy is of no use: its mail is as *mail* says."""

    mail: Mail


@dataclass(frozen=True, slots=True, kw_only=True)
class Misplaced:
    """The id belongs to another mail: this one goes to the error log under an id of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """An attempt, with what it made of the mail. *change* is complete for a final mail only."""

    settled: Settled
    change: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack:
    """The mail waits for its mailer, whether it was attempted or not; *change* is complete but for the time."""

    change: Change
    delay_ms: int
    #: nobody was told yet that it is held, and why
    is_news: bool
    #: it waits for its turn with the limit of this key, however long that takes
    turn: str | None = None
    #: the keys whose turn it has had, and keeps
    passed: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """Nothing was attempted; this copy waits for its turn with the limit of *key*."""

    key: str
    #: the keys whose turn it has had, and keeps
    passed: Sequence[str]
    #: as it is to stand in the ledger: held
    mail: Mail
    #: it waits long enough for somebody to ask about it
    is_noted: bool


Verdict = SetAside | Postponed | Dropped | Misplaced | Tried | HeldBack


def made_use(result: object, exc: BaseException | None, key: str) -> bool:
    """Whether what the handler answered, or raised, took up the turn that the mail had with *key*."""
    match exc or result:
        case SetAside(passed=passed):
            return key in passed
        case HeldBack(turn=turn, change=change, passed=passed):
            return key in passed if turn is not None else bool(change.attempts)
        case Tried(change=change):
            return bool(change.attempts)
        case None | Postponed() | Dropped() | Misplaced():
            return False
    return True
