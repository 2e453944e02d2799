"""
What every process has to know before an attempt, such as which mailers are held (``holdings``) and what is paused
(``pauses``).

Each change raises one number, the revision. A claim reads it in its own transaction, so that a process hears of a
change before it makes another attempt, without asking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mail_service.ledger import tables
from mail_service.ledger.database import Database
from mail_service.ledger.ledger import Ledger

T = TypeVar("T")

#: makes every process look again
next_revision = sa.update(tables.shared).values(revision=tables.shared.c.revision + 1)


class Shared:
    """A list that all processes share."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger

    @property
    def revision(self) -> int:
        """As this process last heard of it."""
        return self._ledger.revision

    def _look(self, select: Callable[[Connection], Sequence[T]]) -> tuple[int, Sequence[T]]:
        """The revision, and what *select* finds. Raises StoreDown."""

        def look(connection: Connection) -> tuple[int, Sequence[T]]:
            # the revision first: what changes in between is seen again
            return connection.execute(sa.select(tables.shared.c.revision)).scalar_one(), select(connection)

        answer: tuple[int, Sequence[T]] = self._database.read(look)
        # else whoever compares would ask again before every attempt
        self._ledger.revision = max(self._ledger.revision, answer[0])
        return answer
