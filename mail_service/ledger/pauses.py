"""
What somebody has paused, in all processes: mail of a mailer, of a tenant, of a priority, or of any combination.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mail_service import clock
from mail_service.ledger import tables
from mail_service.ledger.dialects import insert_into, printable
from mail_service.ledger.records import Mail
from mail_service.ledger.shared import Shared, next_revision

_CRITERIA = ("mailer", "tenant", "priority")


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Which mail; what is None does not matter."""

    mailer: str | None = None
    tenant: str | None = None
    priority: str | None = None

    def has(self, mail: Mail) -> bool:
        """Whether it is about *mail*."""
        return all(getattr(self, name) in (None, getattr(mail, name)) for name in _CRITERIA)

    def __str__(self) -> str:
        said = [f"{name} {getattr(self, name)}" for name in _CRITERIA if getattr(self, name) is not None]
        return ", ".join(said) or "all mail"

    @property
    def loggable(self) -> str:
        """The same for a log: a tenant may be called by an address."""
        return str(replace(self, tenant="(one)")) if self.tenant is not None else str(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Criteria):
    """What is about it is held."""

    reason: str = ""
    #: ISO 8601
    since: str
    #: ISO 8601; None until somebody resumes it
    until: str | None = None

    @property
    def criteria(self) -> Criteria:
        """What it is about; no two pauses have the same."""
        return Criteria(mailer=self.mailer, tenant=self.tenant, priority=self.priority)

    @property
    def is_over(self) -> bool:
        """Its time has passed."""
        return self.until is not None and self.until <= clock.now_iso()

    @property
    def text(self) -> str:
        """What the record of a mail says that it holds; begins with `HELD_BY_A_PAUSE`."""
        end = f" until {self.until}" if self.until else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"{HELD_BY_A_PAUSE} ({self.criteria}) since {self.since}{end}{reason}"


#: how the ``error`` of a mail begins that a pause holds
HELD_BY_A_PAUSE = "paused"


class PauseList(Shared):
    """As it stands in the database. All methods but `revision` raise StoreDown."""

    def all(self) -> tuple[int, Sequence[Pause]]:
        """The revision, and all pauses."""
        query = sa.select(tables.pause).order_by(_pause.since, _pause.mailer, _pause.tenant, _pause.priority)
        return self._look(lambda connection: [_pause_of(row) for row in connection.execute(query)])

    def put(self, pause: Pause) -> None:
        """Begin *pause*, in the place of one about the same mail."""
        self._database.write(_put_all, pause)

    def end(self, wanted: Criteria) -> list[Pause]:
        """End the pauses with all of what *wanted* names; answers them."""
        answer: list[Pause] = self._database.write(_end_all, wanted)
        return answer

    def end_later(self, wanted: Criteria, until: str) -> list[Pause]:
        """Have them end at *until*; answers them."""
        answer: list[Pause] = self._database.write(_shorten_all, (wanted, until))
        return answer

    def end_overdue(self) -> list[Pause]:
        """End those whose time has passed; answers them to the one process that does."""
        answer: list[Pause] = self._database.write(_end_overdue_all, clock.now_iso())
        return answer


_pause = tables.pause.c


def _pause_of(row: sa.Row[tuple[object, ...]]) -> Pause:
    facts = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    return Pause(**{**facts, **{name: facts[name] or None for name in _CRITERIA}})


def _put_all(connection: Connection, pauses: Sequence[Pause]) -> list[None]:
    for pause in pauses:
        values = asdict(pause) | {name: getattr(pause, name) or "" for name in _CRITERIA}
        statement = insert_into(connection, tables.pause).values(values | {"reason": printable(pause.reason)})
        statement = statement.on_conflict_do_update(
            index_elements=list(_CRITERIA),
            set_={name: statement.excluded[name] for name in ("reason", "since", "until")},
        )
        connection.execute(statement)
    connection.execute(next_revision)
    return [None] * len(pauses)


def _conditions(wanted: Criteria) -> list[Any]:
    return [_pause[name] == getattr(wanted, name) for name in _CRITERIA if getattr(wanted, name) is not None]


def _end_all(connection: Connection, wishes: Sequence[Criteria]) -> list[list[Pause]]:
    ended = [
        connection.execute(sa.delete(tables.pause).where(*_conditions(wanted)).returning(*tables.pause.c)).all()
        for wanted in wishes
    ]
    connection.execute(next_revision)
    return [[_pause_of(row) for row in rows] for rows in ended]


def _shorten_all(connection: Connection, wishes: Sequence[tuple[Criteria, str]]) -> list[list[Pause]]:
    answers = []
    for wanted, until in wishes:
        statement = sa.update(tables.pause).where(*_conditions(wanted)).values(until=until)
        answers.append([_pause_of(row) for row in connection.execute(statement.returning(*tables.pause.c))])
    connection.execute(next_revision)
    return answers


def _end_overdue_all(connection: Connection, moments: Sequence[str]) -> list[list[Pause]]:
    statement = sa.delete(tables.pause).where(_pause.until <= max(moments)).returning(*tables.pause.c)
    ended = [_pause_of(row) for row in connection.execute(statement)]
    if ended:
        connection.execute(next_revision)
    return [ended, *([] for _ in moments[1:])]
