"""All that stands in the ledger about one mail, for those who are to explain it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mail_service import clock
from mail_service.envelope import Envelope
from mail_service.errors import InvalidMessage, NotFound
from mail_service.ledger import owner, tables
from mail_service.ledger.database import Database
from mail_service.ledger.ledger import mail_columns, mail_of
from mail_service.ledger.records import Attempt, Mail


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What is known about a mail."""

    mail: Mail
    attempts: Sequence[Attempt] = ()
    #: a process has it in hand at this moment, as far as anybody can tell
    is_being_attempted: bool = False
    #: its process ended in the middle of an attempt, and no other one has settled that yet
    is_interrupted: bool = False
    #: it can be replayed
    has_content: bool = False
    #: the option, ISO 8601, where the content is kept
    expires_at: str | None = None


def history(database: Database, mail_id: str) -> History:
    """Raises NotFound, or StoreDown."""
    answer: History = database.read(lambda connection: _history(connection, mail_id))
    return answer


def _history(connection: Connection, mail_id: str) -> History:
    columns = tables.mail.c
    query = sa.select(*mail_columns(), columns.owner, columns.owned_until, columns.content)
    row = connection.execute(query.where(columns.id == mail_id)).first()
    if row is None:
        raise NotFound(f"no mail has the id {mail_id!r}")
    attempts = connection.execute(
        sa.select(tables.attempt).where(tables.attempt.c.mail_id == mail_id).order_by(tables.attempt.c.n)
    )
    lives = row.owner is not None and owner.may_be_alive(row.owner, row.owned_until)
    return History(
        mail=mail_of(row),
        attempts=[
            Attempt(
                at=each.at,
                mailer=each.mailer,
                diagnosis=each.diagnosis,
                text=each.text,
                milliseconds=each.milliseconds,
                recipients=json.loads(each.recipients),
            )
            for each in attempts
        ],
        is_being_attempted=lives,
        is_interrupted=row.owner is not None and not lives,
        has_content=bool(row.content),
        expires_at=expiry_of(bytes(row.content or b"")),
    )


def expiry_of(content: bytes) -> str | None:
    """The option ``expires_at`` of a mail with this content, ISO 8601."""
    try:
        given = Envelope.parse(content).options.get("expires_at")
        return clock.iso(clock.parse(given)) if given else None
    except (InvalidMessage, TypeError, ValueError, OverflowError):
        return None
