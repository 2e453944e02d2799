"""
The gates of all mailers in this process, and what they share with other processes.

A gate that closes here is written to the database, where every other process sees it before its next attempt: each
claim reads the revision of what is shared, in the transaction it makes anyway. Whoever writes it first tells people,
once. While the database is away each process goes by what it sees itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import eventlet

from mail_service import clock
from mail_service.holds.gate import Bucket, Closed, Gate, Pass, Wait
from mail_service.ledger import StoreDown
from mail_service.ledger.holdings import Hold, Reason
from mail_service.logs import say
from mail_service.outcome import Diagnosis, Kind, Receipt, Scope

_log = logging.getLogger(__name__)

#: of several failures of one attempt, the one that says most about the mailer
_WEIGHT = (Kind.TRANSIENT, Kind.UNKNOWN, Kind.THROTTLED, Kind.CONFIGURATION)
#: between looks at what other processes share, where no claim tells of it, seconds
REFRESH_S = 1.0
#: mails that become held, in one process: each second, and at once when there were none for a while. Several may be on
#: their way when one is allowed to.
HOLDS_PER_S = 10.0
HOLDS_AT_ONCE = 20.0
#: an attempt that takes longer is slow, seconds; a usual one takes a tenth of this
SLOW_S = 0.5
#: the same while its mailer has not answered once in this process, and may never do, and others are in use
UNPROVEN_SLOW_S = 0.1
#: until mail of a mailer that is slow and has enough to do looks again, seconds
CROWDED_S = 0.5
LOOKS_AT_CROWDED_PER_S = 10.0
#: the same of one that may yet turn out to be usual, since its first attempts began less than `SLOW_S` ago
LOOKS_AT_UNPROVEN_PER_S = 500.0
#: between counts of what is held, seconds
COUNT_AGAIN_S = 0.05
#: until what the database did not take is offered again, seconds
SHARE_AGAIN_S = 2.0
#: A hold is looked at a little more often than promised: a delay may be longer by a seventh (see
#: ``topology.level_for``).
SOONER = 0.8


class Store(Protocol):
    """What is shared: ``Holdings``. Every method but `revision` may raise StoreDown."""

    @property
    def revision(self) -> int:
        """Changes with every change, as far as this process has heard."""
        ...

    def holds(self) -> tuple[int, Sequence[Hold]]:
        """The revision, and all holds."""
        ...

    def put(self, hold: Hold) -> bool:
        """Write a hold, or its new ``until``. Answers whether it is new."""
        ...

    def remove(self, mailer: str, sender: str) -> Hold | None:
        """Remove a hold, and answer it; None when somebody else has."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Leave to attempt a mail; to be handed back with what came of it."""

    mailer: str
    lane: str
    given: Pass
    #: of the sender's own gate, where there is one
    of_sender: Pass | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """No leave. The mail is to come back, and its record says why."""

    seconds: float
    text: str


