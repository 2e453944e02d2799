from __future__ import annotations

import contextlib
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nameko_amqp_retry import Backoff, entrypoint_retry

from mail_service import clock, topology
from mail_service.delivery.backoff import (
    JITTER,
    RETRY_EXCHANGE,
    CountedMessage,
    backoff_class,
    levels_of,
    spread,
)
from mail_service.settings import DynamicSchedule, FixedSchedule, Schedule

from ..support.messages import examples

NOW_MS = 1_800_000_000_000
LONGEST_MS = topology.LEVELS_MS[-1]

FIXED = FixedSchedule(name="fixed", schedule_ms=(60_000,), limit=30)
IMPATIENT = FixedSchedule(name="impatient", schedule_ms=(100, 200, 500), limit=3)
DYNAMIC = DynamicSchedule(name="dynamic", first_ms=10_000, factor=4, longest_ms=10_800_000, max_age_ms=172_800_000)


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: NOW_MS)


def next_ms(
    schedule: Schedule, attempts: int, *, wait_s: float | None = None, headers: Mapping[str, object] | None = None
) -> int:
    """The wait after *attempts* retries."""
    return backoff_class(schedule)(wait_s=wait_s).next(CountedMessage(headers or {}, attempts), RETRY_EXCHANGE)


@pytest.mark.parametrize(
    ("schedule", "waits"),
    [
        pytest.param(FIXED, [60_000, 60_000, 60_000], id="fixed"),
        # the last item repeats
        pytest.param(FixedSchedule(name="x", schedule_ms=(1, 2), limit=0), [1, 2, 2, 2], id="repeats"),
        pytest.param(IMPATIENT, [100, 200, 500], id="impatient"),
        # 10 s, 40 s, 160 s, 640 s, 2560 s, then 3 h instead of 10 240 s * 4
        pytest.param(DYNAMIC, [10_000, 40_000, 160_000, 640_000, 2_560_000, 10_240_000, 10_800_000], id="dynamic"),
        # 12 * 5**attempts, which slimta asks for with 1 after the first failure
        pytest.param(
            DynamicSchedule(name="x", first_ms=60_000, factor=5, longest_ms=86_400_000, limit=5),
            [60_000, 300_000, 1_500_000, 7_500_000, 37_500_000],
            id="slimta's example",
        ),
        pytest.param(
            DynamicSchedule(name="x", first_ms=100, factor=1.5, longest_ms=300),
            [100, 150, 225, 300, 300],
            id="fraction",
        ),
        pytest.param(DynamicSchedule(name="x", first_ms=100, factor=1, longest_ms=300), [100, 100], id="does not grow"),
        pytest.param(
            DynamicSchedule(name="x", first_ms=500, factor=4, longest_ms=300), [300, 300], id="longest is less"
        ),
    ],
)
def test_a_schedule_waits(schedule: Schedule, waits: list[int]) -> None:
    assert [next_ms(schedule, attempts) for attempts in range(len(waits))] == waits


def test_a_limit_of_three_is_three_retries() -> None:
    with pytest.raises(Backoff.Expired, match="'3' retries"):
        next_ms(IMPATIENT, 3)


def test_a_limit_of_zero_is_none() -> None:
    assert next_ms(FixedSchedule(name="x", schedule_ms=(5,), limit=0), 1_000_000) == 5


@pytest.mark.parametrize("attempts", [500, 1000, 100_000])
@pytest.mark.parametrize("factor", [1, 1.0001, 4, 1000])
def test_a_power_that_no_float_holds_is_the_longest_wait(attempts: int, factor: float) -> None:
    schedule = DynamicSchedule(name="x", first_ms=10, factor=factor, longest_ms=11)

    assert next_ms(schedule, attempts) in (10, 11)
    assert factor < 4 or next_ms(schedule, attempts) == 11


def test_every_class_is_a_subclass_with_its_schedules_name() -> None:
    own = backoff_class(IMPATIENT)

    assert issubclass(own, Backoff)
    assert own.__name__ == "ImpatientBackoff"
    # one schedule must not change another
    assert Backoff.limit == 20
    assert backoff_class(FIXED).limit == 30


class TestMaxAge:
    SCHEDULE = FixedSchedule(name="x", schedule_ms=(1000,), limit=0, max_age_ms=10_000)

    @pytest.mark.parametrize(
        ("age_ms", "expires"),
        [
            pytest.param(0, False, id="just accepted"),
            pytest.param(9000, False, id="due at its end"),
            pytest.param(9001, True, id="due after its end"),
            pytest.param(999_999, True, id="long after"),
            pytest.param(-5000, False, id="a clock is wrong"),
        ],
    )
    def test_a_retry_that_is_due_after_it_is_not_waited_for(self, age_ms: int, *, expires: bool) -> None:
        headers = {topology.SUBMITTED: NOW_MS - age_ms}

        if expires:
            with pytest.raises(Backoff.Expired, match="later than 10 seconds"):
                next_ms(self.SCHEDULE, 0, headers=headers)
        else:
            assert next_ms(self.SCHEDULE, 0, headers=headers) == 1000

    def test_the_wait_that_somebody_asked_for_counts(self) -> None:
        with pytest.raises(Backoff.Expired):
            next_ms(self.SCHEDULE, 0, wait_s=11, headers={topology.SUBMITTED: NOW_MS})

    @pytest.mark.parametrize("forged", [None, "yesterday", 1.5, [], {}])
    def test_a_header_that_is_no_time_is_no_age(self, forged: object) -> None:
        assert next_ms(self.SCHEDULE, 0, headers={topology.SUBMITTED: forged}) == 1000

    def test_the_built_in_dynamic_schedule_ends_within_48_hours(self) -> None:
        """Six waits up to 10 240 s make 3.8 h; then 14 or 15 of 3 h each."""
        waits: list[int] = []
        with contextlib.suppress(Backoff.Expired):
            while len(waits) < 100:
                waits.append(next_ms(DYNAMIC, len(waits), headers={topology.SUBMITTED: NOW_MS - sum(waits)}))

        assert len(waits) == 20
        assert 45 * 3_600_000 < sum(waits) <= 48 * 3_600_000


