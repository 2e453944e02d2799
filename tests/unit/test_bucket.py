"""Turns under a limit: as many as it allows in any window, and none that is not needed is lost."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

import pytest

from mail_service.limits.bucket import AHEAD_S, LOOK_S, SLACK_S, Count, grant
from mail_service.settings import Limit

#: 2026-11-22T03:00:00Z, seconds since the epoch
NOW = 1_795_316_400.0
DAY_S = 86_400


def turns(limit: Limit, seconds: float, *, every_s: float = 0.05, start: float = NOW, askers: int = 1) -> list[float]:
    """When mail goes that somebody asks for all the time, by the clock."""
    count, moment, given = Count(), start, []
    while moment < start + seconds:
        for _ in range(askers):
            count, granted = grant(limit, count, now=moment, wanted=1000)
            given += [moment + beat for beat in granted.beats]
        moment += every_s
    return given


def most_in(times: list[float], window_s: float) -> int:
    times = sorted(times)
    return max(bisect_left(times, begin + window_s) - index for index, begin in enumerate(times))


@pytest.mark.parametrize(
    ("rate", "per"),
    [(14, 1), (100, 1), (1000, 1), (100, 60), (1, 1)],
    ids=["14 a second", "100 a second", "1000 a second", "100 a minute", "1 a second"],
)
@pytest.mark.parametrize("askers", [1, 4])
def test_ten_seconds_have_what_the_rate_says(rate: float, per: float, askers: int) -> None:
    times = turns(Limit(rate=rate, per=per), 20, askers=askers)

    expected = 10 * rate / per
    # a closed window has one beat more than its length says, and what goes at once after a pause
    assert expected * 0.99 - 1 <= most_in(times, 10) <= expected + 1 + SLACK_S * rate / per


def test_turns_are_spaced() -> None:
    times = turns(Limit(rate=20), 5)[5:]

    assert {round(later - sooner, 3) for sooner, later in pairwise(times)} == {0.05}


def test_after_a_pause_a_burst_may_go_at_once() -> None:
    _, granted = grant(Limit(rate=2, burst=5), Count(tat=NOW - 100), now=NOW, wanted=1000)

    assert granted.beats == (0,) * 5


def test_a_burst_of_one_is_none() -> None:
    _, granted = grant(Limit(rate=2, burst=1), Count(tat=NOW - 100), now=NOW, wanted=1000)

    assert granted.beats == (0,)


def test_no_more_is_given_than_is_wanted() -> None:
    count, granted = grant(Limit(rate=1000), Count(), now=NOW, wanted=3)

    assert len(granted.beats) == 3
    assert count.tat == pytest.approx(NOW - SLACK_S + 3 / 1000)


def test_who_has_to_wait_is_told_how_long() -> None:
    limit = Limit(rate=1, per=10)
    count, _ = grant(limit, Count(), now=NOW, wanted=1)

    count, refused = grant(limit, count, now=NOW + 1, wanted=1)

    assert refused.beats == ()
    # the next beat is at 10 s less what was made up for, and is given a quarter of a second before
    assert refused.again_s == pytest.approx(10 - SLACK_S - 1 - AHEAD_S)
    _, given = grant(limit, count, now=NOW + 1 + refused.again_s + 0.001, wanted=1)
    assert given.beats == pytest.approx((AHEAD_S - 0.001,))


def test_turns_that_were_not_used_are_given_to_others() -> None:
    limit = Limit(rate=20)
    count, first = grant(limit, Count(tat=NOW), now=NOW, wanted=5)

    _, second = grant(limit, count, now=NOW, wanted=5, unused=5)

    assert second == first


def test_what_was_lost_to_all_does_not_come_back_as_somebodys_own() -> None:
    limit = Limit(rate=20)

    _, granted = grant(limit, Count(tat=NOW - 60), now=NOW, wanted=1000, unused=100)

    assert len(granted.beats) <= (SLACK_S + AHEAD_S) * 20 + 1


def test_a_clock_that_was_set_back_stops_nobody() -> None:
    _, granted = grant(Limit(rate=20), Count(tat=NOW + 3600), now=NOW, wanted=1)

    assert granted.again_s < 1


def test_a_day_has_so_many_and_the_rest_waits_for_midnight() -> None:
    limit = Limit(day=5)
    count, granted = grant(limit, Count(), now=NOW, wanted=3)
    count, rest = grant(limit, count, now=NOW, wanted=3)

    count, refused = grant(limit, count, now=NOW, wanted=3)

    assert (len(granted.beats), len(rest.beats), refused.beats) == (3, 2, ())
    assert (granted.left, rest.left, refused.left) == (2, 0, 0)
    assert refused.again_s == 21 * 3600
    _, tomorrow = grant(limit, count, now=NOW + DAY_S, wanted=3)
    assert len(tomorrow.beats) == 3


def test_a_turn_of_the_day_that_was_not_used_counts_for_nobody() -> None:
    limit = Limit(day=5)
    count, _ = grant(limit, Count(), now=NOW, wanted=5)

    count, granted = grant(limit, count, now=NOW, wanted=5, unused=2)

    assert (len(granted.beats), count.used) == (2, 5)


def test_no_more_may_begin_than_others_leave_room_for() -> None:
    _, granted = grant(Limit(rate=100, concurrency=10), Count(), now=NOW, wanted=9, free=2)
    _, refused = grant(Limit(concurrency=10), Count(), now=NOW, wanted=9, free=0)

    assert len(granted.beats) == 2
    assert (refused.beats, refused.again_s) == ((), LOOK_S)
