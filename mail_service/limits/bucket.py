"""
When the next mails under a limit may go. Pure: the state that all processes share goes in, and comes out.

It is the generic cell rate algorithm (ITU-T I.371, 2004): one number, the time at which the next mail would be right on
the beat (*tat*, the theoretical arrival time), says it all. Whoever asks gets the beats of the next quarter of a second
for himself and lets one mail go at each, so that a busy limit costs a few small writes a second, whatever its rate, and
mails are spaced instead of coming in bursts. Beats that are given and not used are given back, or lost with their
process; a limit is never exceeded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from mail_service.settings import Limit

#: how far ahead beats are given, seconds
AHEAD_S: Final = 0.25
#: What was missed because nobody asked in time may be made up for, seconds: so ten seconds have at most 2 % above the
#: rate, and 3 % are left for mail servers that answer now sooner, now later. A busy machine loses as much in one go.
SLACK_S: Final = 0.2
#: until who waits for somebody else's attempt to end asks again, seconds
LOOK_S: Final = 0.1
#: beats given at once, where the rate would allow more
MOST: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What all processes share about one limit."""

    #: seconds since the epoch, by the database's clock
    tat: float = 0.0
    #: of *used*: ISO 8601, UTC
    day: str = ""
    #: mails of that day
    used: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Turns. Each is so many seconds from now, the first of them soonest."""

    beats: tuple[float, ...] = ()
    #: where there are none: seconds until it is worth asking again
    again_s: float = 0.0
    #: of the day's, where these are limited: how many are left
    left: int | None = None


def grant(
    limit: Limit, count: Count, *, now: float, wanted: int, unused: int = 0, free: int | None = None
) -> tuple[Count, Grant]:
    """
    Give up to *wanted* turns.

    Args:
        unused: Turns that were given before and not used.
        free: Attempts that may begin besides those in flight; None is no limit.
    """
    day = _day(now)
    used = max(0, count.used - unused) if count.day == day else 0
    # turns that are past and were lost to all must not come back as somebody's own
    tat = count.tat - unused * _beat(limit) if count.tat > now else count.tat
    count = replace(count, tat=tat, day=day, used=used)
    if limit.day is not None and used >= limit.day:
        return count, Grant(again_s=seconds_to_midnight(now), left=0)
    if free is not None and free <= 0:
        return count, Grant(again_s=LOOK_S, left=left_of(limit, count, now))
    left = None if limit.day is None else limit.day - used
    most = min(wanted, MOST, *(each for each in (free, left) if each is not None))
    count, given = _on_the_beat(limit, count, now, most)
    return count, replace(given, left=left_of(limit, count, now))


def left_of(limit: Limit, count: Count, now: float) -> int | None:
    """How many mails the day still has, None where they are not limited."""
    if limit.day is None:
        return None
    return max(0, limit.day - count.used) if count.day == _day(now) else limit.day


def _on_the_beat(limit: Limit, count: Count, now: float, most: int) -> tuple[Count, Grant]:
    if limit.rate is None:
        return replace(count, used=count.used + most), Grant(beats=(0.0,) * most)
    beat = _beat(limit)
    # none is ever given further ahead than this: else the clock was set back
    tat = min(count.tat, now + AHEAD_S + beat)
    slack = (limit.burst - 1) * beat if limit.burst is not None else SLACK_S
    first = max(tat, now - slack)
    if first > now + AHEAD_S:
        return replace(count, tat=tat), Grant(again_s=first - now - AHEAD_S)
    number = min(most, math.floor((now + AHEAD_S - first) / beat) + 1)
    beats = tuple(max(0.0, first + index * beat - now) for index in range(number))
    return replace(count, tat=first + number * beat, used=count.used + number), Grant(beats=beats)


def _day(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).date().isoformat()


def _beat(limit: Limit) -> float:
    """Seconds from one mail to the next."""
    return limit.per / limit.rate if limit.rate is not None else 0.0


def seconds_to_midnight(now: float) -> float:
    """Until the next day of UTC begins."""
    moment = datetime.fromtimestamp(now, UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight - moment).total_seconds()
