"""
Change mail that waits: cancel it, or put it off.

Only what nobody attempts at this moment can be changed, and that is decided in the transaction that changes it. Nothing
is published here: a copy under way learns of the change when it asks to be attempted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mail_service import clock
from mail_service.envelope import ReplyTo
from mail_service.errors import Conflict, NotFound
from mail_service.ledger import tables
from mail_service.ledger.contents import Keeps, everything, kept
from mail_service.ledger.database import Database
from mail_service.ledger.ledger import dismiss_waiters, index_recipients, mail_columns, mail_of, values_of
from mail_service.ledger.records import Mail
from mail_service.outcome import WAITING, Status

CANCELLED = "cancelled before it was sent to everybody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The mail as it stands now."""

    mail: Mail
    #: the envelope's bytes; empty while no worker has seen the mail, whose content is then in the queue alone
    content: bytes = b""
    #: callers who had joined the wait for it
    waiters: Sequence[ReplyTo] = ()


class WaitingMail:
    """All methods raise NotFound, Conflict where the mail does not wait, and StoreDown."""

    def __init__(self, database: Database, *, keeps: Keeps = everything) -> None:
        self._database = database
        self._keeps = keeps

    def cancel(self, mail_id: str) -> Changed:
        """End it as ``discarded``."""
        answer: Changed = self._database.write(_cancel_all, (mail_id, self._keeps))
        return answer

    def put_off(self, mail_id: str, until: str) -> Changed:
        """Have it attempted at *until* (ISO 8601), and not before."""
        answer: Changed = self._database.write(_put_off_all, (mail_id, until))
        return answer


def _cancel_all(connection: Connection, wishes: Sequence[tuple[str, Keeps]]) -> list[Changed]:
    return [_cancel(connection, mail_id, keeps) for mail_id, keeps in wishes]


def _cancel(connection: Connection, mail_id: str, keeps: Keeps) -> Changed:
    mail, content = _that_waits(connection, mail_id)
    error = CANCELLED if mail.error is None else f"{CANCELLED}; last: {mail.error}"
    mail = replace(
        mail,
        status=Status.DISCARDED,
        # a copy that is under way must not attempt it
        generation=mail.generation + 1,
        recipients=mail.with_open(Status.DISCARDED, CANCELLED),
        error=error,
        next_attempt_at=None,
        not_before=None,
        updated_at=clock.now_iso(),
    )
    _write(connection, mail)
    if content and (left := kept(mail, content, keeps)) != content:
        connection.execute(sa.update(tables.mail).where(tables.mail.c.id == mail_id).values(content=left))
    index_recipients(connection, [mail])
    return Changed(mail=mail, content=content, waiters=dismiss_waiters(connection, [mail_id]).get(mail_id, ()))


def _put_off_all(connection: Connection, wishes: Sequence[tuple[str, str]]) -> list[Changed]:
    return [_put_off(connection, mail_id, until) for mail_id, until in wishes]


def _put_off(connection: Connection, mail_id: str, until: str) -> Changed:
    mail, content = _that_waits(connection, mail_id)
    # what is held is let go when its mailer works again, which may be too soon
    status = Status.DEFERRED if mail.attempts else Status.QUEUED
    mail = replace(
        mail,
        status=status,
        recipients=mail.with_open(status, None),
        not_before=until,
        next_attempt_at=until,
        updated_at=clock.now_iso(),
    )
    _write(connection, mail)
    return Changed(mail=mail, content=content)


def _that_waits(connection: Connection, mail_id: str) -> tuple[Mail, bytes]:
    query = sa.select(*mail_columns(), tables.mail.c.owner, tables.mail.c.content)
    row = connection.execute(query.where(tables.mail.c.id == mail_id).with_for_update()).first()
    if row is None:
        raise NotFound(f"no mail has the id {mail_id!r}")
    mail = mail_of(row)
    if mail.status not in WAITING:
        raise Conflict(f"mail {mail_id!r} does not wait: it is {mail.status}")
    if row.owner is not None:
        raise Conflict(f"mail {mail_id!r} does not wait: it is being attempted at this moment")
    return mail, bytes(row.content or b"")


def _write(connection: Connection, mail: Mail) -> None:
    values = {name: value for name, value in values_of(mail).items() if name != "id"}
    connection.execute(sa.update(tables.mail).where(tables.mail.c.id == mail.id).values(values))
