"""
What every process has to know before an attempt: which mailers are held. (``pauses`` is the other part.)

Each change raises one number, the revision. A claim reads it in its own transaction, so that a process hears of a
change before it makes another attempt, without asking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mail_service import clock
from mail_service.ledger import tables
from mail_service.ledger.database import Database
from mail_service.ledger.dialects import insert_into, printable
from mail_service.ledger.ledger import Ledger


class Reason(StrEnum):
    """Why a mailer is held."""

    #: somebody has to mend something: a key, a domain, a certificate
    CONFIGURATION = "configuration"
    #: the provider asked for a slower pace
    THROTTLED = "throttled"
    #: several mails in a row met a provider that does not work
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Mail through *mailer* (of *sender* alone, where one is named) waits. The same in every process."""

    #: the mailer's key: its name, and its tenant where it belongs to one
    mailer: str
    #: the bare address in From whose mail alone is held; empty for all of the mailer's mail
    sender: str = ""
    reason: Reason
    #: what the provider said, or the error's text; may contain addresses: never logged
    text: str
    #: ISO 8601
    since: str
    #: ISO 8601; nobody tries before
    until: str


class Holdings:
    """What is shared about mailers. All methods but `revision` raise StoreDown."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger

    @property
    def revision(self) -> int:
        """As this process last heard of it."""
        return self._ledger.revision

    def holds(self) -> tuple[int, Sequence[Hold]]:
        """The revision, and all holds."""
        answer: tuple[int, Sequence[Hold]] = self._database.read(_all)
        # else whoever compares would ask again before every attempt
        self._ledger.revision = max(self._ledger.revision, answer[0])
        return answer

    def put(self, hold: Hold) -> bool:
        """Write a hold, or its new ``until``. Answers whether it is new."""
        answer: bool = self._database.write(_put_all, hold)
        return answer

    def remove(self, mailer: str, sender: str) -> Hold | None:
        """Remove a hold, and answer it; None when somebody else has."""
        answer: Hold | None = self._database.write(_remove_all, (mailer, sender))
        return answer

    def probe_now(self) -> None:
        """The next mail of every held mailer is a probe."""
        self._database.write(_probe_all, None)


#: makes every process look again
next_revision = sa.update(tables.shared).values(revision=tables.shared.c.revision + 1)


def _all(connection: Connection) -> tuple[int, Sequence[Hold]]:
    # the revision first: what changes in between is seen again
    revision = connection.execute(sa.select(tables.shared.c.revision)).scalar_one()
    return revision, [_hold(row) for row in connection.execute(sa.select(tables.hold))]


def _hold(row: sa.Row[tuple[object, ...]]) -> Hold:
    facts = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    return Hold(**{**facts, "reason": Reason(str(facts["reason"]))})


def _put_all(connection: Connection, holds: Sequence[Hold]) -> list[bool]:
    answers = []
    for hold in holds:
        values = asdict(hold) | {"reason": str(hold.reason), "text": printable(hold.text)}
        key = (tables.hold.c.mailer == hold.mailer, tables.hold.c.sender == hold.sender)
        inserted = connection.execute(
            insert_into(connection, tables.hold).values(values).on_conflict_do_nothing().returning(tables.hold.c.mailer)
        ).first()
        if inserted is None:
            connection.execute(sa.update(tables.hold).where(*key).values(until=hold.until))
        answers.append(inserted is not None)
    connection.execute(next_revision)
    return answers


def _remove_all(connection: Connection, keys: Sequence[tuple[str, str]]) -> list[Hold | None]:
    answers = []
    for mailer, sender in keys:
        row = connection.execute(
            sa.delete(tables.hold)
            .where(tables.hold.c.mailer == mailer, tables.hold.c.sender == sender)
            .returning(*tables.hold.c)
        ).first()
        answers.append(_hold(row) if row else None)
    connection.execute(next_revision)
    return answers


def _probe_all(connection: Connection, wishes: Sequence[None]) -> list[None]:
    connection.execute(sa.update(tables.hold).values(until=clock.now_iso()))
    connection.execute(next_revision)
    return [None] * len(wishes)
