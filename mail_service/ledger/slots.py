"""
Attempts in flight under a limit on how many there may be: a row for each, written with its claim.

A row whose owner is gone does not count: nobody is at work there any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mail_service.ledger import owner, tables
from mail_service.ledger.dialects import insert_into

_slot = tables.limit_slot.c


def lock(connection: Connection, keys: Iterable[str]) -> None:
    """
    Let nobody else take a slot under *keys* before this transaction ends.

    In the order of the keys, so that two groups in two processes never wait for each other; a writer of SQLite is alone
    anyway.
    """
    if connection.dialect.name != "postgresql":
        return
    for key in sorted(keys):
        connection.execute(_lock, {"key": key})


_lock = sa.text("select pg_advisory_xact_lock(hashtextextended('mail_service limit ' || :key, 0))")


def taken(connection: Connection, key: str, *, but: str | None = None, mail_id: str | None = None) -> int:
    """Slots under *key* whose owner may be alive, those of the owner *but* left out, and that of the mail *mail_id*."""
    query = sa.select(_slot.owner, sa.func.max(_slot.owned_until), sa.func.count()).where(_slot.key == key)
    if mail_id is not None:
        query = query.where(_slot.mail_id != mail_id)
    count, gone = 0, []
    for whose, until, number in connection.execute(query.group_by(_slot.owner)):
        if whose == but:
            continue
        if owner.may_be_alive(whose, until):
            count += number
        else:
            gone.append(whose)
    if gone:
        connection.execute(sa.delete(tables.limit_slot).where(_slot.key == key, _slot.owner.in_(gone)))
    return count


def take(connection: Connection, slots: Mapping[str, Sequence[str]], *, me: str, until: str) -> None:
    """Take a slot for each mail under each of its keys; *slots* are keys by the mails' ids."""
    rows: list[dict[str, Any]] = [
        {"key": key, "mail_id": mail_id, "owner": me, "owned_until": until}
        for mail_id, keys in sorted(slots.items())
        for key in sorted(keys)
    ]
    if not rows:
        return
    statement = insert_into(connection, tables.limit_slot)
    statement = statement.on_conflict_do_update(
        index_elements=["key", "mail_id"],
        set_={name: statement.excluded[name] for name in ("owner", "owned_until")},
    )
    connection.execute(statement, rows)


def free(connection: Connection, mail_ids: Sequence[str]) -> None:
    """The attempts of these mails are over."""
    connection.execute(sa.delete(tables.limit_slot).where(_slot.mail_id.in_(mail_ids)))
