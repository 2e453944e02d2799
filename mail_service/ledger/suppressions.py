"""
Who is not mailed: addresses and whole domains, for everybody's mail or for one tenant's.

Looked at when a mail becomes known and again in the transaction of each claim, so that nobody is mailed whose
suppression was answered before. Where nobody is suppressed that costs one look at an empty table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mail_service import clock
from mail_service.ledger import tables
from mail_service.ledger.database import Database
from mail_service.ledger.dialects import insert_into, printable
from mail_service.ledger.prepared import Prepared
from mail_service.ledger.records import Mail, Suppression, recipient
from mail_service.outcome import FINAL, Status

#: stands in the detail of a recipient who is on the list
ON_THE_LIST = "is suppressed since"
#: values in one statement; SQLite takes 32,766, PostgreSQL 65,535
SLICE = 10_000

_suppression = tables.suppression.c


def key_of(address: str) -> str:
    """
    What *address* is compared by: ``ann@example.org`` for ``Ann@EXAMPLE.org``.

    The domain in the form that the DNS has (RFC 5891), so that ``bücher.example`` is ``xn--bcher-kva.example``. The
    local part in lower case too, although a server may tell ``Ann`` from ``ann`` (RFC 5321, 2.4): none is known to.
    """
    local, at, domain = address.rpartition("@")
    # a name without a domain is one of the mail server's own people
    return f"{local.casefold()}@{_ascii(domain)}" if at else address.casefold()


def _ascii(domain: str) -> str:
    if not domain.isascii():
        try:
            return domain.encode("idna").decode("ascii").lower()
        except UnicodeError:
            return domain.casefold()
    return domain.lower()


class Suppressions:
    """The list. All methods raise StoreDown when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, entries: Sequence[Suppression]) -> None:
        """Put *entries* on the list, each in the place of one for the same address and tenant."""
        self._database.write(_put_all, entries)

    def remove(self, address: str, tenant: str | None) -> bool:
        """Take an entry off the list. Answers whether it was there."""
        answer: bool = self._database.write(_remove_all, (key_of(address), tenant))
        return answer

    def page(
        self, limit: int, after: str | None, *, tenant: str | None = None, domain: str | None = None
    ) -> list[Suppression]:
        """
        The entries of *limit* addresses, in the order of the addresses, from the first one behind *after*.

        All entries of one address, if there are several for tenants, stand on one page.

        Args:
            tenant: Those that are about this tenant's mail alone; None: all.
            domain: Those of this domain and of the addresses in it, ``@example.org``; None: all.
        """
        conditions = [] if tenant is None else [_suppression.tenant == tenant]
        if domain is not None:
            conditions.append(_suppression.address_key.endswith(key_of(domain), autoescape=True))
        answer: list[Suppression] = self._database.read(lambda connection: _page(connection, limit, after, conditions))
        return answer


def screened(connection: Connection, mails: Iterable[Mail]) -> list[Mail]:
    """*mails*, with whoever waits and is on the list ``suppressed``; runs inside a transaction of somebody's."""
    mails = list(mails)
    if not mails or not _is_anybody.run(connection, [{}])[0][0]:
        return mails
    found = _found(connection, {key for mail in mails for address in mail.open_recipients for key in _keys(address)})
    return [_without(mail, found) for mail in mails] if found else mails


_is_anybody = Prepared(lambda _dialect, _rows: sa.select(sa.exists(sa.select(_suppression.address_key))))


def _keys(address: str) -> list[str]:
    """By which *address* may stand on the list: its own key, and its domain's."""
    key = key_of(address)
    _, at, domain = key.rpartition("@")
    return [key, f"@{domain}"] if at else [key]


def _found(connection: Connection, keys: set[str]) -> Mapping[str, Sequence[Suppression]]:
    """The entries in force, by their keys."""
    found: dict[str, list[Suppression]] = defaultdict(list)
    wanted = sorted(keys)
    for start in range(0, len(wanted), SLICE):
        query = sa.select(tables.suppression).where(_suppression.address_key.in_(wanted[start : start + SLICE]))
        for row in connection.execute(query):
            if row.until is None or row.until > clock.now_iso():
                found[row.address_key].append(_entry(row))
    return found


