"""
Work that one process of many does from time to time: a row that is taken, for a while.

Whoever dies with it loses it when that while is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mail_service import clock
from mail_service.ledger import owner, tables
from mail_service.ledger.database import Database
from mail_service.ledger.dialects import insert_into

_chore = tables.chore.c


@dataclass(frozen=True, slots=True)
class _Wish:
    name: str
    me: str
    every_s: float
    lease_s: float


class Chore:
    """
    One kind of work. All methods raise StoreDown when the database is away.

    Args:
        every_s: Seconds from one end to the next start.
        lease_s: Seconds for which it is taken, or kept.
    """

    def __init__(self, database: Database, name: str, *, every_s: float, lease_s: float) -> None:
        self._database = database
        self._wish = _Wish(name, owner.this_process(), every_s, lease_s)

    def take(self) -> bool:
        """Whether it is due, and ours now."""
        taken: bool = self._database.write(_take_all, self._wish)
        return taken

    def keep(self) -> bool:
        """Whether it is still ours, which it is then for another while."""
        still: bool = self._database.write(_keep_all, self._wish)
        return still

    def done(self) -> None:
        """It is due again after *every_s*."""
        self._database.write(_finish_all, self._wish)


def _take_all(connection: Connection, wishes: Sequence[_Wish]) -> list[bool]:
    return [_take(connection, wish) for wish in wishes]


def _take(connection: Connection, wish: _Wish) -> bool:
    connection.execute(insert_into(connection, tables.chore).on_conflict_do_nothing(), {"name": wish.name})
    now = clock.now()
    due = sa.or_(_chore.done_at.is_(None), _chore.done_at <= clock.iso(now - timedelta(seconds=wish.every_s)))
    is_free = sa.or_(_chore.owner.is_(None), _chore.owner == wish.me, _chore.owned_until < clock.iso(now))
    return _update(connection, wish, due, is_free, owner=wish.me, owned_until=_until(wish))


def _keep_all(connection: Connection, wishes: Sequence[_Wish]) -> list[bool]:
    return [_update(connection, wish, _chore.owner == wish.me, owned_until=_until(wish)) for wish in wishes]


def _finish_all(connection: Connection, wishes: Sequence[_Wish]) -> list[bool]:
    return [_update(connection, wish, _chore.owner == wish.me, owner=None, done_at=clock.now_iso()) for wish in wishes]


def _until(wish: _Wish) -> str:
    return clock.iso(clock.later(wish.lease_s))


def _update(connection: Connection, wish: _Wish, *where: sa.ColumnElement[bool], **values: str | None) -> bool:
    return (
        connection.execute(sa.update(tables.chore).where(_chore.name == wish.name, *where).values(values)).rowcount > 0
    )
