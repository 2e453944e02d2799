"""
One attempt to deliver one mail: claim it, have it handed over, and say what happens next.

Each attempt ends in exactly one verdict. A retry is asked for by raising a Backoff, as nameko-amqp-retry has it;
everything else is returned.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from nameko_amqp_retry import Backoff

from mail_service import clock, message, topology
from mail_service.delivery.backoff import MailBackoff, backoff_class
from mail_service.delivery.copies import Delivery
from mail_service.delivery.guard import NO_GUARD, Guard
from mail_service.delivery.handover import Handed, HandsOver, Order, Round, Turn
from mail_service.delivery.hard_bounces import Offers, nobody
from mail_service.delivery.settling import (
    MOST_DEATHS,
    Settled,
    Step,
    deciding_of,
    expired,
    finished,
    settle,
    state_of,
    suppressed_text,
)
from mail_service.delivery.verdicts import Dropped, HeldBack, Misplaced, Postponed, SetAside, Tried, Verdict
from mail_service.delivery.waits import Waits
from mail_service.holds import Held, Keeper, Pauses
from mail_service.ledger.records import (
    Attempt,
    Change,
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
from mail_service.ledger.suppressions import all_are_done
from mail_service.limits.keys import HELD_BY_A_LIMIT, MAILER, NO_RULES, Rules, in_words
from mail_service.logs import say
from mail_service.mailers import Mailer
from mail_service.message.references import has_any
from mail_service.outcome import Diagnosis, Kind, Receipt, Status
from mail_service.settings import Limit, Settings
from mail_service.storeroom import NO_STORE, Storeroom

_log = logging.getLogger(__name__)

#: how soon a copy comes back whose mail another worker is attempting, milliseconds
BUSY_MS = 1000
#: a mail whose turn comes sooner stands nowhere as held, seconds
UNNOTED_S = 1.0


class Claims(Protocol):
    """As much of the ledger as an attempt needs. Each call waits while the database is away."""

    def accept(self, mail: Mail, content: bytes | None = None) -> Mail: ...

    def claim(self, copy: Copy) -> Any: ...

    def record(self, change: Change) -> Any: ...


class Courier:
    """Makes attempts. One for all workers of a process."""

    def __init__(
        self,
        settings: Settings,
        ledger: Claims,
        mailers: Callable[[str, str | None], Mailer | None],
        handover: HandsOver,
        keeper: Keeper,
        *,
        pauses: Pauses,
        guard: Guard = NO_GUARD,
        hard_bounces: Offers = nobody,
        storeroom: Storeroom = NO_STORE,
        rules: Rules = NO_RULES,
        turn_in_s: Callable[[str, str], float] = lambda _key, _lane: 0.0,
    ) -> None:
        self._hard_bounces = hard_bounces
        self._settings = settings
        self._storeroom = storeroom
        self._rules = rules
        self._turn_in_s = turn_in_s
        self._guard = guard
        self._pauses = pauses
        self._ledger = ledger
        self._mailers = mailers
        self._handover = handover
        self._keeper = keeper
        self._backoffs = {name: backoff_class(schedule) for name, schedule in settings.schedules.items()}
        #: how long what is not attempted waits
        self.waits = Waits(settings, mailers, keeper, pauses)
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
        if has_any(delivery.canonical):
            # from now on its blobs are not taken for left over
            self._ledger.accept(delivery.mail, delivery.content)
        if wait_ms := self._wait_for_send_at(delivery) or self.waits.still_held(delivery):
            return Postponed(delay_ms=wait_ms, mail=delivery.mail)
        limits = self._limits_of(delivery)
        if (key := _next_turn(limits, delivery.passed)) is not None:
            return self._set_aside(delivery, key, limits[key], delivery.passed)
        copy = Copy(
            mail=delivery.mail,
            redelivered=delivery.redelivered,
            replay=bool(delivery.headers.get(topology.REPLAY)),
            slots={key: limit.concurrency for key, limit in limits.items() if limit.concurrency is not None},
        )
        with self._storeroom.room_for(delivery.canonical) as wait_ms:
            if wait_ms:
                return Postponed(delay_ms=wait_ms, mail=delivery.mail)
            claim = self._ledger.claim(copy)
            if isinstance(claim, Crowded):
                passed = [key for key in delivery.passed if key != claim.key]
                return self._set_aside(delivery, claim.key, limits[claim.key], passed)
            return self._act_on(delivery, claim)

    def _limits_of(self, delivery: Delivery) -> Mapping[str, Limit]:
        """The limits that a mail is under now. What has expired only has to be ended, which no limit is about."""
        if not self._rules.are_any or delivery.has_expired:
            return {}
        mail = delivery.mail
        limits = self._rules.of(mail.mailer, mail.tenant, mail.recipients)
        others = [key for key in delivery.passed if key.startswith(MAILER) and key not in limits]
        if not others:
            return limits
        # it has waited for one that stands in for its own mailer, which is passed over
        own = self._rules.of_mailer(mail.mailer, mail.tenant)
        known = {key: limit for key in others if (limit := self._rules.limit_of(key))}
        return {key: limit for key, limit in limits.items() if key not in own} | known

    def _set_aside(self, delivery: Delivery, key: str, limit: Limit, passed: Sequence[str]) -> SetAside:
        """It waits for its turn; who waits longer than a moment is held, and whoever asks is told."""
        wait_s = self._turn_in_s(key, delivery.mail.priority)
        text = f"{HELD_BY_A_LIMIT} {in_words(key, limit)}"
        mail = replace(
            _all_held(delivery.mail, text),
            status=Status.HELD,
            next_attempt_at=clock.iso(clock.later(wait_s)),
            updated_at=clock.now_iso(),
        )
        return SetAside(key=key, passed=passed, mail=mail, is_noted=wait_s > UNNOTED_S)

    def _act_on(self, delivery: Delivery, claim: Any) -> Verdict:
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
                if claim.wants_content:
                    self._ledger.accept(delivery.mail, delivery.content)
                return Dropped(mail=claim.mail)
            case PutOff():
                self._ledger.accept(delivery.mail, delivery.content)
                return Postponed(delay_ms=_until_ms(claim.mail.not_before), mail=delivery.mail)
            case OtherMail():
                return Misplaced()
        raise AssertionError(claim)

    def _wait_for_send_at(self, delivery: Delivery) -> int:
        """
        Milliseconds until ``send_at``, 0 when it has come or the mailer's provider waits itself.

        Whoever is rescheduled asks for a claim, which knows until when; so does a mail that nobody is to get.
        """
        moment = message.send_at(dict(delivery.canonical))
        mailer = self._mailers(delivery.mail.mailer, delivery.mail.tenant)
        if moment is None or (mailer and mailer.keeps_send_at):
            return 0
        wait_ms = clock.to_ms(moment) - clock.now_ms()
        if wait_ms <= 0:
            return 0
        mail = replace(delivery.mail, next_attempt_at=clock.iso(moment))
        known = self._ledger.accept(mail, delivery.content)
        return 0 if known.not_before or known.status.is_final or all_are_done(known) else wait_ms

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
        mail = self._guard.suppressed(mail)
        if all_are_done(mail):
            error = suppressed_text(mail.recipients)
            return self._give_up(delivery, finished(mail, recipients=mail.recipients, error=error))
        if delivery.has_expired:
            assert delivery.options.expires_at is not None  # noqa: S101 - it has passed
            return self._give_up(
                delivery, expired(mail, f"expires_at {clock.iso(delivery.options.expires_at)} has passed")
            )
        if pause := self._pauses.of(mail):
            return self._hold_back(delivery, mail, pause)
        order = Order(envelope=delivery.envelope, canonical=delivery.canonical, mail=mail, passed=delivery.passed)
        handed = self._handover.attempt(order)
        if isinstance(handed, Held):
            return self._hold_back(delivery, mail, handed)
        if isinstance(handed, Turn):
            return self._hold_for_a_turn(delivery, mail, handed)
        return self._conclude(delivery, mail, handed)

    def _hold_back(self, delivery: Delivery, mail: Mail, held: Held) -> HeldBack:
        """Nobody was asked: the mailer is held, and this mail with it."""
        change = self._change(delivery, _all_held(mail, held.text), None)
        return HeldBack(
            change=change,
            delay_ms=self.waits.hold_ms(held.seconds),
            is_news=(mail.status, mail.error) != (Status.HELD, held.text),
        )

    def _hold_for_a_turn(self, delivery: Delivery, mail: Mail, turn: Turn) -> HeldBack:
        """Its mailer is held, and another one that stands in for it has a limit."""
        text = f"{HELD_BY_A_LIMIT} {in_words(turn.key, turn.limit)}"
        own = self._rules.of_mailer(mail.mailer, mail.tenant)
        return HeldBack(
            change=self._change(delivery, _all_held(mail, text), None),
            delay_ms=math.ceil(self._turn_in_s(turn.key, mail.priority) * 1000),
            is_news=(mail.status, mail.error) != (Status.HELD, text),
            turn=turn.key,
            # a turn of the mailer that is held would be stale when this one comes
            passed=[key for key in delivery.passed if key not in own],
        )

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
        mailer = self._mailers(mail.mailer, mail.tenant)
        handed = Handed(
            rounds=[Round(mailer=mail.mailer, receipts=receipts, at=clock.now_iso(), seconds=0.0)],
            receipts=receipts,
            on_unknown=mailer.on_unknown if mailer else "retry",
        )
        return self._conclude(delivery, mail, handed, survived=False)

    def _conclude(self, delivery: Delivery, mail: Mail, handed: Handed, *, survived: bool = True) -> Verdict:
        if survived and mail.deaths:
            mail = replace(mail, deaths=0)
        settled = settle(mail, handed.receipts, on_unknown=handed.on_unknown)
        attempts = [_as_attempt(settled, each, len(handed.rounds)) for each in handed.rounds]
        change = self._change(delivery, settled.mail, attempts)
        if suppressions := self._hard_bounces(change.mail, handed.rounds):
            change = replace(change, suppressions=suppressions)
        tried = Tried(settled=settled, change=change)
        was_held = mail.status == Status.HELD
        _log_attempt(tried, handed, number_of=mail.attempts + 1, again=was_held)
        if settled.step == Step.RETRY:
            raise self._backoff(delivery, settled, handed.backoff, tried)
        if settled.step == Step.HOLD:
            wait_ms = self.waits.after(settled, message.author(delivery.canonical))
            is_news = not was_held or mail.error != settled.mail.error
            return HeldBack(change=tried.change, delay_ms=wait_ms, is_news=is_news)
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

    def _change(self, delivery: Delivery, mail: Mail, attempts: Sequence[Attempt] | None) -> Change:
        mail = replace(mail, generation=mail.generation + 1, updated_at=clock.now_iso())
        content = None if mail.status == Status.SENT else delivery.content
        return Change(mail=mail, attempts=attempts or (), content=content)


def _next_turn(limits: Mapping[str, Limit], passed: Sequence[str]) -> str | None:
    return next((key for key in limits if key not in passed), None)


def _all_held(mail: Mail, text: str) -> Mail:
    """*mail* as it is while it waits for what *text* says."""
    return replace(mail, recipients=mail.with_open(Status.HELD, text), error=text)


def _remaining_ms(mail: Mail) -> int:
    return _until_ms(mail.next_attempt_at)


def _until_ms(moment: str | None) -> int:
    return max(0, clock.to_ms(clock.parse(moment)) - clock.now_ms()) if moment else 0


def _as_attempt(settled: Settled, round_: Round, rounds: int) -> Attempt:
    """What stands in the error log about one mailer's part."""
    deciding = settled.diagnosis if rounds == 1 else deciding_of(round_.receipts)
    states = {each.address: state_of(each) for each in round_.receipts}
    return Attempt(
        at=round_.at,
        mailer=round_.mailer,
        diagnosis=str(deciding.kind),
        text="\n".join(filter(None, [deciding.text, deciding.trace])),
        milliseconds=round(round_.seconds * 1000),
        recipients={address: settled.mail.recipients[address] for address in states} if rounds == 1 else states,
    )


def _log_attempt(tried: Tried, handed: Handed, *, number_of: int, again: bool) -> None:
    """One line for each mailer that was asked. A mail that is looked at again and again is no news."""
    settled = tried.settled
    for round_ in handed.rounds:
        is_last = round_ is handed.rounds[-1]
        diagnosis = settled.diagnosis if is_last else deciding_of(round_.receipts)
        verdict = {Step.RETRY: "deferred", Step.HOLD: "held"}.get(settled.step) or str(settled.mail.status)
        level = logging.INFO if diagnosis.kind == Kind.ACCEPTED else logging.WARNING
        if diagnosis.kind == Kind.CONFIGURATION:
            level = logging.INFO if again else logging.ERROR
        say(
            _log,
            level,
            "attempt %(attempt)d of %(id)s by %(mailer)s: %(verdict)s in %(seconds).3f s",
            event="attempt",
            id=settled.mail.id,
            attempt=number_of,
            mailer=round_.mailer,
            verdict=verdict if is_last else "the next mailer is asked",
            seconds=round(round_.seconds, 3),
            diagnosis=str(diagnosis.kind),
            code=diagnosis.code or None,
        )
