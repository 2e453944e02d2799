"""
The operator's side of the ledger: look at what failed, put it back on its way, or be done with it.

Every mail that ended other than ``sent`` is an entry, with its content and all its attempts.
"""

from __future__ import annotations

import base64
import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import eventlet
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mail_service import clock
from mail_service.arguments import as_limit, as_text, as_time
from mail_service.envelope import Envelope
from mail_service.errors import InvalidMessage, NotFound
from mail_service.ledger import tables
from mail_service.ledger.database import Database
from mail_service.ledger.ledger import find_mail, mail_columns, mail_of, recipient_key
from mail_service.ledger.purging import purge
from mail_service.ledger.records import Mail
from mail_service.outcome import FINAL, Status

ENTRY_STATUSES = tuple(sorted(str(status) for status in FINAL - {Status.SENT}))
FINAL_STATUSES = tuple(sorted(str(status) for status in FINAL))
SLICE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which mails are meant; what is None does not matter."""

    status: tuple[str, ...] | None = None
    mailer: str | None = None
    recipient: str | None = None
    tenant: str | None = None
    since: str | None = None
    until: str | None = None
    limit: int | None = None
    after: str | None = None
    #: no filter that is asked for: what a pause holds is found by these
    priority: str | None = None
    error_begins: str | None = None

    @classmethod
    def parse(cls, filters: Mapping[str, Any], *, also: Sequence[str] = ()) -> Filter:
        """Raises InvalidMessage naming the filter. *also* are the names allowed beyond those of a record's facts."""
        allowed = ["status", "mailer", "recipient", "tenant", "since", "until", *also]
        for name in filters:
            if name not in allowed:
                near = difflib.get_close_matches(name, allowed, 1)
                raise InvalidMessage(name, "is no filter" + (f"; did you mean {near[0]}?" if near else ""))
        return cls(**{name: _CHECKS[name](name, value) for name, value in filters.items() if value is not None})


def _statuses(_name: str, value: Any) -> tuple[str, ...]:
    statuses = (value,) if isinstance(value, str) else value
    if not isinstance(statuses, list | tuple) or not all(isinstance(s, str) and s in set(Status) for s in statuses):
        raise InvalidMessage("status", f"has to be one or a list of {', '.join(Status)}")
    return tuple(statuses)


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "status": _statuses,
    "mailer": as_text,
    "recipient": as_text,
    "tenant": as_text,
    "since": as_time,
    "until": as_time,
    "limit": lambda _name, value: as_limit(value),
    "after": as_text,
}