class Keeper:
    """
    Asks the gates before an attempt, and tells them how it went.

    Args:
        hold_probe_s: Seconds; ``mail.hold_probe``.
        tell: Called once for each hold of a mailer and each end of one: the event's name and the hold.
        release: Called in a greenlet of its own when mail that waits for a mailer may go: the mailer, and what
            answers how many mails a second may go now (0: it is held again).
        crowd: Attempts of one lane above which a mailer that is slow gets no more, in this process; None: no limit.
        monotonic: The clock that it goes by, seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        hold_probe_s: float,
        tell: Callable[[str, Hold], None],
        release: Callable[[str, Callable[[], float]], object],
        crowd: int | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = monotonic
        self._store = store
        self._probe_s = hold_probe_s * SOONER
        self._tell = tell
        self._release = release
        self._crowd = crowd
        #: mails that may become held
        self._holding = Bucket(monotonic(), HOLDS_AT_ONCE)
        self._count_again = 0.0
        self._is_any_held = False
        #: by mailer and lane: who is with it, and since when
        self._with: dict[tuple[str, str], dict[int, float]] = {}
        #: mailers that have answered
        self._proven: set[str] = set()
        self._gates: dict[tuple[str, str], Gate] = {}
        self._revision = -1
        #: what was last seen in the store
        self._shared: dict[tuple[str, str], Hold] = {}
        #: what is to be written there: a hold, or None for its end
        self._unshared: dict[tuple[str, str], Hold | None] = {}
        self._is_sharing = False
        self._refreshed = float("-inf")

    def admit(self, mailer: str, mail_id: str, sender: str, lane: str = "normal") -> Ticket | Held:
        """Ask to attempt a mail of priority *lane*."""
        self._catch_up()
        now = self._now()
        if self.is_crowded(mailer, lane):
            return Held(
                seconds=self._look_at_crowded(mailer, lane, now),
                text=f"mailer {mailer} is slow and has enough to do",
            )
        own = self._gates.get((mailer, sender)) if sender else None
        if own is not None and own.closed is not None and now < own.closed.until:
            self._holding.take(-HOLDS_AT_ONCE)
            return self._held(mailer, own, own.look(now), now)
        gate = self._gate(mailer)
        answer = gate.admit(mail_id, sender, now)
        if isinstance(answer, Wait):
            self._holding.take(-HOLDS_AT_ONCE)
            return self._held(mailer, gate, answer.seconds, now)
        given = own.admit(mail_id, sender, now) if own is not None else None
        if own is not None and isinstance(given, Wait):
            self._give_back(gate, answer, now)
            return self._held(mailer, own, given.seconds, now)
        ticket = Ticket(mailer=mailer, lane=lane, given=answer, of_sender=given if isinstance(given, Pass) else None)
        self._with.setdefault((mailer, lane), {})[id(ticket)] = now
        return ticket

    def is_crowded(self, mailer: str, lane: str) -> bool:
        """Whether so many attempts wait for a slow mailer that more would only take the place of others' mail."""
        those = self._with.get((mailer, lane))
        if self._crowd is None or not those or len(those) < self._crowd:
            return False
        now, slow_s = self._now(), self._slow_s(mailer)
        return sum(now - since > slow_s for since in those.values()) * 2 >= len(those)

    @property
    def slow_s(self) -> float:
        """Seconds after which an attempt is slow, if it is one of a mailer that may be."""
        return min((self._slow_s(mailer) for mailer, _ in self._with), default=SLOW_S)

    def _slow_s(self, mailer: str) -> float:
        return UNPROVEN_SLOW_S if self._may_be_in_the_way(mailer) else SLOW_S

    def _may_be_in_the_way(self, mailer: str) -> bool:
        """It has not answered yet, and others are in use."""
        if mailer in self._proven:
            return False
        return bool(self._proven) or any(other != mailer for other, _ in self._with)

    def _look_at_crowded(self, mailer: str, lane: str, now: float) -> float:
        """Seconds until a mail of a mailer that is slow looks again: often enough to keep it busy."""
        gate = self._gate(mailer)
        first = min(self._with.get((mailer, lane), {}).values(), default=now)
        is_slow = not self._may_be_in_the_way(mailer) or now - first > SLOW_S
        usual = max(LOOKS_AT_CROWDED_PER_S, 3 * gate.pace)
        return gate.look(now, usual if is_slow else LOOKS_AT_UNPROVEN_PER_S) + CROWDED_S

    def look(self, mailer: str, sender: str, lane: str = "normal") -> float | None:
        """Seconds until a mail that is held already should look again; None when it should ask now."""
        if self._now() - self._refreshed > REFRESH_S:
            # whoever puts off everything makes no claim that would tell of a change
            self._refresh()
        now = self._now()
        if self.is_crowded(mailer, lane):
            return self._look_at_crowded(mailer, lane, now)
        for key in ((mailer, sender), (mailer, "")):
            gate = self._gates.get(key)
            if gate is not None and gate.closed is not None and now < gate.closed.until:
                return gate.look(now)
        return None

    @property
    def has_work_to_put_off(self) -> bool:
        """Whether any mailer is held or has enough to do, as of a moment ago: else nobody needs to look closer."""
        now = self._now()
        if now >= self._count_again:
            self._count_again = now + COUNT_AGAIN_S
            self._is_any_held = any(gate.closed for gate in self._gates.values()) or any(
                self.is_crowded(*key) for key in self._with
            )
        return self._is_any_held

    @property
    def may_hold_more(self) -> bool:
        """
        Whether one mail more may become held now.

        To hold a mail costs as much as to send one, and there may be thousands at once: so many a second become held
        that the mail of other mailers does not notice, and the others when they come back.
        """
        return self._holding.has_one(self._now(), HOLDS_PER_S, HOLDS_AT_ONCE)

    def note(self, ticket: Ticket, receipts: Sequence[Receipt]) -> None:
        """Tell how an attempt went. Never raises and never waits."""
        self._leave(ticket)
        now = self._now()
        gate = self._gate(ticket.mailer)
        diagnoses = [receipt.diagnosis for receipt in receipts]
        has_answered = any(diagnosis.kind == Kind.ACCEPTED or diagnosis.is_answer for diagnosis in diagnoses)
        if has_answered:
            self._proven.add(ticket.mailer)
        fault = _fault(diagnoses)
        if fault is not None and fault.concerns == Scope.MAILER:
            self._failed(ticket, gate, fault, now)
        elif fault is not None:
            self._succeeded(ticket, gate, now, also_sender=False)
            self._hold_sender(ticket, fault, now)
        elif has_answered:
            self._succeeded(ticket, gate, now, also_sender=True)
        else:
            # what failed here never got as far as the provider
            self.abandon(ticket)

    def abandon(self, ticket: Ticket) -> None:
        """The attempt was not made, or says nothing about the mailer: another mail may be the probe."""
        self._leave(ticket)
        now = self._now()
        self._give_back(self._gate(ticket.mailer), ticket.given, now)
        own = self._gates.get((ticket.mailer, ticket.given.sender))
        if own is not None and ticket.of_sender is not None:
            self._give_back(own, ticket.of_sender, now)

    def _leave(self, ticket: Ticket) -> None:
        key = (ticket.mailer, ticket.lane)
        those = self._with.get(key, {})
        those.pop(id(ticket), None)
        if not those:
            self._with.pop(key, None)

    def reason_to_wait(self, mailer: str) -> Held | None:
        """What is said to those who wait for *mailer*; None when it is not held."""
        gate = self._gates.get((mailer, ""))
        if gate is None or gate.closed is None:
            return None
        now = self._now()
        return self._held(mailer, gate, gate.look(now), now)

    def holds(self) -> list[Hold]:
        """All holds of mailers and senders, as this process knows them."""
        if self._now() - self._refreshed > REFRESH_S:
            self._refresh()
        return [
            _as_hold(mailer, sender, gate.closed, self._now())
            for (mailer, sender), gate in sorted(self._gates.items())
            if gate.closed is not None
        ]

    def _failed(self, ticket: Ticket, gate: Gate, fault: Diagnosis, now: float) -> None:
        before = gate.closed.until if gate.closed else None
        was_open = gate.closed is None
        match gate.failed(ticket.given, fault, now):
            case Scope.MAIL:
                self._give_back(gate, ticket.given, now)
            case Scope.SENDER:
                self._hold_sender(ticket, fault, now)
            case Scope.MAILER if gate.closed is not None and (was_open or gate.closed.until != before):
                self._share(ticket.mailer, "", _as_hold(ticket.mailer, "", gate.closed, now))

    def _succeeded(self, ticket: Ticket, gate: Gate, now: float, *, also_sender: bool) -> None:
        if gate.succeeded(ticket.given, now):
            self._share(ticket.mailer, "", None)
        own = self._gates.get((ticket.mailer, ticket.given.sender)) if also_sender and ticket.given.sender else None
        if own is not None and ticket.of_sender is not None and own.succeeded(ticket.of_sender, now):
            self._share(ticket.mailer, ticket.given.sender, None)

    def _hold_sender(self, ticket: Ticket, fault: Diagnosis, now: float) -> None:
        sender = ticket.given.sender
        if not sender:
            return
        own = self._gate(ticket.mailer, sender)
        was_open = own.closed is None
        given = ticket.of_sender or Pass(mail_id=ticket.given.mail_id, sender=sender)
        if own.failed(given, fault, now) != Scope.MAIL and was_open and own.closed is not None:
            self._share(ticket.mailer, sender, _as_hold(ticket.mailer, sender, own.closed, now))

    def _give_back(self, gate: Gate, given: Pass, now: float) -> None:
        if given.is_probe:
            gate.probe_soon(now)

    def _gate(self, mailer: str, sender: str = "") -> Gate:
        gate = self._gates.get((mailer, sender))
        if gate is None:
            gate = self._gates[mailer, sender] = Gate(self._probe_s)
        return gate

    def _held(self, mailer: str, gate: Gate, seconds: float, now: float) -> Held:
        if gate.closed is None:
            return Held(seconds=seconds, text=f"mailer {mailer} was held, and its mail goes on little by little")
        since = clock.iso(clock.later(gate.closed.since - now))
        return Held(
            seconds=seconds, text=f"mailer {mailer} is held since {since} ({gate.closed.reason}): {gate.closed.text}"
        )

    def _catch_up(self) -> None:
        if self._store.revision != self._revision:
            self._refresh()

    def _refresh(self) -> None:
        """Do as the store says, where nothing of ours is on its way there."""
        self._refreshed = self._now()
        try:
            revision, holds = self._store.holds()
        except StoreDown:
            return
        now = self._now()
        found = {(hold.mailer, hold.sender): hold for hold in holds}
        for key, hold in found.items():
            if key not in self._unshared and self._shared.get(key) != hold:
                self._adopt(key, hold, now)
        for key in self._shared.keys() - found.keys() - self._unshared.keys():
            self._gate(*key).open(now)
        self._shared = found
        self._revision = revision

    def _adopt(self, key: tuple[str, str], hold: Hold, now: float) -> None:
        until = now + (clock.parse(hold.until) - clock.now()).total_seconds()
        gate = self._gate(*key)
        if gate.closed is None:
            since = now + (clock.parse(hold.since) - clock.now()).total_seconds()
            gate.shut(Closed(reason=hold.reason, text=hold.text, since=since, until=until))
        else:
            gate.closed.until = until

    def _share(self, mailer: str, sender: str, hold: Hold | None) -> None:
        self._unshared[mailer, sender] = hold
        if not self._is_sharing:
            self._is_sharing = True
            eventlet.spawn_n(self._share_all)

    def _share_all(self) -> None:
        try:
            while self._unshared:
                key, hold = next(iter(self._unshared.items()))
                try:
                    self._share_one(key, hold)
                except StoreDown:
                    eventlet.sleep(SHARE_AGAIN_S)
                    continue
                if self._unshared.get(key) is hold:
                    del self._unshared[key]
        finally:
            self._is_sharing = False

    def _share_one(self, key: tuple[str, str], hold: Hold | None) -> None:
        if hold is not None:
            if self._store.put(hold):
                self._announce("mailer_held", hold)
            self._shared[key] = hold
            return
        removed = self._store.remove(*key)
        self._shared.pop(key, None)
        if removed is None:
            return
        self._announce("mailer_released", removed)
        gate = self._gate(*key)
        eventlet.spawn_n(self._release, key[0], lambda: gate.rate(self._now()))

    def _announce(self, what: str, hold: Hold) -> None:
        """One line, and one event; ERROR calls somebody who has to act."""
        is_held = what == "mailer_held"
        whose = "mail of one sender through mailer %(mailer)s" if hold.sender else "mailer %(mailer)s"
        if is_held:
            level = logging.ERROR if hold.reason == Reason.CONFIGURATION else logging.WARNING
            say(_log, level, f"{whose} is held (%(reason)s)", event=what, mailer=hold.mailer, reason=str(hold.reason))
        else:
            say(_log, logging.INFO, f"{whose} is released", event=what, mailer=hold.mailer, reason=str(hold.reason))
        if not hold.sender:
            self._tell(what, hold)


#: whose faults may hold more than one mail
_SHARED = (Scope.SENDER, Scope.MAILER)


def _fault(diagnoses: Sequence[Diagnosis]) -> Diagnosis | None:
    """The failure that is about more than this mail; None as soon as anybody was accepted."""
    if any(diagnosis.kind == Kind.ACCEPTED for diagnosis in diagnoses):
        return None
    faults = [each for each in diagnoses if each.kind in _WEIGHT and each.concerns in _SHARED]
    # a sender's fault is one that waits for somebody: anything else is a matter of the mail
    faults = [each for each in faults if each.concerns == Scope.MAILER or each.kind == Kind.CONFIGURATION]
    return max(faults, key=lambda each: (each.concerns == Scope.MAILER, _WEIGHT.index(each.kind)), default=None)


def _as_hold(mailer: str, sender: str, closed: Closed, now: float) -> Hold:
    moment = clock.now()

    def wall(instant: float) -> str:
        return clock.iso(datetime.fromtimestamp(moment.timestamp() + instant - now, moment.tzinfo))

    return Hold(
        mailer=mailer,
        sender=sender,
        reason=closed.reason,
        text=closed.text,
        since=wall(closed.since),
        until=wall(closed.until),
    )