@pytest.mark.parametrize(
    ("wait_s", "delay_ms"),
    [
        pytest.param(None, 100, id="nobody asked"),
        pytest.param(0, 100, id="zero"),
        pytest.param(0.05, 100, id="shorter"),
        pytest.param(0.1, 100, id="equal"),
        pytest.param(7.5, 7500, id="longer"),
    ],
)
def test_the_longer_of_the_schedules_wait_and_the_one_asked_for_wins(wait_s: float | None, delay_ms: int) -> None:
    assert next_ms(IMPATIENT, 0, wait_s=wait_s) == delay_ms


def test_a_wait_that_was_asked_for_does_not_lift_the_limit() -> None:
    with pytest.raises(Backoff.Expired):
        next_ms(IMPATIENT, 3, wait_s=60)


class TestCountedMessage:
    class Own(Backoff):
        schedule = (10, 20, 30)
        limit = 2
        random_sigma = 0

    def test_a_users_own_backoff_counts_by_it(self) -> None:
        waits = [self.Own().next(CountedMessage({}, attempts), RETRY_EXCHANGE) for attempts in range(2)]

        assert waits == [10, 20]
        with pytest.raises(Backoff.Expired):
            self.Own().next(CountedMessage({}, 2), RETRY_EXCHANGE)

    def test_entrypoint_retry_counts_by_it(self) -> None:
        @entrypoint_retry(retry_for=OSError, limit=1, schedule=(10,), random_sigma=0)
        def handler() -> None:
            raise OSError

        with pytest.raises(Backoff) as raised:
            handler()
        assert raised.value.next(CountedMessage({}, 0), RETRY_EXCHANGE) == 10
        with pytest.raises(Backoff.Expired):
            raised.value.next(CountedMessage({}, 1), RETRY_EXCHANGE)

    def test_a_forged_x_death_is_not_counted(self) -> None:
        forged = {"x-death": [{"exchange": RETRY_EXCHANGE, "count": 99}], "kept": 1}

        assert self.Own().next(CountedMessage(forged, 0), RETRY_EXCHANGE) == 10
        assert CountedMessage(forged, 0).headers["kept"] == 1


@given(st.floats(min_value=0, max_value=1e12), st.floats(min_value=0, max_value=1, exclude_max=True))
def test_jitter_only_lengthens_and_by_8_percent_at_most(delay_ms: float, draw: float) -> None:
    assert int(delay_ms) <= spread(delay_ms, draw) <= delay_ms * (1 + JITTER)


@given(st.integers(min_value=100, max_value=LONGEST_MS * 25 // 27), st.floats(min_value=0, max_value=1))
def test_a_level_with_jitter_is_at_most_a_quarter_longer_than_the_delay(delay_ms: int, draw: float) -> None:
    assert delay_ms <= topology.level_for(spread(delay_ms, draw)) <= delay_ms * 1.25


waits = st.integers(min_value=1, max_value=31_536_000_000)
schedules: st.SearchStrategy[Schedule] = st.one_of(
    st.builds(FixedSchedule, name=st.just("x"), schedule_ms=st.lists(waits, min_size=1, max_size=8).map(tuple)),
    st.builds(
        DynamicSchedule,
        name=st.just("x"),
        first_ms=waits,
        factor=st.floats(min_value=1, max_value=1000),
        longest_ms=waits,
    ),
)


@settings(max_examples=examples(30))
@given(schedules, st.floats(min_value=0, max_value=1, exclude_max=True))
def test_the_levels_of_a_schedule_cover_every_delay_that_it_can_make(schedule: Schedule, draw: float) -> None:
    levels = levels_of(schedule)
    delays = (next_ms(schedule, attempts) for attempts in range(150))

    assert levels <= set(topology.LEVELS_MS)
    assert {topology.level_for(spread(delay, draw)) for delay in delays} <= levels


@pytest.mark.parametrize(
    ("schedule", "levels"),
    [
        # 60 s + 8 % = 64.8 s
        pytest.param(FIXED, {62_000, 68_000}, id="fixed"),
        # 100 to 108, 200 to 216, 500 to 540 ms
        pytest.param(IMPATIENT, {100, 110, 200, 220, 510, 560}, id="impatient"),
        pytest.param(FixedSchedule(name="x", schedule_ms=(1,), limit=1), {100}, id="shorter than the shortest"),
        pytest.param(
            FixedSchedule(name="x", schedule_ms=(10**10,), limit=1), {620_000_000}, id="longer than the longest"
        ),
        # a wait that comes twice does not hide those after it
        pytest.param(
            FixedSchedule(name="x", schedule_ms=(100, 100, 100, 1000), limit=9),
            {100, 110, 1000, 1100},
            id="repeated item",
        ),
    ],
)
def test_levels_of(schedule: Schedule, levels: set[int]) -> None:
    assert levels_of(schedule) == levels
