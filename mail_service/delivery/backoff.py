"""
From a configured schedule to a subclass of nameko-amqp-retry's Backoff, and from a delay to a delay with jitter.

A Backoff answers one question, ``next(message, exchange)``: how many milliseconds until the next attempt? It counts the
attempts from the message's ``x-death``, which RabbitMQ 4 no longer keeps for us. So the publisher hands it a message
whose ``x-death`` is made from our own header, and every Backoff subclass counts right on every broker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nameko_amqp_retry import Backoff

from mail_service import clock, topology
from mail_service.settings import DynamicSchedule, FixedSchedule, Schedule

#: What a Backoff looks for in ``x-death``. Any name does, as long as both sides use the same.
RETRY_EXCHANGE = "backoff"

#: A delay is lengthened by up to this share: 8 % and the 15.4 % between two levels stay inside the promised 25 %.
JITTER = 0.08


class CountedMessage:
    """As much of a message as ``Backoff.next`` looks at: headers that say how often it was retried."""

    def __init__(self, headers: Mapping[str, Any], attempts: int) -> None:
        self.headers = {**headers, "x-death": [{"exchange": RETRY_EXCHANGE, "count": attempts}]}


class MailBackoff(Backoff):
    """
    Backoff of a configured schedule: its own delays, or the wait the other side asked for where that is longer.

    Jitter is not added here (``random_sigma`` is 0): an absolute sigma spreads nothing when the delay is an hour.
    """

    random_sigma = 0
    #: milliseconds from the mail's acceptance; a retry that is due after it is not waited for
    max_age_ms: int | None = None

    def __init__(self, *args: object, wait_s: float | None = None) -> None:
        super().__init__(*args)
        self.wait_s = wait_s

    def next(self, message: CountedMessage, backoff_exchange_name: str) -> int:
        """Milliseconds until the next attempt. Raises Backoff.Expired when there is none."""
        delay_ms = max(int(super().next(message, backoff_exchange_name)), int((self.wait_s or 0) * 1000))
        submitted_ms = message.headers.get(topology.SUBMITTED)
        if (
            self.max_age_ms is not None
            and isinstance(submitted_ms, int)
            and clock.now_ms() + delay_ms > submitted_ms + self.max_age_ms
        ):
            raise Backoff.Expired(
                f"its next attempt would be later than {self.max_age_ms / 1000:g} seconds after acceptance"
            )
        self._next_expiration = delay_ms
        return delay_ms


def backoff_class(schedule: Schedule) -> type[MailBackoff]:
    """The Backoff subclass that retries as *schedule* says."""
    match schedule:
        case FixedSchedule():
            members: dict[str, object] = {"schedule": tuple(schedule.schedule_ms)}
        case DynamicSchedule():
            members = {"get_next_schedule_item": staticmethod(lambda index: _dynamic_ms(schedule, index))}
    members |= {"limit": schedule.limit, "max_age_ms": schedule.max_age_ms}
    return type(f"{schedule.name.title()}Backoff", (MailBackoff,), members)


def _dynamic_ms(schedule: DynamicSchedule, index: int) -> int:
    """
    ``min(longest, first * factor ** index)``; the power may exceed what a float holds, long after it exceeds longest.
    """
    try:
        return int(min(schedule.longest_ms, schedule.first_ms * schedule.factor**index))
    except OverflowError:
        return schedule.longest_ms


def spread(delay_ms: float, draw: float) -> int:
    """*delay_ms* lengthened by 0 to 8 %, so that what failed together does not come back together; *draw* in [0, 1)."""
    return int(delay_ms * (1 + JITTER * draw))


#: retries of a schedule whose levels are declared at start; those of later ones are declared when they are first used
_FORESEEN = 1000


def levels_of(schedule: Schedule) -> set[int]:
    """The delay levels that *schedule* can need with any jitter, in milliseconds; they are declared at start."""
    backoff = backoff_class(schedule)
    delays = {backoff.get_next_schedule_item(index) for index in range(min(schedule.limit or _FORESEEN, _FORESEEN))}
    return levels_for(delays)


def levels_for(delays: Iterable[float]) -> set[int]:
    """The delay levels that *delays*, in milliseconds, can need with any jitter."""
    return {
        level
        for delay_ms in delays
        for level in topology.LEVELS_MS
        if topology.level_for(delay_ms) <= level <= topology.level_for(spread(delay_ms, 1))
    }
