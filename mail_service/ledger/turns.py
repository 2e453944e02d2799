"""
What all processes share about limits: how far each is used, and which queues mail waits in for its turn.

The time is the database's, so that hosts whose clocks differ keep the same limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mail_service import clock
from mail_service.envelope import ReplyTo
from mail_service.ledger import owner, slots, tables
from mail_service.ledger.database import Database
from mail_service.ledger.dialects import insert_into
from mail_service.ledger.ledger import dismiss_waiters, index_recipients, insert_absent, locked_rows, values_of
from mail_service.ledger.records import Mail
from mail_service.ledger.suppressions import screened
from mail_service.limits.bucket import Count, Grant, grant
from mail_service.outcome import WAITING, Status
from mail_service.settings import Limit

#: until who meets another process at the same limit asks again, seconds
COLLISION_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A process asks for turns."""

    key: str
    limit: Limit
    wanted: int
    #: turns that it was given before and did not use
    unused: int = 0
    #: attempts that it has in flight under this key, or is about to begin
    under_way: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnQueue:
    """A queue in which mail waits for its turn."""

    name: str
    key: str
    lane: str
    part: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """A mail is about to wait for its turn: as it is to stand in the ledger, ``held``, and its envelope's bytes."""

    mail: Mail
    content: bytes
    #: it was put on its way by a replay, and may reopen a mail that is final
    replay: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What became of an `Aside`."""

    mail: Mail
    #: it was not held before, or for another reason
    is_news: bool
    waiters: Sequence[ReplyTo] = ()


class Turns:
    """All methods raise StoreDown."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._me = owner.this_process()

    def ask(self, wish: Wish) -> Grant:
        """Be given turns, or a time at which to ask again."""
        answer: Grant = self._database.write(self._ask_all, wish)
        return answer

    def enter(self, key: str, concurrency: int, mail_id: str, until: str) -> bool:
        """Take a slot for an attempt that has its claim already. Answers whether there was one."""
        answer: bool = self._database.write(self._enter_all, (key, concurrency, mail_id, until))
        return answer

    def queues(self) -> list[TurnQueue]:
        """All that were ever used."""
        answer: list[TurnQueue] = self._database.read(_queues)
        return answer

    def register(self, queue: TurnQueue) -> None:
        """Make a queue known to every process."""
        self._database.write(_register_all, queue)

    def note(self, aside: Aside) -> Noted:
        """Write down that a mail waits for its turn, unless it has gone on meanwhile."""
        answer: Noted = self._database.write(_note_all, aside)
        return answer

    def counts(self) -> dict[str, Count]:
        """How far each limit is used."""
        answer: dict[str, Count] = self._database.read(_counts)
        return answer

    def _ask_all(self, connection: Connection, wishes: Sequence[Wish]) -> list[Grant]:
        now = _now(connection)
        counts: dict[str, Count | None] = {}
        for key in sorted({wish.key for wish in wishes}):
            counts[key] = _own(connection, key)
        answers = []
        for wish in wishes:
            count = counts[wish.key]
            if count is None:
                answers.append(Grant(again_s=COLLISION_S))
                continue
            free = None
            if wish.limit.concurrency is not None:
                others = slots.taken(connection, wish.key, but=self._me)
                free = wish.limit.concurrency - others - wish.under_way
            counts[wish.key], answer = grant(
                wish.limit, count, now=now, wanted=wish.wanted, unused=wish.unused, free=free
            )
            answers.append(answer)
        for key, count in counts.items():
            if count is not None:
                values = {"tat": count.tat, "day": count.day, "used": count.used}
                connection.execute(sa.update(tables.limit_count).where(tables.limit_count.c.key == key).values(values))
        return answers

    def _enter_all(self, connection: Connection, wishes: Sequence[tuple[str, int, str, str]]) -> list[bool]:
        slots.lock(connection, {key for key, *_ in wishes})
        answers = []
        for key, concurrency, mail_id, until in wishes:
            # the parts of one mail go one after the other
            has_room = slots.taken(connection, key, mail_id=mail_id) < concurrency
            if has_room:
                slots.take(connection, {mail_id: [key]}, me=self._me, until=until)
            answers.append(has_room)
        return answers


def _now(connection: Connection) -> float:
    if connection.dialect.name == "postgresql":
        return float(connection.execute(sa.text("select extract(epoch from clock_timestamp())")).scalar_one())
    return clock.now().timestamp()


