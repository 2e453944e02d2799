"""
One mailer's gate in one process: open, closed until a probe succeeds, or opening slowly. Pure: time comes in as a
number.

What closes it, of the failures whose diagnosis is about the mailer and not about one mail:

    configuration       the first one
    throttled           the first one, for as long as the provider asked
    transient, unknown  of `FAILURES` different mails, with no success in between: the breaker

An answer about the mail alone (a refused recipient, a full mailbox) shows that the mailer works, and counts as a
success. While the gate is closed one mail at a time is let through as a probe; after a success the rest follows at a
pace that doubles, so that a provider that has just come back is not run over.

One bad mail must not close it again and again: a mail, or a sender, that failed before and while others succeeded
since, is held alone.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from mail_service.ledger.holdings import Reason
from mail_service.outcome import Diagnosis, Kind, Scope

#: different mails in a row, without a success in between, after which a mailer counts as down
FAILURES: Final = 5
#: mails a second in one process right after a mailer came back, and seconds until that has doubled
FIRST_RATE: Final = 20.0
DOUBLING_S: Final = 0.5
#: the same after a throttle, where it begins with half of what went through before, but not with less than this
LEAST_RATE: Final = 10.0
THROTTLED_DOUBLING_S: Final = 10.0
#: A gate that opens counts as open at this many times the pace it began with.
OPEN_AT: Final = 100.0
OPEN_AT_AFTER_THROTTLE: Final = 16.0
#: the first wait of a throttle that names no time, seconds; each further one is twice as long, up to the probe's
#: interval
THROTTLE_S: Final = 1.0
#: mails and senders that are remembered
MEMORY: Final = 10_000
#: of a pace, what may pass at once when nobody came for a while, seconds
BURST_S: Final = 0.5
#: of looks at held mail, in one process, each second: more mail is looked at less often
LOOKS_PER_S: Final = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """Go on, and tell the gate how it went."""

    mail_id: str
    sender: str
    is_probe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Come back in so many seconds."""

    seconds: float


@dataclass(slots=True, kw_only=True)
class Closed:
    """Nobody passes before *until*; then one probe for each *interval*."""

    reason: Reason
    text: str
    since: float
    until: float


class Gate:
    """
    The gate of one mailer, or of one sender.

    Args:
        probe_s: Seconds between probes while it is closed.
    """

    def __init__(self, probe_s: float) -> None:
        self._probe_s = probe_s
        self.closed: Closed | None = None
        #: mails that failed since the last success
        self._failed: dict[str, None] = {}
        #: mails that were held, and when
        self._suspects: _Memory = _Memory()
        #: senders, and when a mail of theirs was accepted
        self._accepted: _Memory = _Memory()
        self._last_success = float("-inf")
        self._throttles = 0
        self._ramp: Ramp | None = None
        self._pace = Pace()
        #: when the next of those who wait is to look again
        self._next_look = float("-inf")

    def admit(self, mail_id: str, sender: str, now: float) -> Pass | Wait:
        """Ask to attempt a mail. Whoever gets a Pass has to tell `succeeded`, `failed` or `abandoned`."""
        if self.closed is not None:
            if now < self.closed.until:
                return Wait(seconds=self.look(now))
            # until the probe's outcome is known, and if it never is, until the next
            self.closed.until = now + self._probe_s
            return Pass(mail_id=mail_id, sender=sender, is_probe=True)
        if self._ramp is not None:
            if self._ramp.is_over(now):
                self._ramp = None
            elif not self._ramp.may_pass(now):
                return Wait(seconds=min(self._ramp.turn(now), self._probe_s))
        return Pass(mail_id=mail_id, sender=sender)

    def look(self, now: float, looks_per_s: float = LOOKS_PER_S) -> float:
        """Seconds until a mail that is held now should look again: after the probe, and not all at once."""
        # a provider may ask for an hour: somebody may have mended it, or the mail may expire, long before
        first = min(max(self.closed.until if self.closed else now, now), now + self._probe_s)
        self._next_look = max(first, self._next_look + 1 / looks_per_s)
        return self._next_look - now

    def succeeded(self, given: Pass, now: float) -> bool:
        """The mailer works. Answers whether that opened the gate."""
        self._last_success = now
        self._accepted.put(given.sender, now)
        self._failed.clear()
        self._pace.count(now)
        if self.closed is None or not given.is_probe:
            return False
        self.open(now)
        return True

    def failed(self, given: Pass, diagnosis: Diagnosis, now: float) -> Scope:
        """The attempt failed and *diagnosis* is about more than the mail. Answers who is held, or failed with it."""
        if diagnosis.kind in (Kind.TRANSIENT, Kind.UNKNOWN):
            return self._count(given, diagnosis, now)
        before = self._suspects.get(given.mail_id)
        self._suspects.put(given.mail_id, now)
        if before is not None and self._last_success > before:
            # others succeeded since: it is this mail
            return Scope.MAIL
        if diagnosis.kind == Kind.CONFIGURATION and self._others_do(given.sender):
            return Scope.SENDER
        self._close(given, diagnosis, now)
        return Scope.MAILER

    def _count(self, given: Pass, diagnosis: Diagnosis, now: float) -> Scope:
        self._failed[given.mail_id] = None
        if self.closed is None and len(self._failed) < FAILURES:
            return Scope.MAIL
        self._close(given, diagnosis, now)
        return Scope.MAILER

    def _others_do(self, sender: str) -> bool:
        """Whether somebody else's mail was accepted since this sender's last was: then it is about the sender."""
        last, when = self._accepted.newest_except(sender)
        return last is not None and when > (self._accepted.get(sender) or float("-inf"))

    def _close(self, given: Pass, diagnosis: Diagnosis, now: float) -> None:
        reason = {Kind.CONFIGURATION: Reason.CONFIGURATION, Kind.THROTTLED: Reason.THROTTLED}.get(
            diagnosis.kind, Reason.DOWN
        )
        wait_s = self._probe_s
        if reason == Reason.THROTTLED:
            if self.closed is None or given.is_probe:
                self._throttles += 1
            wait_s = diagnosis.wait_s or min(THROTTLE_S * 2.0 ** min(self._throttles - 1, 16), self._probe_s)
        elif diagnosis.wait_s:
            wait_s = max(wait_s, diagnosis.wait_s)
        until = now + wait_s
        if self.closed is None:
            self.closed = Closed(reason=reason, text=diagnosis.text, since=now, until=until)
            self._ramp = None
        elif given.is_probe or reason == Reason.THROTTLED:
            self.closed.until = max(self.closed.until, until) if not given.is_probe else until

    def shut(self, closed: Closed) -> None:
        """Another process found it closed."""
        self.closed = closed
        self._ramp = None

    def open(self, now: float) -> None:
        """Open slowly."""
        if self.closed is None:
            return
        if self.closed.reason == Reason.THROTTLED:
            first = max(LEAST_RATE, self._pace.peak / 2)
            self._ramp = Ramp(now, first, THROTTLED_DOUBLING_S, OPEN_AT_AFTER_THROTTLE)
        else:
            self._ramp = Ramp(now, FIRST_RATE, DOUBLING_S, OPEN_AT)
            self._throttles = 0
        self.closed = None
        self._failed.clear()
        self._next_look = now

    @property
    def pace(self) -> float:
        """Mails a second that went through when it was last in use."""
        return self._pace.peak

    def probe_soon(self, now: float) -> None:
        """Somebody asked for an attempt now: the next mail is a probe."""
        if self.closed is not None:
            self.closed.until = min(self.closed.until, now)

    def rate(self, now: float) -> float:
        """Mails a second that may pass now."""
        if self.closed is not None:
            return 0.0
        return self._ramp.rate(now) if self._ramp else float("inf")