class ErrorLog:
    """All methods raise StoreDown when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, wanted: Filter) -> list[dict[str, Any]]:
        """Records, newest first."""
        mails: list[Mail] = self._database.read(lambda connection: _find(connection, wanted, ENTRY_STATUSES))
        return [mail.record() for mail in mails]

    def entry(self, mail_id: str) -> dict[str, Any]:
        """All there is about one mail. Raises NotFound, also for a mail that was sent: its content is not kept."""
        answer: dict[str, Any] = self._database.read(lambda connection: _entry(connection, mail_id))
        return answer

    def contents(self, wanted: Filter | str, statuses: Sequence[str]) -> Iterator[tuple[Mail, bytes]]:
        """
        The mails meant by a filter or an id whose status is one of *statuses*, with the bytes of their envelopes.

        Read in slices, in the order of their ids, so that any number of them fits. Raises NotFound for an unknown id.
        """
        if isinstance(wanted, str):
            pair = self._database.read(lambda connection: _content(connection, wanted))
            if pair is None:
                raise NotFound(f"no mail has the id {wanted!r}")
            mail, content = pair
            if mail.status in statuses:
                yield mail, content or b""
            return
        last = ""
        while slice_ := self._database.read(partial(_contents, wanted=wanted, statuses=statuses, last=last)):
            yield from slice_
            last = slice_[-1][0].id

    def put_back(self, mail: Mail) -> None:
        """A newer copy of *mail* is on its way; nothing happens if a worker has taken it already."""
        self._database.write(_put_back_all, mail)

    def discard(self, wanted: Filter | str) -> list[str]:
        """Mark entries as dealt with. Raises NotFound for an unknown id; answers the ids that were changed."""
        answer: list[str] = self._database.write(_discard_all, wanted)
        return answer

    def purge(self, *, older_than_days: float, status: str) -> int:
        """Delete final mails that did not change for so long; answers how many."""
        before = clock.iso(clock.now() - timedelta(days=older_than_days))
        statuses = FINAL_STATUSES if status == "all" else (status,)
        # somebody waits for the answer, and mail shall not wait for somebody
        return sum(purge(self._database, each, before, eventlet.sleep) for each in statuses)


def _conditions(wanted: Filter, statuses: Sequence[str]) -> list[Any]:
    mail = tables.mail.c
    chosen = [status for status in wanted.status if status in statuses] if wanted.status else statuses
    conditions: list[Any] = [mail.status.in_(chosen)]
    if wanted.mailer is not None:
        conditions.append(mail.mailer == wanted.mailer)
    if wanted.tenant is not None:
        conditions.append(mail.tenant == wanted.tenant)
    if wanted.priority is not None:
        conditions.append(mail.priority == wanted.priority)
    if wanted.error_begins is not None:
        conditions.append(mail.error.startswith(wanted.error_begins, autoescape=True))
    if wanted.since is not None:
        conditions.append(mail.updated_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(mail.updated_at <= wanted.until)
    if wanted.recipient is not None:
        key = recipient_key(wanted.recipient)
        found = sa.select(tables.error_recipient.c.mail_id).where(tables.error_recipient.c.address_key == key)
        conditions.append(mail.id.in_(found))
    return conditions


def _find(connection: Connection, wanted: Filter, statuses: Sequence[str]) -> list[Mail]:
    mail = tables.mail.c
    query = sa.select(*mail_columns()).where(*_conditions(wanted, statuses))
    if wanted.after is not None:
        last = find_mail(connection, wanted.after)
        if last is None:
            raise NotFound(f"after: no mail has the id {wanted.after!r}")
        query = query.where(sa.tuple_(mail.updated_at, mail.id) < sa.tuple_(last.updated_at, last.id))
    query = query.order_by(mail.updated_at.desc(), mail.id.desc()).limit(wanted.limit or 100)
    return [mail_of(row) for row in connection.execute(query)]


def _content(connection: Connection, mail_id: str) -> tuple[Mail, bytes | None] | None:
    query = sa.select(*mail_columns(), tables.mail.c.content).where(tables.mail.c.id == mail_id)
    row = connection.execute(query).first()
    return (mail_of(row), None if row.content is None else bytes(row.content)) if row else None


def _contents(connection: Connection, wanted: Filter, statuses: Sequence[str], last: str) -> list[tuple[Mail, bytes]]:
    mail = tables.mail.c
    query = (
        sa.select(*mail_columns(), mail.content)
        .where(*_conditions(wanted, statuses), mail.id > last, mail.owner.is_(None), mail.content.is_not(None))
        .order_by(mail.id)
        .limit(SLICE)
    )
    return [(mail_of(row), bytes(row.content)) for row in connection.execute(query)]


def _entry(connection: Connection, mail_id: str) -> dict[str, Any]:
    found = _content(connection, mail_id)
    if found is None or found[0].status == Status.SENT:
        raise NotFound(f"the error log has no entry for {mail_id!r}")
    mail, content = found
    attempts = connection.execute(
        sa.select(tables.attempt).where(tables.attempt.c.mail_id == mail_id).order_by(tables.attempt.c.n)
    )
    message, options = _as_handed_in(content)
    return {
        "record": mail.record(),
        "attempts": [
            {
                "at": row.at,
                "mailer": row.mailer,
                "diagnosis": row.diagnosis,
                "text": row.text,
                "recipients": json.loads(row.recipients),
            }
            for row in attempts
        ],
        "message": message,
        "options": options,
    }


def _as_handed_in(content: bytes | None) -> tuple[Any, Mapping[str, Any]]:
    """
    The message and options; for what could not be read, its raw body as text, or as base64 where it is no text.

    None for a message that was forgotten, or cancelled and no worker has seen it yet.
    """
    if content is None:
        return None, {}
    try:
        envelope = Envelope.parse(content)
    except InvalidMessage:
        pass
    else:
        return envelope.message, dict(envelope.options)
    try:
        return content.decode(), {}
    except UnicodeDecodeError:
        return {"raw": base64.b64encode(content).decode()}, {}


def _put_back_all(connection: Connection, mails: Sequence[Mail]) -> list[None]:
    for mail in mails:
        connection.execute(
            sa.update(tables.mail)
            .where(
                tables.mail.c.id == mail.id,
                tables.mail.c.owner.is_(None),
                tables.mail.c.generation < mail.generation,
            )
            .values(
                status=str(mail.status),
                attempts=mail.attempts,
                deaths=mail.deaths,
                generation=mail.generation,
                recipients=json.dumps(mail.recipients, separators=(",", ":")),
                # what could not be read as a mail before is one now
                mailer=mail.mailer,
                tenant=mail.tenant,
                priority=mail.priority,
                door=mail.door,
                digest=mail.digest,
                error=mail.error,
                next_attempt_at=mail.next_attempt_at,
                not_before=mail.not_before,
                updated_at=clock.now_iso(),
            )
        )
    return [None] * len(mails)


def _discard_all(connection: Connection, wishes: Sequence[Filter | str]) -> list[list[str]]:
    return [_discard(connection, wish) for wish in wishes]


def _discard(connection: Connection, wanted: Filter | str) -> list[str]:
    open_entries = [status for status in ENTRY_STATUSES if status != Status.DISCARDED]
    if isinstance(wanted, str):
        if find_mail(connection, wanted) is None:
            raise NotFound(f"no mail has the id {wanted!r}")
        conditions = [tables.mail.c.id == wanted, tables.mail.c.status.in_(open_entries)]
    else:
        conditions = _conditions(wanted, open_entries)
    statement = (
        sa.update(tables.mail)
        .where(*conditions)
        .values(
            status=str(Status.DISCARDED),
            # an older copy that is still under way must not attempt it
            generation=tables.mail.c.generation + 1,
            updated_at=clock.now_iso(),
            next_attempt_at=None,
        )
        .returning(tables.mail.c.id)
    )
    return sorted(connection.execute(statement).scalars())
