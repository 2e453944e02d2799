"""
Bring an attempt to its end: write down what happened, put the next copy on its way, tell others; then the message may
go.

The order is what nothing is lost by. The ledger is committed before the next copy is published, and both before the old
copy is acknowledged. A crash in between leaves the old copy with the broker; it comes again, marked as redelivered, and
the ledger knows what is left to do. While the database is away, what was to be written travels with the next copy.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn, Protocol

from nameko_amqp_retry import Backoff

from mail_service import clock, topology
from mail_service.amqp.mailqueue import MailQueue, copy_headers
from mail_service.amqp.publisher import PublishFailed, TooLarge
from mail_service.delivery.announcing import Announcer, Report
from mail_service.delivery.copies import Delivery
from mail_service.delivery.settling import ended, expired, waiting
from mail_service.delivery.verdicts import Dropped, HeldBack, Misplaced, Postponed, SetAside, Tried
from mail_service.envelope import Envelope, ReplyTo
from mail_service.errors import Conflict
from mail_service.ledger import Ledger, StoreDown
from mail_service.ledger.records import Attempt, Change, Mail
from mail_service.ledger.turns import Aside, Noted
from mail_service.logs import say
from mail_service.outcome import Kind, Status
from mail_service.storeroom import NO_STORE, Storeroom

_log = logging.getLogger(__name__)

#: headers that a copy loses when it is set aside: it no longer waits for what they say
_NOT_KEPT = (topology.DUE, topology.HELD)
#: puts a copy where it waits for another attempt
Onward = Callable[[Envelope, Mail], None]
#: until a copy comes back that carries what could not be written down, milliseconds
CARRY_MS = 5000


class DelayOf(Protocol):
    """How long a Backoff says to wait: milliseconds with jitter, for a copy with these headers and attempts."""

    def __call__(self, backoff: Backoff, headers: dict[str, object], attempts: int) -> int: ...


class Desk:
    """
    Closes attempts. Every method returns when the message may be acknowledged, and raises PublishFailed if it may not.
    """

    def __init__(
        self,
        ledger: Ledger,
        queue: MailQueue,
        announcer: Announcer,
        *,
        report: Report | None = None,
        count: Callable[[Delivery, Change], None] | None = None,
        storeroom: Storeroom = NO_STORE,
        note: Callable[[Aside], Noted] | None = None,
        wait_in_turn: Callable[..., None] | None = None,
    ) -> None:
        self._storeroom = storeroom
        self._ledger = ledger
        self._queue = queue
        self._announcer = announcer
        self._report = report or _unreported
        self._count = count or _uncounted
        #: writes down that a mail waits for its turn
        self._note = note or _nowhere
        #: puts a copy where it waits: ``Turnstiles.put``
        self._wait_in_turn = wait_in_turn or _nowhere

    def close(self, delivery: Delivery, result: object, exc: BaseException | None, delay_of: DelayOf) -> None:
        """Do what the handler's *result* or *exc* asks for."""
        match exc or result:
            case Backoff() as backoff:
                self._retry(delivery, backoff, delay_of)
            case HeldBack(turn=None) as held:
                self._continue(delivery, held.change, Status.HELD, held.delay_ms, is_news=held.is_news)
            case HeldBack() as held:
                onward = partial(self._wait_for_turn, held)
                self._continue(delivery, held.change, Status.HELD, held.delay_ms, is_news=held.is_news, onward=onward)
            case Tried() as tried:
                self._finish(delivery, tried.change)
            case SetAside() as aside:
                self._set_aside(delivery, aside)
            case Postponed() as postponed:
                self._postpone(delivery, postponed)
            case Dropped() as dropped:
                self._drop(delivery, dropped.mail)
            case Misplaced():
                self._misplace(delivery)
            case BaseException() as problem:
                self._fail(delivery, problem)
            case other:
                self._fail(delivery, TypeError(f"the handler returned {type(other).__name__}, not a verdict"))

    def _postpone(self, delivery: Delivery, postponed: Postponed) -> None:
        """The successor is all that this copy was: what stands in for the only copy must not look like a double."""
        more = {topology.REDELIVERED: True} if delivery.redelivered else {}
        for header in (topology.REPLAY, topology.HELD):
            if delivery.headers.get(header) is True:
                more[header] = True
        self._queue.put_later(delivery.envelope, postponed.mail, postponed.delay_ms, more=more)

    def _set_aside(self, delivery: Delivery, aside: SetAside) -> None:
        """The copy as it is, but where mail waits for its turn; what waits for longer is in the ledger before."""
        envelope = delivery.envelope
        noted = self._noted(delivery, aside) if aside.is_noted else None
        if noted is not None and noted.mail.status == Status.HELD:
            # the caller gets the record of a held mail, and nobody waits for it any longer
            envelope = envelope.without_reply()
        kept = {name: value for name, value in delivery.headers.items() if name not in _NOT_KEPT}
        more = {topology.REDELIVERED: True} if delivery.redelivered else {}
        later = None if noted is not None else partial(self._note_late, delivery, aside)
        self._put_aside(envelope, aside.key, kept | more | {topology.TURNS: list(aside.passed)}, later)
        if noted is not None:
            self._tell_of_turn(delivery, noted)

    def _note_late(self, delivery: Delivery, aside: SetAside) -> None:
        """It waits longer than was to be expected. Never raises."""
        with contextlib.suppress(PublishFailed):
            if noted := self._noted(delivery, aside):
                self._tell_of_turn(delivery, noted)

    def _tell_of_turn(self, delivery: Delivery, noted: Noted) -> None:
        if noted.mail.status != Status.HELD:
            return
        reply_to = delivery.envelope.reply_to
        self._end_in_time(delivery)
        if noted.is_news or noted.waiters or reply_to:
            self._announcer.change(noted.mail, [*([reply_to] if reply_to else []), *noted.waiters])

    def _noted(self, delivery: Delivery, aside: SetAside) -> Noted | None:
        is_replay = delivery.headers.get(topology.REPLAY) is True
        try:
            return self._note(Aside(mail=aside.mail, content=delivery.content, replay=is_replay))
        except StoreDown:
            # it is noted when it comes to be attempted
            return None

    def _end_in_time(self, delivery: Delivery) -> None:
        """Nobody looks at a mail in the middle of a queue: a second copy comes when it expires."""
        end = delivery.options.expires_at
        if end is not None:
            delay_ms = max(0, clock.to_ms(end) - clock.now_ms())
            self._queue.put_later(delivery.envelope.without_reply(), delivery.mail, delay_ms)

    def _wait_for_turn(self, held: HeldBack, envelope: Envelope, mail: Mail) -> None:
        assert held.turn is not None  # noqa: S101 - else it waits for a time
        headers = copy_headers(envelope, mail) | {topology.TURNS: list(held.passed)}
        self._put_aside(envelope, held.turn, headers)

    def _put_aside(
        self, envelope: Envelope, key: str, headers: Mapping[str, Any], later: Callable[[], None] | None = None
    ) -> None:
        body = envelope.body()
        self._wait_in_turn(envelope.lane, key, body, headers=headers, message_id=envelope.id, later=later)

    def _retry(self, delivery: Delivery, backoff: Backoff, delay_of: DelayOf) -> None:
        tried = getattr(backoff, "tried", None)
        # a handler around ours may raise one of its own, before any attempt
        change = tried.change if isinstance(tried, Tried) else self._untried(delivery)
        attempts = change.mail.attempts - 1
        try:
            delay_ms = delay_of(backoff, dict(delivery.envelope.headers()), attempts)
            self._check_expiry(delivery, delay_ms)
        except Backoff.Expired as exc:
            self._finish(delivery, replace(change, mail=expired(change.mail, str(exc))))
        except Exception as exc:  # noqa: BLE001 - a backend's own Backoff may have mistakes
            self._finish(delivery, _broken_off(change, exc))
        else:
            self._continue(delivery, change, Status.DEFERRED, delay_ms)

    def _check_expiry(self, delivery: Delivery, delay_ms: int) -> None:
        end = delivery.options.expires_at
        if end is not None and clock.later(delay_ms / 1000) > end:
            raise Backoff.Expired(f"its next attempt would be later than expires_at {clock.iso(end)}")

    def _continue(
        self,
        delivery: Delivery,
        change: Change,
        status: Status,
        delay_ms: int,
        *,
        is_news: bool = True,
        onward: Onward | None = None,
    ) -> None:
        """
        On to another attempt, by default after *delay_ms*; nobody is told again what is no news.
        """
        mail = waiting(change.mail, status, clock.iso(clock.later(delay_ms / 1000)))
        change = replace(change, mail=mail)
        settled = {address: state for address, state in mail.recipients.items() if Status(state["status"]).is_final}
        envelope = replace(delivery.envelope, settled=settled, unrecorded=())
        callers: Sequence[ReplyTo] = ()
        if status == Status.HELD and envelope.reply_to:
            # the caller gets the record of a held mail, and nobody waits for it any longer
            callers, envelope = [envelope.reply_to], envelope.without_reply()
        try:
            callers = [*callers, *self._ledger.record(change).waiters]
        except StoreDown:
            envelope = replace(envelope, unrecorded=[*delivery.envelope.unrecorded, change.to_json()])
        more = {topology.HELD: True} if status == Status.HELD else {}
        put = onward or partial(self._queue.put_later, delay_ms=delay_ms, more=more)
        try:
            put(envelope, mail)
        except TooLarge:
            # who is settled stands in the ledger too, and the copy that came was small enough
            if envelope.unrecorded:
                raise
            put(replace(delivery.envelope, unrecorded=()), mail)
        self._ledger.carried(mail.id)
        self._count(delivery, change)
        if is_news or callers:
            self._announcer.change(mail, callers)

    def _finish(self, delivery: Delivery, change: Change) -> None:
        """The mail is final."""
        callers = [delivery.envelope.reply_to] if delivery.envelope.reply_to else []
        try:
            callers = [*callers, *self._ledger.record(change).waiters]
        except StoreDown:
            self._carry(delivery.envelope, change)
        else:
            self._storeroom.ended(change.mail, delivery.envelope.message)
        # the end is on record: if this cannot be published, the copy comes back, and this is what is left to do
        self._report(delivery.envelope, change.mail)
        self._count(delivery, change)
        if change.mail.status != Status.SENT:
            say(
                _log,
                logging.WARNING,
                "mail %(id)s ended %(status)s after %(attempts)d attempts and is in the error log",
                event="ended",
                id=change.mail.id,
                status=str(change.mail.status),
                attempts=change.mail.attempts,
            )
        self._announcer.change(change.mail, callers)

    def _carry(self, envelope: Envelope, change: Change) -> None:
        """The database is away: a copy that only has to be written down brings it back."""
        carrier = replace(envelope.without_reply(), unrecorded=[*envelope.unrecorded, change.to_json()])
        more = {topology.STATE: topology.STATE_LOG}
        self._queue.put_later(carrier, change.mail, CARRY_MS, more=more)
        self._ledger.carried(change.mail.id)

    def _drop(self, delivery: Delivery, mail: Mail) -> None:
        """Another copy does the work; whoever waits for this one waits for that one."""
        reply_to = delivery.envelope.reply_to
        self._storeroom.ended(mail, delivery.envelope.message)
        if mail.status.is_final and delivery.redelivered:
            # the process may have ended between the commit and what follows it
            self._report(delivery.envelope, mail)
            self._announcer.change(mail, [reply_to] if reply_to else [])
        elif reply_to:
            known = self._ledger.join(mail.id, mail.digest, reply_to) or mail
            self._announcer.answer(known, reply_to)

    def _misplace(self, delivery: Delivery) -> None:
        """The id belongs to another mail, so this one gets an id of its own, and an entry in the error log."""
        problem = Conflict(f"id {delivery.mail.id!r} already belongs to another mail")
        own = replace(delivery.mail, id=str(uuid.uuid4()))
        self._record_or_carry(delivery, ended(own, Status.FAILED, str(problem)))
        if delivery.envelope.reply_to:
            self._announcer.reply(delivery.envelope.reply_to, error=problem)

    def _fail(self, delivery: Delivery, problem: BaseException) -> None:
        """Something raised that nobody foresaw; the mail is not tried again."""
        self._finish(delivery, _broken_off(self._untried(delivery), problem))

    def _untried(self, delivery: Delivery) -> Change:
        return Change(mail=_counted(self._known(delivery)), content=delivery.content)

    def _known(self, delivery: Delivery) -> Mail:
        try:
            return self._ledger.find(delivery.mail.id) or delivery.mail
        except StoreDown:
            return delivery.mail

    def _record_or_carry(self, delivery: Delivery, mail: Mail) -> None:
        envelope = replace(self._storeroom.adopt(delivery.envelope, mail.id), reply_to=None, unrecorded=())
        mail = replace(mail, generation=mail.generation + 1, updated_at=clock.now_iso())
        change = Change(mail=mail, content=envelope.body())
        try:
            self._ledger.record(change)
        except StoreDown:
            self._carry(envelope, change)
        self._announcer.change(mail, [])


