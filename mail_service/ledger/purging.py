"""
Delete what is old, a few rows at a time, so that neither claims nor anybody else wait for it.

Each slice is a transaction of its own. Rows that somebody has locked at that moment are passed over, and rows are never
waited for while others are held. Between slices the caller rests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mail_service import clock
from mail_service.ledger import tables
from mail_service.ledger.database import Database

#: rows that are read at a time, and rows that are deleted in one transaction
READ_SLICE, WRITE_SLICE = 2_000, 100
#: contents that are dropped in one
CONTENT_SLICE = 50

#: called after each slice with the seconds that it took
Rest = Callable[[float], None]

_mail = tables.mail.c


@dataclass(frozen=True, slots=True)
class _Old:
    """Final mails in *status* that did not change since *before*."""

    status: str
    before: str

    @property
    def conditions(self) -> list[sa.ColumnElement[bool]]:
        # one status at a time, so that the index has them in order
        return [_mail.status == self.status, _mail.updated_at < self.before, _mail.owner.is_(None)]

    def includes(self, row: Any) -> bool:
        """The same about a row that was looked up by its id."""
        return row.status == self.status and row.updated_at < self.before and row.owner is None


def purge(database: Database, status: str, before: str, rest: Rest) -> int:
    """Delete the mails in *status*, a final one, that did not change since *before*; answers how many."""
    return _all_slices(database, _purge_all, _Old(status, before), rest)


def drop_contents(database: Database, status: str, before: str, rest: Rest) -> int:
    """Drop what is kept of the messages of such mails; answers of how many."""
    old, total, last = _Old(status, before), 0, ("", "")
    while slice_ := database.read(partial(_page, old=old, after=last)):
        with_content = [row.id for row in slice_ if row.has_content]
        for start in range(0, len(with_content), CONTENT_SLICE):
            began = time.monotonic()
            total += database.write(_drop_all, (old, with_content[start : start + CONTENT_SLICE]))
            rest(time.monotonic() - began)
        last = (slice_[-1].updated_at, slice_[-1].id)
        rest(0.0)
    return total


def drop_ended_suppressions(database: Database, rest: Rest) -> int:
    """Take the entries off the list of those who are not mailed whose time is over; answers how many."""
    return _all_slices(database, _end_all, clock.now_iso(), rest)


def _all_slices(database: Database, write: Any, item: Any, rest: Rest) -> int:
    total = 0
    while True:
        began = time.monotonic()
        deleted: int = database.write(write, item)
        total += deleted
        if not deleted:
            return total
        rest(time.monotonic() - began)


def _page(connection: Connection, old: _Old, after: tuple[str, str]) -> Sequence[Any]:
    # whether there is content is not asked for: a search for the few that have some might read the whole table at once
    query = sa.select(_mail.id, _mail.updated_at, _mail.content.is_not(None).label("has_content"))
    query = query.where(*old.conditions, sa.tuple_(_mail.updated_at, _mail.id) > sa.tuple_(*after))
    return connection.execute(query.order_by(_mail.updated_at, _mail.id).limit(READ_SLICE)).all()


def _purge_all(connection: Connection, wishes: Sequence[_Old]) -> list[int]:
    return [_purge(connection, old) for old in wishes]


def _purge(connection: Connection, old: _Old) -> int:
    query = sa.select(_mail.id).where(*old.conditions).order_by(_mail.updated_at).limit(WRITE_SLICE)
    ids = connection.execute(query.with_for_update(skip_locked=True)).scalars().all()
    return connection.execute(sa.delete(tables.mail).where(_mail.id.in_(ids))).rowcount if ids else 0


def _drop_all(connection: Connection, wishes: Sequence[tuple[_Old, Sequence[str]]]) -> list[int]:
    return [_drop(connection, old, ids) for old, ids in wishes]


def _drop(connection: Connection, old: _Old, ids: Sequence[str]) -> int:
    # by their ids alone: SQLite would rather look for the ids among all that are old, which took 200 ms
    query = sa.select(_mail.id, _mail.status, _mail.updated_at, _mail.owner).where(_mail.id.in_(ids))
    rows = connection.execute(query.with_for_update(skip_locked=True))
    still = [row.id for row in rows if old.includes(row)]
    statement = sa.update(tables.mail).where(_mail.id.in_(still)).values(content=None)
    return connection.execute(statement).rowcount if still else 0


def _end_all(connection: Connection, moments: Sequence[str]) -> list[int]:
    entry = tables.suppression.c
    key = sa.tuple_(entry.address_key, entry.tenant)
    return [
        connection.execute(
            sa.delete(tables.suppression).where(
                key.in_(sa.select(entry.address_key, entry.tenant).where(entry.until < moment).limit(WRITE_SLICE))
            )
        ).rowcount
        for moment in moments
    ]
