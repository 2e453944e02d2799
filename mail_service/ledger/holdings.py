"""Which mailers are held, in all processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mail_service import clock
from mail_service.ledger import tables
from mail_service.ledger.dialects import insert_into, printable
from mail_service.ledger.shared import Shared, next_revision


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


class Holdings(Shared):
    """What is shared about mailers. All methods but `revision` raise StoreDown."""

    def holds(self) -> tuple[int, Sequence[Hold]]:
        """The revision, and all holds."""
        return self._look(lambda connection: [_hold(row) for row in connection.execute(sa.select(tables.hold))])

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
