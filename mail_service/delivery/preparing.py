"""
Run the hooks of ``mail.hooks`` before a mail is handed over, and hand it over in the parts that they make of it.

Here, in each attempt, every mail comes by, whatever door it came through, and nothing that a hook does is stored: the
mail keeps its id, its record and the message that was handed in, so a replay asks the hooks anew. Parts are no mails of
their own either. They are handed over one after the other in the same attempt, each recipient has a receipt of his own,
and whose turn is over is noted meanwhile, so that a crash repeats what half a second brought, or one slow part.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import eventlet
from nameko_amqp_retry import Backoff

from mail_service import clock, message
from mail_service.delivery.copies import validated
from mail_service.delivery.deadline import Deadline
from mail_service.delivery.handover import (
    LEAST_TIME_S,
    Handed,
    HandsOver,
    Order,
    Round,
    Turn,
    receipts_for,
    traceback_of,
)
from mail_service.delivery.settling import state_of
from mail_service.diagnosis import DeadlineExceeded
from mail_service.diagnosis.reading import described
from mail_service.errors import InvalidMessage
from mail_service.holds import Held
from mail_service.hooks import Context, Hook, Part, Refused
from mail_service.ledger.records import Mail
from mail_service.limits.keys import HELD_BY_A_LIMIT, in_words
from mail_service.outcome import Diagnosis, Kind, Receipt, Scope
from mail_service.settings import Settings

#: told while parts are left: the mail as it stands by then
Note = Callable[[Mail], None]
#: seconds; a note writes all recipients down, so a thousand parts are not as many notes
NOTE_EVERY_S = 0.5

#: until the parts that found no turn free wait for the mail's next one, seconds
TURN_S = 1.0

#: after one of these a recipient is not attempted again
_OVER = frozenset({Kind.ACCEPTED, Kind.PERMANENT})


class WrongAnswer(Exception):
    """A hook answered what cannot be used."""


@dataclass(frozen=True, slots=True)
class _Share:
    """A message in its canonical form, and who of the waiting is to get it."""

    canonical: dict[str, Any]
    waiting: Sequence[str]


@dataclass(slots=True)
class _Sum:
    """What the parts of an attempt add up to."""

    #: by mailer
    rounds: dict[str, Round] = field(default_factory=dict)
    receipts: list[Receipt] = field(default_factory=list)
    #: what no mailer was asked about
    unasked: list[Receipt] = field(default_factory=list)
    on_unknown: str = "retry"
    backoff: Backoff | None = None

    def add(self, handed: Handed) -> None:
        for each in handed.rounds:
            before = self.rounds.get(each.mailer)
            self.rounds[each.mailer] = each if before is None else _joined(before, each)
        self.receipts += handed.receipts
        self.on_unknown, self.backoff = handed.on_unknown, handed.backoff or self.backoff

    def handed(self, mailer: str) -> Handed:
        rounds = list(self.rounds.values())
        if self.unasked:
            rounds.append(Round(mailer=mailer, receipts=self.unasked, at=clock.now_iso(), seconds=0.0))
        receipts = [*self.receipts, *self.unasked]
        return Handed(rounds=rounds, receipts=receipts, on_unknown=self.on_unknown, backoff=self.backoff)


class Preparing:
    """
    Hands over what the hooks leave of a mail. In the place of a ``Handover``, where there are hooks.

    Args:
        hooks: By dotted path, in order; each is asked about every part that the one before made.
    """

    def __init__(
        self, handover: HandsOver, hooks: Mapping[str, Hook], *, settings: Settings, deadline: Deadline, note: Note
    ) -> None:
        self._handover = handover
        self._hooks = hooks
        self._settings = settings
        self._deadline = deadline
        self._note = note

    def attempt(self, order: Order) -> Handed | Held | Turn:
        """See ``Handover.attempt``. Whatever a hook does ends in receipts."""
        mail, end, total = order.mail, self._deadline.end(order.within_s), _Sum()
        shares = [_Share(dict(order.canonical), mail.open_recipients)]
        for path, hook in self._hooks.items():
            shares = [made for share in shares for made in self._through(path, hook, share, order, end, total)]
        held = self._hand_over(shares, order, end, total)
        if held and not total.receipts and not total.unasked:
            return held[0][1]
        total.receipts += [each for share, one in held for each in receipts_for(share.waiting, _as_diagnosis(one))]
        return total.handed(mail.mailer)

    def _hand_over(
        self, shares: Sequence[_Share], order: Order, end: float, total: _Sum
    ) -> list[tuple[_Share, Held | Turn]]:
        """Each part in turn, while there is time; answers those that nobody may be asked about now."""
        mail = order.mail
        held: list[tuple[_Share, Held | Turn]] = []
        noted = time.monotonic()
        for number, share in enumerate(shares):
            left_s = end - time.monotonic()
            if number and (left_s < LEAST_TIME_S or self._deadline.is_over):
                total.receipts += receipts_for(share.waiting, _LATE)
                continue
            alone = replace(mail, recipients={address: mail.recipients[address] for address in share.waiting})
            # each part is a mail for whoever counts them, and the turn was for one
            later = order.is_further or bool(number)
            part = replace(order, canonical=share.canonical, mail=alone, within_s=left_s, is_further=later)
            answer = self._handover.attempt(part)
            if isinstance(answer, Held | Turn):
                held.append((share, answer))
                continue
            total.add(answer)
            if number + 1 < len(shares) and time.monotonic() - noted >= NOTE_EVERY_S:
                self._note(_so_far(mail, total))
                noted = time.monotonic()
        return held

    def _through(  # noqa: PLR0917 - what a hook is asked about
        self, path: str, hook: Hook, share: _Share, order: Order, end: float, total: _Sum
    ) -> list[_Share]:
        """What *hook* makes of a part; whoever gets nothing by it has a receipt that says why."""
        try:
            answer, given = self._answer(hook, share, order, end)
            shares, left_out = self._shares(share, answer, given)
        except Backoff as backoff:
            total.backoff = backoff
            diagnosis = Diagnosis(kind=Kind.TRANSIENT, text=f"{path} asked for a retry", code="Backoff")
        except DeadlineExceeded as exc:
            diagnosis = Diagnosis(kind=Kind.TRANSIENT, text=f"{path}: {exc}", code="hook")
        except Refused as exc:
            diagnosis = Diagnosis(kind=Kind.PERMANENT, text=f"refused by {path}: {exc}", code="hook")
        except Exception as exc:  # noqa: BLE001 - whatever it is, it must not stall the mail
            text = f"{path} failed: {described(exc)}"
            diagnosis = Diagnosis(kind=Kind.PERMANENT, text=text, trace=traceback_of(exc), code="hook")
        else:
            refusal = Diagnosis(kind=Kind.PERMANENT, text=f"left out by {path}", code="hook")
            total.unasked += receipts_for(left_out, refusal)
            return shares
        total.unasked += receipts_for(share.waiting, replace(diagnosis, certainly_not_sent=True))
        return []

    def _answer(self, hook: Hook, share: _Share, order: Order, end: float) -> tuple[Any, Any]:
        """What the hook answers, and the message that it was given, which it may have changed."""
        mail = order.mail
        given = copy.deepcopy(share.canonical)
        context = Context(
            id=mail.id,
            tenant=mail.tenant,
            mailer=mail.mailer,
            priority=mail.priority,
            door=order.envelope.door,
            attempt=mail.attempts + 1,
            recipients=tuple(share.waiting),
        )

        def ask() -> Any:
            answer = hook(given, context)
            # a generator runs here, too, where it can be stopped
            return list(answer) if isinstance(answer, Iterable) and not isinstance(answer, Mapping | str) else answer

        return self._deadline.run(ask, max(end - time.monotonic(), 0.0)), given

    def _shares(self, share: _Share, answer: Any, given: Mapping[str, Any]) -> tuple[list[_Share], list[str]]:
        """The parts, and who is in none of them. Raises WrongAnswer."""
        parts = answer if isinstance(answer, list) else [given if answer is None else answer]
        named = set(message.recipients(share.canonical))
        made: list[_Share] = []
        taken: set[str] = set()
        for part in parts:
            new = self._share(share, named, part if isinstance(part, Part) else Part(part))
            if twice := taken.intersection(new.waiting):
                raise WrongAnswer(f"{len(twice)} recipients are in two parts")
            taken.update(new.waiting)
            made += [new] if new.waiting else []
        return made, [address for address in share.waiting if address not in taken]

    def _share(self, share: _Share, named_before: set[str], part: Part) -> _Share:
        if not isinstance(part.message, Mapping):
            raise WrongAnswer(f"expected a message, got {type(part.message).__name__}")
        canonical, named = share.canonical, named_before
        if part.message != canonical:
            canonical = self._validated(part.message)
            # a thousand of them take seconds, in which others have their turn
            eventlet.sleep(0)
            named = set(message.recipients(canonical))
        if strangers := named - named_before:
            raise WrongAnswer(f"{len(strangers)} recipients are none of the mail's, as it was handed in")
        wanted = named if part.recipients is None else set(part.recipients)
        if not wanted <= named:
            raise WrongAnswer("a part is for recipients that its message does not name")
        return _Share(canonical, [address for address in share.waiting if address in wanted])

    def _validated(self, changed: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return validated(dict(changed), self._settings)
        except InvalidMessage as exc:
            raise WrongAnswer(f"the message cannot be used: {exc}") from exc


_LATE = Diagnosis(
    kind=Kind.TRANSIENT,
    text="the attempt's time was over before it was this recipient's turn",
    code="late",
    certainly_not_sent=True,
)


def _as_diagnosis(held: Held | Turn) -> Diagnosis:
    """For a part that has to wait while others were handed over."""
    if isinstance(held, Turn):
        held = Held(seconds=TURN_S, text=f"{HELD_BY_A_LIMIT} {in_words(held.key, held.limit)}")
    return Diagnosis(
        kind=Kind.THROTTLED,
        text=held.text,
        code="held",
        wait_s=held.seconds,
        certainly_not_sent=True,
        scope=Scope.MAIL,
    )


def _joined(before: Round, after: Round) -> Round:
    return replace(before, receipts=[*before.receipts, *after.receipts], seconds=before.seconds + after.seconds)


def _so_far(mail: Mail, total: _Sum) -> Mail:
    over = {each.address: state_of(each) for each in total.receipts if each.diagnosis.kind in _OVER}
    return replace(mail, recipients={**mail.recipients, **over})