def _without(mail: Mail, found: Mapping[str, Sequence[Suppression]]) -> Mail:
    recipients = dict(mail.recipients)
    for address in mail.open_recipients:
        entries = [
            entry for key in _keys(address) for entry in found.get(key, ()) if entry.tenant in (None, mail.tenant)
        ]
        if entries:
            recipients[address] = recipient(Status.SUPPRESSED, detail=_detail(entries[0]))
    return replace(mail, recipients=recipients)


def _detail(entry: Suppression) -> str:
    whom = "the domain" if entry.address.startswith("@") else "the address"
    return f"{whom} {ON_THE_LIST} {entry.since}" + (f": {entry.reason}" if entry.reason else "")


def all_are_done(mail: Mail) -> bool:
    """Whether nobody is left to mail, because somebody is suppressed."""
    statuses = {Status(state["status"]) for state in mail.recipients.values()}
    return Status.SUPPRESSED in statuses and statuses <= FINAL


def _put_all(connection: Connection, batches: Sequence[Sequence[Suppression]]) -> list[None]:
    # one statement must not name a row twice: of several entries, the last counts
    newest = {(key_of(entry.address), entry.tenant or ""): entry for batch in batches for entry in batch}
    _insert(connection, newest)
    return [None] * len(batches)


def put_where_none_is(connection: Connection, entries: Iterable[Suppression]) -> None:
    """Put *entries* on the list, but never in the place of one in force; runs inside a transaction of somebody's."""
    newest = {(key_of(entry.address), entry.tenant or ""): entry for entry in entries}
    if newest:
        _insert(connection, newest, _suppression.until <= clock.now_iso())


def _insert(
    connection: Connection,
    entries: Mapping[tuple[str, str], Suppression],
    replaces: sa.ColumnElement[bool] | None = None,
) -> None:
    """By key and tenant. *replaces* says of an entry that is there whether it gives way; without it, all do."""
    values = [
        {**asdict(entry), "address_key": key, "tenant": tenant, "reason": printable(entry.reason)}
        # in one order, so that two processes do not wait for each other
        for (key, tenant), entry in sorted(entries.items())
    ]
    if not values:
        return
    statement = insert_into(connection, tables.suppression)
    statement = statement.on_conflict_do_update(
        index_elements=["address_key", "tenant"],
        set_={name: statement.excluded[name] for name in ("address", "reason", "since", "until")},
        where=replaces,
    )
    connection.execute(statement, values)


def _remove_all(connection: Connection, keys: Sequence[tuple[str, str | None]]) -> list[bool]:
    return [
        connection.execute(
            sa.delete(tables.suppression).where(_suppression.address_key == key, _suppression.tenant == (tenant or ""))
        ).rowcount
        > 0
        for key, tenant in keys
    ]


def _page(
    connection: Connection, limit: int, after: str | None, conditions: Sequence[sa.ColumnElement[bool]]
) -> list[Suppression]:
    keys = (
        sa.select(_suppression.address_key)
        .where(*conditions)
        .distinct()
        .order_by(_suppression.address_key)
        .limit(limit)
    )
    if after is not None:
        keys = keys.where(_suppression.address_key > key_of(after))
    wanted = list(connection.execute(keys).scalars())
    query = sa.select(tables.suppression).where(*conditions).order_by(_suppression.address_key, _suppression.tenant)
    return [
        _entry(row)
        for start in range(0, len(wanted), SLICE)
        for row in connection.execute(query.where(_suppression.address_key.in_(wanted[start : start + SLICE])))
    ]


def _entry(row: sa.Row[tuple[object, ...]]) -> Suppression:
    facts = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    del facts["address_key"]
    return Suppression(**{**facts, "tenant": facts["tenant"] or None})
