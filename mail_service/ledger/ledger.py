"""
The delivery's side of the ledger: who may attempt a mail, and what came of it.

A mail is claimed before it is handed to a mailer and recorded after, each committed before anything else happens. So
the same id is one mail, whoever hands it in and however often the broker delivers it; a recipient on record as accepted
is never mailed again; and an attempt that was in flight when its process ended is known to be so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mail_service import clock
from mail_service.envelope import ReplyTo
from mail_service.errors import Conflict
from mail_service.ledger import owner, slots, tables
from mail_service.ledger.contents import Keeps, everything, kept
from mail_service.ledger.database import Database, StoreDown
from mail_service.ledger.dialects import insert_by, insert_into, printable
from mail_service.ledger.prepared import Prepared, each
from mail_service.ledger.records import (
    Attempt,
    Change,
    Claim,
    Copy,
    Crowded,
    Granted,
    InFlight,
    Interrupted,
    Mail,
    OtherMail,
    Outstanding,
    PutOff,
    Superseded,
)
from mail_service.ledger.suppressions import put_where_none_is, screened
from mail_service.outcome import WAITING, Status

#: beyond an attempt's own deadline, until a process on another host counts as gone
OWNER_MARGIN_S = 15


@dataclass(frozen=True, slots=True)
class Recorded:
    """A change was committed. *waiters* are the callers who had joined the wait for it."""

    waiters: Sequence[ReplyTo] = ()


class Ledger:
    """All methods wait for their commit and raise StoreDown when there is none."""

    def __init__(
        self, database: Database, *, attempt_timeout_s: float, keeps: Keeps = everything, has_slots: bool = False
    ) -> None:
        self.database = database
        self._keeps = keeps
        #: attempts may be limited in number
        self._record_all = _record_and_free_all if has_slots else _record_all
        #: of what all processes share (``holdings``), as the newest claim saw it
        self.revision = 0
        self._me = owner.this_process()
        self._owned_for = timedelta(seconds=attempt_timeout_s + OWNER_MARGIN_S)
        #: what this process attempts at this moment, and what it could not yet record
        self._in_flight: set[str] = set()
        #: the copies that were granted them, and what was answered
        self._granted: dict[str, tuple[Copy, type[Granted | Interrupted]]] = {}
        #: claims of ours that are perhaps in the database, and that nobody works on
        self._unheard: dict[str, type[Granted | Interrupted]] = {}
        #: what came of attempts and neither the database nor the broker could take
        self._untold: dict[str, Change] = {}

    def claim(self, copy: Copy) -> Claim:
        """Ask to attempt the mail of *copy*. Whoever gets Granted or Interrupted has to `record` what came of it."""
        if untold := self._untold.get(copy.mail.id):
            self.record(untold)
        try:
            answer: Claim = self.database.write(self._claim_all, copy)
        except StoreDown:
            self._doubt(copy)
            raise
        return answer

    def _doubt(self, copy: Copy) -> None:
        """The claim may be committed, and only the answer lost: whoever asks again gets the same one."""
        granted, answer = self._granted.get(copy.mail.id, (None, Granted))
        if granted is copy:
            self._in_flight.discard(copy.mail.id)
            self._unheard[copy.mail.id] = answer

    def record(self, change: Change) -> Recorded:
        """Write down what an attempt made of a mail, and let go of it."""
        if change.content is not None:
            change = replace(change, content=kept(change.mail, change.content, self._keeps))
        try:
            recorded: Recorded = self.database.write(self._record_all, change)
        except StoreDown:
            if change.mail.id in self._in_flight:
                self._untold[change.mail.id] = change
            raise
        self._untold.pop(change.mail.id, None)
        self._in_flight.discard(change.mail.id)
        self._granted.pop(change.mail.id, None)
        return recorded

    def progress(self, mail: Mail) -> None:
        """Write down for which recipients an attempt that goes on is over already: should it die, they are known."""
        self.database.write(_progress_all, (mail, self._me))

    def carried(self, mail_id: str) -> None:
        """What could not be recorded is with the broker, which gives it to us, or another process, again."""
        self._untold.pop(mail_id, None)

    def accept(self, mail: Mail, content: bytes | None = None) -> Mail:
        """
        Make a mail known that the broker has already confirmed; answers it as it stands, if it is known already.

        *content*, the envelope's bytes, is kept where there is none yet, of a mail that waits or was cancelled.
        """
        of_a_discarded = kept(replace(mail, status=Status.DISCARDED), content, self._keeps)
        answer: Mail = self.database.write(_accept_all, (mail, content, of_a_discarded))
        return answer

    def join(self, mail_id: str, digest: str, reply_to: ReplyTo) -> Mail | None:
        """
        Wait for a mail that is already known; answers it as it stands, or None if it is not known.

        A mail that is final or held keeps no waiters: the answer is complete. Raises Conflict for another message.
        """
        answer: Mail | None = self.database.write(_join_all, (mail_id, digest, reply_to))
        return answer

    def find(self, mail_id: str) -> Mail | None:
        """The mail with this id."""
        answer: Mail | None = self.database.read(lambda connection: find_mail(connection, mail_id))
        return answer

    def begin_intake(self, fingerprint: str, mail: Mail, *, redelivered: bool) -> str:
        """
        The id for an event that is about to be accepted: the one it already got, if it is delivered again, else
        *mail*'s.

        An event has no id of its own. Its fingerprint stands in the ledger from before the mail is queued until just
        before the event is acknowledged. Only a redelivered event is looked up: equal events are as many mails as there
        are events.
        """
        answer: str = self.database.write(_begin_intakes, (fingerprint, mail, redelivered))
        return answer

    def end_intake(self, mail_id: str) -> None:
        """The mail is queued; its event is about to be acknowledged."""
        self.database.write(_end_intakes, mail_id)

    def _claim_all(self, connection: Connection, copies: Sequence[Copy]) -> list[Claim]:
        self.revision = _revision.run(connection, [{}])[0].revision
        rows = locked_rows(connection, {copy.mail.id for copy in copies})
        limited = _Limited(connection, copies)
        fresh: dict[str, Mail] = {}
        claimed: dict[str, Mail] = {}
        answers: list[Claim] = []
        for copy in copies:
            claim = limited.within(self._decide(rows.get(copy.mail.id), copy), copy)
            answers.append(claim)
            if isinstance(claim, Granted | Interrupted):
                (claimed if copy.mail.id in rows else fresh)[copy.mail.id] = claim.mail
                rows[copy.mail.id] = Row(claim.mail, self._me, None, is_bare=False)
                self._in_flight.add(copy.mail.id)
                self._unheard.pop(copy.mail.id, None)
                self._granted[copy.mail.id] = (copy, type(claim))
        granted = {mail.id: mail for mail in screened(connection, [c.mail for c in answers if isinstance(c, Granted)])}
        answers = [Granted(mail=granted[c.mail.id]) if isinstance(c, Granted) else c for c in answers]
        until = clock.iso(clock.now() + self._owned_for)
        inserted = insert_absent(
            connection, (fresh | _those(granted, fresh)).values(), owner=self._me, owned_until=until
        )
        _take_over(connection, (claimed | _those(granted, claimed)).values(), self._me, until)
        # somebody else inserted it between our look and our insert: ask again a little later
        lost = fresh.keys() - inserted
        self._in_flight -= lost
        limited.take(but=lost, me=self._me, until=until)
        return [InFlight() if isinstance(claim, Granted) and claim.mail.id in lost else claim for claim in answers]

    def _decide(self, row: Row | None, copy: Copy) -> Claim:
        if row is None:
            return Granted(mail=copy.mail)
        mail = row.mail
        if mail.digest != copy.mail.digest:
            becomes = mail.is_raw and copy.replay and copy.mail.generation > mail.generation
            return Granted(mail=copy.mail) if becomes else OtherMail()
        if row.owner is not None:
            return self._decide_owned(row, copy)
        return self._decide_final(row, copy) if mail.status.is_final else self._decide_waiting(mail, copy)

    @staticmethod
    def _decide_final(row: Row, copy: Copy) -> Claim:
        mail = row.mail
        if copy.replay and copy.mail.generation > mail.generation:
            return Granted(mail=mail.reopened(copy.mail.generation))
        lacks = row.is_bare and mail.status == Status.DISCARDED and _is_same(copy.mail, mail)
        return Superseded(mail=mail, wants_content=lacks)

    @staticmethod
    def _decide_waiting(mail: Mail, copy: Copy) -> Claim:
        if copy.mail.generation < mail.generation:
            return Outstanding(mail=mail) if copy.redelivered else Superseded(mail=mail)
        not_before = mail.not_before
        if not_before is not None and not_before > clock.now_iso():
            if copy.mail.generation == mail.generation:
                return PutOff(mail=mail)
            # somebody has put a newer copy on its way, and we are faster than what they write down next
            not_before = clock.now_iso()
        return Granted(mail=replace(mail, generation=copy.mail.generation, not_before=not_before))

    def _decide_owned(self, row: Row, copy: Copy) -> Claim:
        mail = replace(row.mail, generation=max(row.mail.generation, copy.mail.generation))
        if row.owner == self._me and (answer := self._unheard.get(mail.id)):
            return answer(mail=mail)
        if not self._is_alive(row):
            return Interrupted(mail=mail)
        # The copy that is being attempted comes again when its connection breaks; any other of its turn is a double.
        if copy.redelivered or copy.mail.generation > row.mail.generation:
            return InFlight()
        return Superseded(mail=row.mail)

    def _is_alive(self, row: Row) -> bool:
        if row.owner == self._me:
            return row.mail.id in self._in_flight
        return row.owner is not None and owner.may_be_alive(row.owner, row.owned_until)


class _Limited:
    """Keeps the limits on attempts in flight within one group of claims."""

    def __init__(self, connection: Connection, copies: Sequence[Copy]) -> None:
        self._connection = connection
        keys = {key for copy in copies for key in copy.slots}
        slots.lock(connection, keys)
        self._taken = {key: slots.taken(connection, key) for key in sorted(keys)}
        self._of_mails: dict[str, Sequence[str]] = {}

    def within(self, claim: Claim, copy: Copy) -> Claim:
        """*claim*, or Crowded where it is granted and one attempt more would be too many."""
        if not (copy.slots and isinstance(claim, Granted)):
            return claim
        for key, most in copy.slots.items():
            if self._taken[key] >= most:
                return Crowded(key=key)
        for key in copy.slots:
            self._taken[key] += 1
        self._of_mails[copy.mail.id] = list(copy.slots)
        return claim

    def take(self, *, but: Iterable[str], me: str, until: str) -> None:
        """Write down what was granted."""
        lost = set(but)
        wanted = {mail_id: keys for mail_id, keys in self._of_mails.items() if mail_id not in lost}
        slots.take(self._connection, wanted, me=me, until=until)


def _those(mails: dict[str, Mail], ids: Iterable[str]) -> dict[str, Mail]:
    return {mail_id: mails[mail_id] for mail_id in ids if mail_id in mails}


@dataclass(frozen=True, slots=True)
class Row:
    """A mail, and who attempts it."""

    mail: Mail
    owner: str | None
    owned_until: str | None
    #: its content is not here: no worker has seen it yet, or it was sent
    is_bare: bool


_MAIL_COLUMNS = (
    "id",
    "status",
    "mailer",
    "tenant",
    "priority",
    "door",
    "attempts",
    "generation",
    "deaths",
    "digest",
    "recipients",
    "submitted_at",
    "updated_at",
    "next_attempt_at",
    "error",
    "not_before",
)
_mail_columns = [tables.mail.c[name] for name in _MAIL_COLUMNS]


def mail_of(row: Any) -> Mail:
    """A Mail from a row that begins with the columns of `mail_columns`."""
    facts = dict(zip(_MAIL_COLUMNS, row, strict=False))
    facts["status"] = Status(facts["status"])
    facts["recipients"] = json.loads(facts["recipients"])
    return Mail(**facts)


def mail_columns() -> list[sa.Column[Any]]:
    """What a select needs for `mail_of`."""
    return _mail_columns


def values_of(mail: Mail) -> dict[str, Any]:
    """The columns of *mail*."""
    values = {name: getattr(mail, name) for name in _MAIL_COLUMNS}
    values["status"] = str(mail.status)
    values["error"] = printable(mail.error) if mail.error else None
    values["recipients"] = json.dumps(mail.recipients, separators=(",", ":"))
    return values


def find_mail(connection: Connection, mail_id: str) -> Mail | None:
    """The mail with this id."""
    row = connection.execute(sa.select(*_mail_columns).where(tables.mail.c.id == mail_id)).first()
    return mail_of(row) if row else None


_revision = Prepared(lambda _dialect, _rows: sa.select(tables.shared.c.revision))


def _build_locking(_dialect: str, rows: int) -> sa.ClauseElement:
    mail = tables.mail.c
    select = sa.select(*_mail_columns, mail.owner, mail.owned_until, mail.content.is_(None).label("is_bare"))
    # locked in the order of their ids, so that two groups in two processes never wait for each other
    return select.where(mail.id.in_(list(each("id", rows)))).order_by(mail.id).with_for_update()


_lock = Prepared(_build_locking)


def locked_rows(connection: Connection, ids: Iterable[str]) -> dict[str, Row]:
    """Those of these mails that are known; nobody else changes them before this transaction ends."""
    found = _lock.run(connection, [{"id": mail_id} for mail_id in sorted(ids)])
    return {row.id: Row(mail_of(row), row.owner, row.owned_until, bool(row.is_bare)) for row in found}


#: what a new row is made of
_NEW_COLUMNS = (*_MAIL_COLUMNS, "owner", "owned_until", "intake")


def _build_insert(dialect: str, rows: int) -> sa.ClauseElement:
    values = [dict.fromkeys(_NEW_COLUMNS)] * rows
    insert: sa.ClauseElement = (
        insert_by(dialect, tables.mail).values(values).on_conflict_do_nothing().returning(tables.mail.c.id)
    )
    return insert


_insert = Prepared(_build_insert)


def insert_absent(
    connection: Connection,
    mails: Iterable[Mail],
    *,
    owner: str | None = None,
    owned_until: str | None = None,
    intake: str | None = None,
) -> set[str]:
    """Insert those *mails* that are not known, with these columns beside their own; answers their ids."""
    more = {"owner": owner, "owned_until": owned_until, "intake": intake}
    values = [{**values_of(mail), **more} for mail in sorted(mails, key=lambda mail: mail.id)]
    return {row.id for row in _insert.run(connection, values)}


#: what a claim may change: a replay begins anew, and may make a mail of what was none
_CLAIMED_COLUMNS = (
    *("status", "attempts", "deaths", "generation", "recipients", "error", "not_before"),
    *("mailer", "tenant", "priority", "door", "digest"),
)

_take = (
    sa.update(tables.mail)
    .where(tables.mail.c.id == sa.bindparam("key"))
    .values({name: sa.bindparam(f"new_{name}") for name in (*_CLAIMED_COLUMNS, "owner", "owned_until")})
)


def _take_over(connection: Connection, mails: Iterable[Mail], me: str, until: str) -> None:
    values = []
    for mail in mails:
        columns = values_of(mail)
        values.append(
            {
                "key": mail.id,
                **{f"new_{name}": columns[name] for name in _CLAIMED_COLUMNS},
                "new_owner": me,
                "new_owned_until": until,
            }
        )
    if values:
        connection.execute(_take, values)


def _record_all(connection: Connection, changes: Sequence[Change]) -> list[Recorded]:
    # two changes of one mail in one group: only the newest can win, and one statement must not name a row twice
    newest = {change.mail.id: change for change in sorted(changes, key=lambda change: change.mail.generation)}
    _upsert(connection, [newest[mail_id] for mail_id in sorted(newest)])
    attempts = [_attempt_values(change.mail, attempt) for change in changes for attempt in change.attempts]
    _insert_attempts.run(connection, attempts)
    put_where_none_is(connection, [entry for change in changes for entry in change.suppressions])
    settled = [change.mail for change in newest.values() if change.mail.status.is_final or _is_held(change.mail)]
    index_recipients(connection, [change.mail for change in newest.values() if change.mail.status != Status.SENT])
    waiters = dismiss_waiters(connection, [mail.id for mail in settled])
    return [Recorded(waiters.get(change.mail.id, ())) for change in changes]


def _progress_all(connection: Connection, items: Sequence[tuple[Mail, str]]) -> list[None]:
    for mail, me in items:
        connection.execute(
            sa.update(tables.mail)
            .where(tables.mail.c.id == mail.id, tables.mail.c.owner == me)
            .values(recipients=values_of(mail)["recipients"])
        )
    return [None] * len(items)


def _record_and_free_all(connection: Connection, changes: Sequence[Change]) -> list[Recorded]:
    slots.free(connection, sorted({change.mail.id for change in changes}))
    return _record_all(connection, changes)


def _is_held(mail: Mail) -> bool:
    return mail.status == Status.HELD


#: what the end of an attempt writes
_SETTLED_COLUMNS = (*_MAIL_COLUMNS, "content", "owner", "owned_until")


def _build_upsert(dialect: str, rows: int) -> sa.ClauseElement:
    statement = insert_by(dialect, tables.mail).values([dict.fromkeys(_SETTLED_COLUMNS)] * rows)
    upsert: sa.ClauseElement = statement.on_conflict_do_update(
        index_elements=["id"],
        set_={name: statement.excluded[name] for name in _SETTLED_COLUMNS if name != "id"},
        # a change that comes late must not undo a newer one
        where=tables.mail.c.generation < statement.excluded.generation,
    )
    return upsert


_upsert_rows = Prepared(_build_upsert)


def _upsert(connection: Connection, changes: Sequence[Change]) -> None:
    free = {"owner": None, "owned_until": None}
    _upsert_rows.run(connection, [{**values_of(change.mail), "content": change.content, **free} for change in changes])


def _build_attempts(dialect: str, rows: int) -> sa.ClauseElement:
    columns = [column.name for column in tables.attempt.c if column.name != "n"]
    # one whose commit was not heard of comes again
    insert: sa.ClauseElement = (
        insert_by(dialect, tables.attempt).values([dict.fromkeys(columns)] * rows).on_conflict_do_nothing()
    )
    return insert


_insert_attempts = Prepared(_build_attempts)


def _attempt_values(mail: Mail, attempt: Attempt) -> dict[str, Any]:
    return {
        "mail_id": mail.id,
        "at": attempt.at,
        "mailer": attempt.mailer,
        "diagnosis": attempt.diagnosis,
        "text": printable(attempt.text),
        "milliseconds": attempt.milliseconds,
        "recipients": json.dumps(attempt.recipients, separators=(",", ":")),
    }


def index_recipients(connection: Connection, mails: Sequence[Mail]) -> None:
    """Make *mails* known by their recipients."""
    values = [
        {"mail_id": mail.id, "address_key": key}
        for mail in mails
        for key in sorted(set(map(recipient_key, mail.recipients)))
    ]
    if values:
        connection.execute(insert_into(connection, tables.error_recipient).on_conflict_do_nothing(), values)


def recipient_key(address: str) -> str:
    """By which the error log finds a recipient."""
    return address.casefold()[:400]


def _build_dismissal(_dialect: str, rows: int) -> sa.ClauseElement:
    waiter = tables.waiter.c
    return sa.delete(tables.waiter).where(waiter.mail_id.in_(list(each("mail_id", rows)))).returning(*waiter)


_dismiss = Prepared(_build_dismissal)


def dismiss_waiters(connection: Connection, ids: Sequence[str]) -> dict[str, list[ReplyTo]]:
    """The callers who had joined the wait for these mails; they wait no longer."""
    waiters: dict[str, list[ReplyTo]] = {}
    for row in _dismiss.run(connection, [{"mail_id": mail_id} for mail_id in ids]):
        reply_to = ReplyTo(routing_key=row.routing_key, correlation_id=row.correlation_id)
        waiters.setdefault(row.mail_id, []).append(reply_to)
    return waiters


def _accept_all(connection: Connection, items: Sequence[tuple[Mail, bytes | None, bytes | None]]) -> list[Mail]:
    mails = {mail.id: mail for mail in screened(connection, {mail.id: mail for mail, *_ in items}.values())}
    inserted = insert_absent(connection, mails.values())
    found = {mail_id: find_mail(connection, mail_id) for mail_id in mails.keys() - inserted}
    known = mails | {mail_id: mail for mail_id, mail in found.items() if mail is not None}
    for mail, content, of_a_discarded in items:
        if content is not None and _is_same(mail, known[mail.id]):
            _keep_content(connection, mail.id, content, WAITING)
            _keep_content(connection, mail.id, of_a_discarded, [Status.DISCARDED])
    return [known[mail.id] for mail, *_ in items]


def _is_same(mail: Mail, known: Mail) -> bool:
    """Forgotten recipients have other names: nothing of such a mail may be kept again."""
    return mail.digest == known.digest and mail.recipients.keys() == known.recipients.keys()


def _keep_content(connection: Connection, mail_id: str, content: bytes | None, statuses: Iterable[Status]) -> None:
    mail = tables.mail.c
    connection.execute(
        sa.update(tables.mail)
        .where(mail.id == mail_id, mail.content.is_(None), mail.status.in_(list(map(str, statuses))))
        .values(content=content)
    )


def _join_all(connection: Connection, joins: Sequence[tuple[str, str, ReplyTo]]) -> list[Mail | None]:
    rows = locked_rows(connection, {mail_id for mail_id, _, _ in joins})
    answers: list[Mail | None] = []
    values = []
    for mail_id, digest, reply_to in joins:
        row = rows.get(mail_id)
        if row and row.mail.digest != digest:
            raise Conflict(f"id {mail_id!r} already belongs to another mail")
        answers.append(row.mail if row else None)
        if row and not row.mail.status.is_final and not _is_held(row.mail):
            values.append(
                {
                    "mail_id": mail_id,
                    "routing_key": reply_to.routing_key,
                    "correlation_id": reply_to.correlation_id,
                }
            )
    if values:
        connection.execute(insert_into(connection, tables.waiter).on_conflict_do_nothing(), values)
    return answers


def _begin_intakes(connection: Connection, intakes: Sequence[tuple[str, Mail, bool]]) -> list[str]:
    answers: list[str] = []
    for fingerprint, mail, redelivered in intakes:
        query = sa.select(tables.mail.c.id).where(tables.mail.c.intake == fingerprint)
        known = [row.id for row in connection.execute(query) if row.id not in answers] if redelivered else []
        if not known:
            insert_absent(connection, screened(connection, [mail]), intake=fingerprint)
        answers.append(known[0] if known else mail.id)
    return answers


def _end_intakes(connection: Connection, ids: Sequence[str]) -> list[None]:
    connection.execute(sa.update(tables.mail).where(tables.mail.c.id.in_(ids)).values(intake=None))
    return [None] * len(ids)