class Bucket:
    """Tokens that come at a rate, up to so many at once."""

    def __init__(self, now: float, tokens: float) -> None:
        self._tokens = tokens
        self._counted = now

    def has_one(self, now: float, rate: float, most: float) -> bool:
        """Whether there is one, when *rate* came each second and *most* were kept."""
        self._tokens = min(self._tokens + (now - self._counted) * rate, most)
        self._counted = now
        return self._tokens >= 1

    def take(self, least: float = 0.0) -> None:
        """One less; what is taken when there is none is owed, down to *least*."""
        self._tokens = max(least, self._tokens - 1)


class Ramp:
    """
    A pace that begins at *first* mails a second and doubles every *doubling_s*, until it is *open_at* times as fast.
    """

    def __init__(self, start: float, first: float, doubling_s: float, open_at: float) -> None:
        self._start = start
        self._first = first
        self._doubling_s = doubling_s
        self._last = first * open_at
        self._bucket = Bucket(start, 1.0)
        #: when the next of those who have to wait comes back
        self._next = start

    def rate(self, now: float) -> float:
        """Mails a second."""
        doublings = max(0.0, now - self._start) / self._doubling_s
        rate: float = self._first * 2.0 ** min(doublings, 30)
        return rate

    def is_over(self, now: float) -> bool:
        """Whether it lets everybody through."""
        return self.rate(now) >= self._last

    def may_pass(self, now: float) -> bool:
        """Whether one mail more may pass now; if so, it is counted."""
        rate = self.rate(now)
        if not self._bucket.has_one(now, rate, max(1.0, rate * BURST_S)):
            return False
        self._bucket.take()
        return True

    def turn(self, now: float) -> float:
        """Seconds until who may not pass now comes back: one after the other, at the pace they can pass."""
        self._next = max(now, self._next) + 1 / self.rate(now)
        return self._next - now


class Pace:
    """How many mails went through in a second: the newest whole one."""

    def __init__(self) -> None:
        self._second = 0
        self._count = 0
        self.peak = 0.0

    def count(self, now: float) -> None:
        """One mail more."""
        if int(now) != self._second:
            self.peak = float(self._count)
            self._second, self._count = int(now), 0
        self._count += 1
        self.peak = max(self.peak, float(self._count))


class _Memory:
    """When something was last seen, for the newest `MEMORY` of them."""

    def __init__(self) -> None:
        self._times: OrderedDict[str, float] = OrderedDict()

    def put(self, name: str, now: float) -> None:
        self._times[name] = now
        self._times.move_to_end(name)
        if len(self._times) > MEMORY:
            self._times.popitem(last=False)

    def get(self, name: str) -> float | None:
        return self._times.get(name)

    def newest_except(self, name: str) -> tuple[str | None, float]:
        for other in reversed(self._times):
            if other != name:
                return other, self._times[other]
        return None, float("-inf")
