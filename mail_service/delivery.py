"""
One attempt to deliver one mail: claim it, hand it to its mailer, and say what happens next.

`Courier.attempt` is where anything may go wrong and nothing gets out: whatever a backend raises, returns or never
returns, and whatever its own bugs are, the attempt ends in exactly one verdict. A retry is asked for by raising a
Backoff, as nameko-amqp-retry has it; everything else is returned.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from nameko_amqp_retry import Backoff

from mail_service import clock, message, topology
from mail_service.backoff import MailBackoff, backoff_class
from mail_service.deadline import Deadline
from mail_service.diagnosis import Context
from mail_service.envelope import Envelope
from mail_service.ledger.records import (
    Attempt,
    Change,
    Copy,
    Granted,
    InFlight,
    Interrupted,
    Mail,
    OtherMail,
    Outstanding,
    Superseded,
    recipient,
)
from mail_service.logs import say
from mail_service.mailers import Mailer, unwrap
from mail_service.message import Options
from mail_service.outcome import Diagnosis, Kind, Receipt, Status
from mail_service.settings import Settings
from mail_service.settling import MOST_DEATHS, Settled, Step, expired, settle

_log = logging.getLogger(__name__)

#: how soon a copy comes back whose mail another worker is attempting, milliseconds
BUSY_MS = 1000
#: A delay level may end this much early by the clocks of two hosts; not worth another round, milliseconds.
EARLY_MS = 1000
DOORS = ("send", "submit", "event")
#: What a count in a header may be; PostgreSQL's integer ends at twice this.
LARGEST_NUMBER = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A copy of a mail as it arrived at a worker, read and checked."""

    envelope: Envelope
    #: the message in its canonical form
    canonical: Mapping[str, Any]
    options: Options
    #: the mail as this copy knows it
    mail: Mail
    headers: Mapping[str, Any] = field(default_factory=dict)
    redelivered: bool = False

    @property
    def attempts(self) -> int:
        """Attempts that this copy knows of."""
        return self.mail.attempts

    @property
    def early_ms(self) -> int:
        """Milliseconds until it is due, 0 when it is: some waits are longer than the longest delay level."""
        due = self.headers.get(topology.DUE)
        early = due - clock.now_ms() if isinstance(due, int) else 0
        return min(early, topology.LEVELS_MS[-1]) if early > EARLY_MS else 0

    @property
    def only_to_record(self) -> bool:
        """What became of the mail is decided and only has to be written down."""
        return self.headers.get(topology.STATE) == topology.STATE_LOG


def number(value: Any) -> int:
    """A header that should be a count: anything else is 0, since anybody can publish anything."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_NUMBER
    return value if is_count else 0


def read(body: bytes, headers: Mapping[str, Any], *, redelivered: bool, settings: Settings) -> Delivery:
    """
    Make a Delivery of what arrived. Raises InvalidMessage.

    Everything is checked again here: clients publish to the work queue themselves, and so can anybody else.
    """
    envelope = Envelope.parse(body)
    canonical = message.validate(envelope.message, default_from=settings.default_from, max_size=settings.max_size)
    options = Options.parse(envelope.options)
    recipients = {
        address: dict(envelope.settled.get(address) or recipient(Status.QUEUED))
        for address in message.recipients(canonical)
    }
    mail = Mail(
        id=envelope.id,
        status=Status.QUEUED,
        mailer=options.mailer or "default",
        tenant=options.tenant,
        priority=options.priority or "normal",
        door=envelope.door if envelope.door in DOORS else "submit",
        attempts=number(headers.get(topology.ATTEMPTS)),
        generation=number(headers.get(topology.GENERATION)),
        deaths=min(number(headers.get(topology.DEATHS)), MOST_DEATHS - 1),
        digest=message.digest(canonical),
        recipients=recipients,
        submitted_at=envelope.submitted_at,
        updated_at=envelope.submitted_at,
    )
    return Delivery(
        envelope=envelope,
        canonical=canonical,
        options=options,
        mail=mail,
        headers=headers,
        redelivered=redelivered or headers.get(topology.REDELIVERED) is True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Postponed:
    """Nothing was attempted; this copy, or its successor, comes back later."""

    delay_ms: int
    mail: Mail


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """This copy is of no use: its mail is as *mail* says."""

    mail: Mail


@dataclass(frozen=True, slots=True, kw_only=True)
class Misplaced:
    """The id belongs to another mail: this one goes to the error log under an id of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """An attempt, with what it made of the mail. *change* is complete for a final mail only."""

    settled: Settled
    change: Change


