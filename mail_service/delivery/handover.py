"""
Hand one mail to its mailer, and to those that stand in for it, and collect a receipt for everybody who waits.

Another mailer is tried in the same attempt only for recipients that the one before certainly did not take, and only
where it might do better: the failure was not about the recipient or the mail. Whatever a backend raises, returns or
never returns ends in receipts; nothing gets out.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from nameko_amqp_retry import Backoff

from mail_service import clock, message
from mail_service.delivery.deadline import Deadline
from mail_service.delivery.guard import NO_GUARD, Guard
from mail_service.diagnosis import Context
from mail_service.envelope import Envelope
from mail_service.holds import Held, Keeper, Pauses, Ticket
from mail_service.ledger.records import Mail
from mail_service.limits.keys import MAILER, NO_RULES, Rules
from mail_service.mailers import Classifier, Mailer, unwrap
from mail_service.outcome import Diagnosis, Kind, Receipt, Scope
from mail_service.settings import Limit

#: of an attempt's time, what has to be left for another mailer to be tried, seconds
LEAST_TIME_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one mailer made of it."""

    mailer: str
    receipts: Sequence[Receipt]
    at: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """An attempt: a round for each mailer that was asked, and the receipts they add up to."""

    rounds: Sequence[Round]
    receipts: Sequence[Receipt]
    #: ``on_unknown`` of the mailer that was asked last
    on_unknown: str = "retry"
    #: the Backoff that a backend raised itself
    backoff: Backoff | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Nobody was asked: a mailer that might have been has a limit, and this mail has to wait for its turn there."""

    key: str
    limit: Limit


class Chains(Protocol):
    """As much of the ``MailerBook`` as an attempt needs."""

    def chain(self, name: str, tenant: str | None = None) -> Iterable[Mailer]:
        """The mailer, and those that stand in for it; none when nobody has that name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be handed over in one attempt."""

    envelope: Envelope
    canonical: Mapping[str, Any]
    #: those who wait are its open recipients
    mail: Mail
    #: seconds, where less than ``attempt_timeout`` is left
    within_s: float | None = None
    #: the keys of the limits whose turn the mail has had
    passed: Collection[str] = ()
    #: another part of the mail has used these turns: this one goes if one is free at once
    is_further: bool = False


class HandsOver(Protocol):
    """What a worker asks to hand a mail over."""

    def attempt(self, order: Order) -> Handed | Held | Turn:
        """Receipts for everybody who waits, or Held or a Turn when nobody may be asked."""
        ...


class Handover:
    """
    Asks mailers. One for all workers of a process.

    Args:
        classify: Must not raise: see ``guarded``.
        enter: Whether the mail of this id may be handed over under the limit of this key at once, without waiting.
    """

    def __init__(
        self,
        mailers: Chains,
        *,
        classify: Classifier,
        deadline: Deadline,
        keeper: Keeper,
        pauses: Pauses,
        guard: Guard = NO_GUARD,
        rules: Rules = NO_RULES,
        enter: Callable[[str, Limit, str], bool] = lambda _key, _limit, _mail_id: True,
    ) -> None:
        self._rules = rules
        self._enter = enter
        self._guard = guard
        self._pauses = pauses
        self._mailers = mailers
        self._classify = classify
        self._deadline = deadline
        self._keeper = keeper

    def attempt(self, order: Order) -> Handed | Held | Turn:
        """
        Receipts for everybody who waits, or Held when every mailer that may be asked is held, or the Turn to wait for.
        """
        mail, sender = order.mail, message.author(order.canonical)
        rounds: list[Round] = []
        outcome: dict[str, Receipt] = {}
        waiting: Sequence[str] = mail.open_recipients
        held: Held | Turn | None = None
        backoff, on_unknown = None, "retry"
        end = self._deadline.end(order.within_s)
        for mailer in self._mailers.chain(mail.mailer, mail.tenant):
            left_s = end - time.monotonic()
            if rounds and left_s < LEAST_TIME_S:
                break
            if (rounds or held) and self._pauses.stop(mail, mailer.name):
                # one that is paused does not stand in for another either
                continue
            turn = self._turn_with(mailer, order, may_enter=bool(rounds) or order.is_further)
            leave = turn or self._keeper.admit(mailer.name, mail.id, sender, mail.priority)
            if not isinstance(leave, Ticket):
                held = _rather(held, leave)
                continue
            at, started = clock.now_iso(), time.monotonic()
            try:
                receipts, backoff = self._ask(mailer, order, waiting, left_s)
            except BaseException:
                self._keeper.abandon(leave)
                raise
            self._keeper.note(leave, receipts)
            if leave.given.is_probe and _are_down(receipts):
                # the mail was only to find out, which costs it no attempt
                held = held or self._keeper.reason_to_wait(mailer.name)
                if held is not None:
                    continue
            rounds.append(Round(mailer=mailer.name, receipts=receipts, at=at, seconds=time.monotonic() - started))
            on_unknown = mailer.on_unknown
            outcome |= {each.address: _better(outcome.get(each.address), each) for each in receipts}
            waiting = [each.address for each in receipts if _may_another_try(each.diagnosis)]
            if not waiting or backoff is not None:
                break
        if not rounds:
            return held or self._without_a_mailer(mail)
        return Handed(rounds=rounds, receipts=list(outcome.values()), on_unknown=on_unknown, backoff=backoff)

    def _turn_with(self, mailer: Mailer, order: Order, *, may_enter: bool) -> Turn | None:
        """The limit of a mailer whose turn the mail has not had, and with *may_enter* does not have at once either."""
        key = f"{MAILER}{mailer.name}"
        if not self._rules.are_any or (key in order.passed and not order.is_further):
            return None
        limit = self._rules.limit_of(key)
        if limit is None or (may_enter and self._enter(key, limit, order.mail.id)):
            return None
        return Turn(key=key, limit=limit)

    @staticmethod
    def _without_a_mailer(mail: Mail) -> Handed:
        text = f"no mailer is configured under the name {mail.mailer!r}"
        receipts = receipts_for(mail.open_recipients, Diagnosis(kind=Kind.CONFIGURATION, text=text, code="no mailer"))
        return Handed(
            rounds=[Round(mailer=mail.mailer, receipts=receipts, at=clock.now_iso(), seconds=0.0)], receipts=receipts
        )

    def _ask(
        self, mailer: Mailer, order: Order, waiting: Sequence[str], within_s: float
    ) -> tuple[list[Receipt], Backoff | None]:
        context = Context(mailer=mailer.name, backend=mailer.backend, attempt=order.mail.attempts + 1)
        try:
            redirected = self._guard.redirected(order.canonical)
            to_mail = redirected.waiting(waiting) if redirected else waiting
            content = redirected.canonical if redirected else order.canonical
            send = _sending(mailer, content, order.envelope, to_mail, context.attempt)
            receipts = self._deadline.run(send, within_s)
            return _complete(redirected.receipts(receipts, waiting) if redirected else receipts, waiting), None
        except Exception as exc:
            error, stage = unwrap(exc)
            if isinstance(error, Backoff):
                text = "the backend asked for a retry"
                return receipts_for(waiting, Diagnosis(kind=Kind.TRANSIENT, text=text, code="Backoff")), error
            return receipts_for(waiting, self._classify(error, replace(context, stage=stage))), None


def _sending(
    mailer: Mailer, canonical: Mapping[str, Any], envelope: Envelope, waiting: Sequence[str], attempt: int
) -> Callable[[], list[Receipt]]:
    """What hands the mail over: from its canonical form where the mailer can, which spares a Django message."""
    stamps = {"message_id": envelope.message_id, "date": envelope.date}
    if not mailer.keeps_send_at and "send_at" in canonical:
        # it has come; what is left of it would only be refused
        canonical = {name: value for name, value in canonical.items() if name != "send_at"}
    # isinstance() with a protocol costs as much as composing the mail
    if send_canonical := getattr(mailer, "send_canonical", None):
        return lambda: send_canonical(canonical, waiting, **stamps, attempt=attempt)
    email = message.load(dict(canonical))
    message.stamp(email, **stamps)
    return lambda: mailer.send(email, waiting, attempt=attempt)


def guarded(classify: Classifier) -> Classifier:
    """*classify*, made safe: one that raises is a permanent failure with both tracebacks, never a stall."""

    def diagnose(exc: BaseException, context: Context) -> Diagnosis:
        try:
            diagnosis = _expect_diagnosis(classify(exc, context))
        except Exception as second:
            text = f"the classifier failed ({type(second).__name__}) while it looked at {type(exc).__name__}"
            trace = f"{traceback_of(second)}\nwhile it looked at:\n{traceback_of(exc)}"
            return Diagnosis(kind=Kind.PERMANENT, text=text, trace=trace, code="classifier")
        if diagnosis.kind == Kind.PERMANENT and not diagnosis.is_answer:
            return replace(diagnosis, trace=traceback_of(exc))
        return diagnosis

    return diagnose


def _expect_diagnosis(answer: object) -> Diagnosis:
    if not isinstance(answer, Diagnosis):
        raise TypeError(f"the classifier answered {type(answer).__name__}, not a Diagnosis")
    return answer


def _may_another_try(diagnosis: Diagnosis) -> bool:
    if not diagnosis.certainly_not_sent:
        return False
    if diagnosis.kind == Kind.PERMANENT:
        # such as a feature that this provider does not have; what a server says about a recipient is true everywhere
        return not diagnosis.is_answer
    return diagnosis.kind in (Kind.TRANSIENT, Kind.THROTTLED, Kind.CONFIGURATION)


def _is_down(diagnosis: Diagnosis) -> bool:
    """The mailer cannot be used at all, and the mail certainly was not taken."""
    return diagnosis.kind == Kind.TRANSIENT and diagnosis.concerns == Scope.MAILER and diagnosis.certainly_not_sent


def _rather(before: Held | Turn | None, now: Held | Turn) -> Held | Turn:
    """What to wait for: the first, but rather for a turn, which comes for certain."""
    return now if before is None or (isinstance(now, Turn) and isinstance(before, Held)) else before


def _are_down(receipts: Sequence[Receipt]) -> bool:
    return all(_is_down(each.diagnosis) for each in receipts)


def _better(before: Receipt | None, now: Receipt) -> Receipt:
    """What counts of two mailers' words about one recipient: the later, unless it only says that it cannot."""
    cannot = now.diagnosis.kind == Kind.PERMANENT and not now.diagnosis.is_answer
    return before if before is not None and cannot else now


def receipts_for(addresses: Sequence[str], diagnosis: Diagnosis) -> list[Receipt]:
    """The same for each of them."""
    return [Receipt(address=address, diagnosis=diagnosis) for address in addresses]


def _complete(receipts: Sequence[Receipt], waiting: Sequence[str]) -> list[Receipt]:
    """One receipt for each who waits: a mailer that says nothing about somebody leaves the outcome unknown."""
    known = {receipt.address: receipt for receipt in receipts}
    silent = Diagnosis(kind=Kind.UNKNOWN, text="the mailer did not say what became of this recipient", code="silent")
    return [known.get(address) or Receipt(address=address, diagnosis=silent) for address in waiting]


def traceback_of(exc: BaseException) -> str:
    """As the error log shows it."""
    try:
        # an exception's text may be longer than all the rest
        return "".join(piece[:2000] for piece in traceback.format_exception(exc))[-8000:]
    except Exception:
        return f"{type(exc).__name__} (its traceback cannot be printed)"