def _unreported(_envelope: Envelope, _mail: Mail) -> None:
    """No sender is told."""


def _nowhere(*_what: object, **_more: object) -> NoReturn:
    """Nothing is limited, so nothing has to wait."""
    raise AssertionError("there are no limits")


def _uncounted(_delivery: Delivery, _change: Change) -> None:
    """Nobody asks for numbers."""


def _broken_off(change: Change, problem: BaseException) -> Change:
    """The mail has failed; the traceback stands with the attempt, and a sentence where people look first."""
    sentence = f"{type(problem).__name__} was raised outside the mailer; the attempt has its traceback"
    mail = ended(change.mail, Status.FAILED, sentence)
    attempt = Attempt(
        at=mail.updated_at,
        mailer=mail.mailer,
        diagnosis=str(Kind.PERMANENT),
        text="".join(traceback.format_exception(problem))[-8000:],
        milliseconds=sum(each.milliseconds for each in change.attempts),
        recipients=mail.recipients,
    )
    return replace(change, mail=mail, attempts=[attempt])


def _counted(mail: Mail) -> Mail:
    return replace(mail, attempts=mail.attempts + 1, generation=mail.generation + 1, updated_at=clock.now_iso())


#: what a consumer calls for each message it has finished with
Close = Callable[[Delivery, object, BaseException | None, DelayOf], None]