Verdict = Postponed | Dropped | Misplaced | Tried


class Claims(Protocol):
    """As much of the ledger as an attempt needs. Each call waits while the database is away."""

    def accept(self, mail: Mail) -> None: ...

    def claim(self, copy: Copy) -> Any: ...

    def record(self, change: Change) -> Any: ...


class Courier:
    """Makes attempts. One for all workers of a process."""

    def __init__(
        self,
        settings: Settings,
        ledger: Claims,
        mailers: Callable[[str], Mailer | None],
        classify: Callable[[BaseException, Context], Diagnosis],
        deadline: Deadline,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._mailers = mailers
        self._classify = classify
        self._deadline = deadline
        self._backoffs = {name: backoff_class(schedule) for name, schedule in settings.schedules.items()}
        self._has_a_suspect = False

    def attempt(self, delivery: Delivery) -> Verdict:
        """
        Try once. Raises a Backoff, with the attempt as its ``tried``, when there is to be another attempt.

        Mails during whose attempts the process ended are attempted one at a time: with all of them together, those that
        did nothing would end with the one that kills the process, again and again, and be taken for its like.
        """
        if not delivery.mail.deaths:
            return self._take(delivery)
        if self._has_a_suspect:
            return Postponed(delay_ms=BUSY_MS, mail=delivery.mail)
        self._has_a_suspect = True
        try:
            return self._take(delivery)
        finally:
            self._has_a_suspect = False

    def _take(self, delivery: Delivery) -> Verdict:
        if delivery.early_ms:
            return Postponed(delay_ms=delivery.early_ms, mail=delivery.mail)
        if delivery.envelope.unrecorded and (written := self._write_down(delivery)) and delivery.only_to_record:
            return Dropped(mail=written)
        if wait_ms := self._wait_for_send_at(delivery):
            return Postponed(delay_ms=wait_ms, mail=delivery.mail)
        claim = self._ledger.claim(
            Copy(
                mail=delivery.mail, redelivered=delivery.redelivered, replay=bool(delivery.headers.get(topology.REPLAY))
            )
        )
        match claim:
            case Granted():
                return self._attempt(delivery, claim.mail)
            case Interrupted():
                return self._settle_interrupted(delivery, claim.mail)
            case InFlight():
                return Postponed(delay_ms=BUSY_MS, mail=delivery.mail)
            case Outstanding():
                return Postponed(delay_ms=_remaining_ms(claim.mail), mail=claim.mail)
            case Superseded():
                return Dropped(mail=claim.mail)
            case OtherMail():
                return Misplaced()
        raise AssertionError(claim)

    def _wait_for_send_at(self, delivery: Delivery) -> int:
        """Milliseconds until ``send_at``, 0 when it has come or the mailer's provider waits itself."""
        moment = message.send_at(dict(delivery.canonical))
        mailer = self._mailers(delivery.mail.mailer)
        if moment is None or (mailer and mailer.keeps_send_at):
            return 0
        wait_ms = clock.to_ms(moment) - clock.now_ms()
        if wait_ms <= 0:
            return 0
        self._ledger.accept(replace(delivery.mail, next_attempt_at=clock.iso(moment)))
        return wait_ms

    def _write_down(self, delivery: Delivery) -> Mail | None:
        """Record what happened while the database was away; forged or damaged facts are left out."""
        last = None
        content = replace(delivery.envelope, unrecorded=()).body()
        for facts in delivery.envelope.unrecorded:
            try:
                change = Change.from_json(facts, content)
            except (TypeError, KeyError, ValueError):
                continue
            if change.mail.id == delivery.mail.id:
                sent = change.mail.status == Status.SENT
                self._ledger.record(replace(change, content=None) if sent else change)
                last = change.mail
        return last

    def _attempt(self, delivery: Delivery, mail: Mail) -> Verdict:
        if delivery.options.expires_at and delivery.options.expires_at <= clock.now():
            return self._give_up(
                delivery, expired(mail, f"expires_at {clock.iso(delivery.options.expires_at)} has passed")
            )
        started = time.monotonic()
        at = clock.now_iso()
        receipts, backoff = self._hand_over(delivery, mail)
        return self._conclude(delivery, mail, receipts, backoff, at=at, seconds=time.monotonic() - started)

    def _settle_interrupted(self, delivery: Delivery, mail: Mail) -> Verdict:
        """The process ended in the middle of an attempt, so how that went is unknown."""
        mail = replace(mail, deaths=mail.deaths + 1)
        text = "the process ended during this attempt; whether the mail was accepted is unknown"
        if mail.deaths >= MOST_DEATHS:
            text = f"the process ended {mail.deaths} times in a row while it attempted this mail"
            diagnosis = Diagnosis(kind=Kind.PERMANENT, text=text, code="crash")
        else:
            diagnosis = Diagnosis(kind=Kind.UNKNOWN, text=text, code="crash")
        receipts = [Receipt(address=address, diagnosis=diagnosis) for address in mail.open_recipients]
        return self._conclude(delivery, mail, receipts, None, at=clock.now_iso(), seconds=0.0, survived=False)

    def _conclude(
        self,
        delivery: Delivery,
        mail: Mail,
        receipts: Sequence[Receipt],
        backoff: Backoff | None,
        *,
        at: str,
        seconds: float,
        survived: bool = True,
    ) -> Tried:
        mailer = self._mailers(mail.mailer)
        settled = settle(mail, receipts, on_unknown=mailer.on_unknown if mailer else "retry")
        if survived:
            settled = replace(settled, mail=replace(settled.mail, deaths=0))
        attempt = Attempt(
            at=at,
            mailer=mail.mailer,
            diagnosis=str(settled.diagnosis.kind),
            text="\n".join(filter(None, [settled.diagnosis.text, settled.diagnosis.trace])),
            milliseconds=round(seconds * 1000),
            recipients={receipt.address: settled.mail.recipients[receipt.address] for receipt in receipts},
        )
        tried = Tried(settled=settled, change=self._change(delivery, settled.mail, attempt))
        _log_attempt(tried, number_of=mail.attempts + 1, seconds=seconds, again=mail.status == Status.HELD)
        if settled.step == Step.RETRY:
            raise self._backoff(delivery, settled, backoff, tried)
        return tried

    def _backoff(self, delivery: Delivery, settled: Settled, own: Backoff | None, tried: Tried) -> Backoff:
        """The schedule's Backoff, or the one a backend raised itself, with what it has to carry."""
        backoff = own or self._schedule(delivery)(wait_s=settled.wait_s)
        backoff.tried = tried
        return backoff

    def _schedule(self, delivery: Delivery) -> type[MailBackoff]:
        doors = self._settings.backoff
        door = {"send": doors.send, "event": doors.event}.get(delivery.envelope.door, doors.submit)
        return self._backoffs.get(delivery.options.backoff or door) or self._backoffs[door]

    def _give_up(self, delivery: Delivery, mail: Mail) -> Tried:
        settled = Settled(mail=mail, step=Step.FINAL, diagnosis=Diagnosis(kind=Kind.PERMANENT, text=mail.error or ""))
        return Tried(settled=settled, change=self._change(delivery, mail, None))

    def _change(self, delivery: Delivery, mail: Mail, attempt: Attempt | None) -> Change:
        mail = replace(mail, generation=mail.generation + 1, updated_at=clock.now_iso())
        content = (
            None if mail.status == Status.SENT else replace(delivery.envelope, unrecorded=(), reply_to=None).body()
        )
        return Change(mail=mail, attempt=attempt, content=content)

    def _hand_over(self, delivery: Delivery, mail: Mail) -> tuple[list[Receipt], Backoff | None]:
        """
        Receipts for everybody who waits, whatever happens. A Backoff that the backend raised itself is handed back.
        """
        waiting = mail.open_recipients
        mailer = self._mailers(mail.mailer)
        if mailer is None:
            text = f"no mailer is configured under the name {mail.mailer!r}"
            return _receipts(waiting, Diagnosis(kind=Kind.CONFIGURATION, text=text, code="no mailer")), None
        context = Context(mailer=mail.mailer, backend=mailer.backend, attempt=mail.attempts + 1)
        try:
            email = message.load(dict(delivery.canonical))
            if not mailer.keeps_send_at:
                # it has come; what is left of it would only be refused
                email.send_at = None
            message.stamp(email, message_id=delivery.envelope.message_id, date=delivery.envelope.date)
            receipts = self._deadline.run(lambda: mailer.send(email, waiting, attempt=context.attempt))
            return _complete(receipts, waiting), None
        except Exception as exc:
            error, stage = unwrap(exc)
            if isinstance(error, Backoff):
                text = "the backend asked for a retry"
                return _receipts(waiting, Diagnosis(kind=Kind.TRANSIENT, text=text, code="Backoff")), error
            return _receipts(waiting, self.diagnose(error, replace(context, stage=stage))), None

    def diagnose(self, exc: BaseException, context: Context) -> Diagnosis:
        """The classifier's word. One that raises is a permanent failure with both tracebacks, never a stall."""
        try:
            diagnosis = _expect_diagnosis(self._classify(exc, context))
        except Exception as second:
            text = f"the classifier failed ({type(second).__name__}) while it looked at {type(exc).__name__}"
            trace = f"{_traceback(second)}\nwhile it looked at:\n{_traceback(exc)}"
            return Diagnosis(kind=Kind.PERMANENT, text=text, trace=trace, code="classifier")
        if diagnosis.kind == Kind.PERMANENT and not diagnosis.code.startswith(("smtp", "http")):
            return replace(diagnosis, trace=_traceback(exc))
        return diagnosis


def _expect_diagnosis(answer: object) -> Diagnosis:
    if not isinstance(answer, Diagnosis):
        raise TypeError(f"the classifier answered {type(answer).__name__}, not a Diagnosis")
    return answer


def _receipts(addresses: Sequence[str], diagnosis: Diagnosis) -> list[Receipt]:
    return [Receipt(address=address, diagnosis=diagnosis) for address in addresses]


def _complete(receipts: Sequence[Receipt], waiting: Sequence[str]) -> list[Receipt]:
    """One receipt for each who waits: a mailer that says nothing about somebody leaves the outcome unknown."""
    known = {receipt.address: receipt for receipt in receipts}
    silent = Diagnosis(kind=Kind.UNKNOWN, text="the mailer did not say what became of this recipient", code="silent")
    return [known.get(address) or Receipt(address=address, diagnosis=silent) for address in waiting]


def _remaining_ms(mail: Mail) -> int:
    if mail.next_attempt_at is None:
        return 0
    return max(0, clock.to_ms(clock.parse(mail.next_attempt_at)) - clock.now_ms())


def _traceback(exc: BaseException) -> str:
    try:
        # an exception's text may be longer than all the rest
        return "".join(piece[:2000] for piece in traceback.format_exception(exc))[-8000:]
    except Exception:
        return f"{type(exc).__name__} (its traceback cannot be printed)"


def _log_attempt(tried: Tried, *, number_of: int, seconds: float, again: bool) -> None:
    """One line. ERROR calls somebody who has to act: once for a held mail, not at each look."""
    settled = tried.settled
    verdict = {Step.RETRY: "deferred", Step.HOLD: "held"}.get(settled.step) or str(settled.mail.status)
    level = logging.INFO if settled.diagnosis.kind == Kind.ACCEPTED else logging.WARNING
    if settled.diagnosis.kind == Kind.CONFIGURATION:
        level = logging.INFO if again else logging.ERROR
    say(
        _log,
        level,
        "attempt %(attempt)d of %(id)s by %(mailer)s: %(verdict)s in %(seconds).3f s",
        event="attempt",
        id=settled.mail.id,
        attempt=number_of,
        mailer=settled.mail.mailer,
        verdict=verdict,
        seconds=round(seconds, 3),
        diagnosis=str(settled.diagnosis.kind),
        code=settled.diagnosis.code or None,
    )