_row = sa.select(tables.limit_count.c.tat, tables.limit_count.c.day, tables.limit_count.c.used)


def _own(connection: Connection, key: str) -> Count | None:
    """The count of *key*, which nobody else changes before this transaction ends; None while another process has it."""
    # never waited for: the rows of mails are locked in the same transaction
    query = _row.where(tables.limit_count.c.key == key).with_for_update(skip_locked=True)
    row = connection.execute(query).first()
    if row is not None:
        return Count(tat=row.tat, day=row.day, used=row.used)
    values = {"key": key, "tat": 0.0, "day": "", "used": 0}
    statement = insert_into(connection, tables.limit_count).values(values).on_conflict_do_nothing()
    inserted = connection.execute(statement.returning(tables.limit_count.c.key)).first()
    return Count() if inserted is not None else None


def _queues(connection: Connection) -> list[TurnQueue]:
    return [TurnQueue(**row._mapping) for row in connection.execute(sa.select(tables.turn_queue))]  # noqa: SLF001 - SQLAlchemy's public name for it


def _register_all(connection: Connection, queues: Sequence[TurnQueue]) -> list[None]:
    rows = [{"name": each.name, "key": each.key, "lane": each.lane, "part": each.part} for each in queues]
    rows.sort(key=lambda row: str(row["name"]))
    connection.execute(insert_into(connection, tables.turn_queue).on_conflict_do_nothing(), rows)
    return [None] * len(queues)


def _counts(connection: Connection) -> dict[str, Count]:
    found = connection.execute(sa.select(tables.limit_count))
    return {row.key: Count(tat=row.tat, day=row.day, used=row.used) for row in found}


def _note_all(connection: Connection, asides: Sequence[Aside]) -> list[Noted]:
    by_id = {aside.mail.id: aside for aside in asides}
    rows = locked_rows(connection, by_id)
    fresh = {mail.id: mail for mail in screened(connection, [a.mail for i, a in by_id.items() if i not in rows])}
    inserted = insert_absent(connection, fresh.values())
    held: dict[str, Mail] = {mail_id: fresh[mail_id] for mail_id in inserted}
    for mail_id, row in rows.items():
        known = _still_to_do(row.mail, by_id[mail_id]) if row.owner is None else None
        if known is not None:
            held[mail_id] = _held(known, by_id[mail_id].mail)
            values = {name: value for name, value in values_of(held[mail_id]).items() if name in _CHANGED}
            connection.execute(sa.update(tables.mail).where(tables.mail.c.id == mail_id).values(values))
    for mail_id in held:
        kept = sa.update(tables.mail).where(tables.mail.c.id == mail_id, tables.mail.c.content.is_(None))
        connection.execute(kept.values(content=by_id[mail_id].content))
    index_recipients(connection, list(held.values()))
    waiters = dismiss_waiters(connection, sorted(held))
    answers = []
    for aside in asides:
        mail_id = aside.mail.id
        before = rows[mail_id].mail if mail_id in rows else None
        mail = held.get(mail_id) or before or aside.mail
        is_news = mail_id in held and (before is None or (before.status, before.error) != (mail.status, mail.error))
        answers.append(Noted(mail=mail, is_news=is_news, waiters=waiters.get(mail_id, ())))
    return answers


_CHANGED = (
    *("status", "recipients", "error", "next_attempt_at", "updated_at"),
    *("generation", "not_before", "attempts", "deaths"),
)


def _still_to_do(known: Mail, aside: Aside) -> Mail | None:
    """The mail as it stands, where the copy that is put aside is the newest of one that waits; else None."""
    copy = aside.mail
    if known.digest != copy.digest or known.generation > copy.generation:
        return None
    if known.generation == copy.generation:
        return known if known.status in WAITING else None
    # we are faster than what those write down next who have put this copy on its way
    if known.status in WAITING:
        not_before = min(known.not_before, clock.now_iso()) if known.not_before else None
        return replace(known, generation=copy.generation, not_before=not_before)
    return known.reopened(copy.generation) if aside.replay else None


def _held(known: Mail, copy: Mail) -> Mail:
    return replace(
        known,
        status=Status.HELD,
        recipients=known.with_open(Status.HELD, copy.error),
        error=copy.error,
        next_attempt_at=copy.next_attempt_at,
        updated_at=copy.updated_at,
    )
