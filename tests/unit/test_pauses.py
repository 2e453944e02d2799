"""What one process makes of pauses: whom they hold, how often held mail looks again, and how they end."""

from __future__ import annotations

from typing import Any

import eventlet
import pytest

from mail_service import clock
from mail_service.holds import Pauses
from mail_service.ledger.pauses import Pause
from mail_service.ledger.records import Mail
from mail_service.outcome import Status
from tests.support.shared_pauses import SharedPauses
from tests.support.waiting import eventually


class Process:
    """One process's view, with a clock that stands still."""

    def __init__(self, store: SharedPauses) -> None:
        self.time = 1000.0
        self.released: list[tuple[Pause, float]] = []
        self.pauses = Pauses(
            store,
            hold_probe_s=30,
            release=lambda pause, rate: self.released.append((pause, rate())),
            monotonic=lambda: self.time,
        )


def a_pause(**about: Any) -> Pause:
    return Pause(**{"since": clock.now_iso(), **about})


def a_mail(**about: Any) -> Mail:
    return Mail(**{"id": "m", "status": Status.QUEUED, "mailer": "default", **about})


def in_seconds(seconds: float) -> str:
    return clock.iso(clock.later(seconds))


@pytest.fixture
def store() -> SharedPauses:
    return SharedPauses()


def test_a_process_hears_of_a_pause_before_its_next_attempt(store: SharedPauses) -> None:
    process = Process(store)
    assert process.pauses.of(a_mail()) is None

    store.put(a_pause(mailer="default", reason="why"))

    held = process.pauses.of(a_mail())
    assert held is not None
    assert held.text.startswith("paused (mailer default) since ")
    assert held.text.endswith(": why")
    assert process.pauses.of(a_mail(mailer="other")) is None


def test_held_mail_looks_again_before_the_probes_interval_is_over_and_not_all_at_once(store: SharedPauses) -> None:
    store.put(a_pause())
    process = Process(store)

    # 0.8 * 30 s, then one each 1/50 s
    assert [process.pauses.look(a_mail()) for _ in range(3)] == pytest.approx([24, 24.02, 24.04])


def test_held_mail_looks_again_when_the_pause_ends(store: SharedPauses) -> None:
    store.put(a_pause(until=in_seconds(5)))

    assert Process(store).pauses.look(a_mail()) == pytest.approx(5, abs=0.5)


def test_held_mail_hears_of_the_end_within_a_second(store: SharedPauses) -> None:
    process = Process(store)
    store.put(a_pause())
    assert process.pauses.look(a_mail()) is not None
    store.clear()

    process.time += 1.1

    assert process.pauses.look(a_mail()) is None


def test_of_several_pauses_the_one_that_ends_last_is_told(store: SharedPauses) -> None:
    for about in ({"until": in_seconds(60)}, {"tenant": "t"}, {"mailer": "default", "until": in_seconds(600)}):
        store.put(a_pause(**about))
    process = Process(store)

    held, other = process.pauses.of(a_mail(tenant="t")), process.pauses.of(a_mail())

    assert held is not None
    assert other is not None
    assert "(tenant t)" in held.text
    assert "(mailer default)" in other.text


def test_what_is_over_holds_nothing_even_before_anybody_ended_it(store: SharedPauses) -> None:
    store.put(a_pause(until=in_seconds(-1)))
    process = Process(store)

    assert process.pauses.of(a_mail()) is None
    assert process.pauses.all() == []


def test_while_the_database_is_away_what_was_known_holds(store: SharedPauses) -> None:
    store.put(a_pause())
    process = Process(store)
    process.pauses.of(a_mail())
    store.is_away = True
    process.time += 60

    assert process.pauses.look(a_mail()) is not None
    assert process.pauses.of(a_mail()) is not None


def test_one_process_ends_what_is_over_and_lets_its_mail_go(store: SharedPauses) -> None:
    processes = [Process(store), Process(store)]
    store.put(over := a_pause(until=in_seconds(-1)))
    watchers = [eventlet.spawn(process.pauses.watch) for process in processes]
    try:
        eventually(lambda: eventlet.sleep(0) or processes[0].released + processes[1].released)
    finally:
        for watcher in watchers:
            watcher.kill()

    assert [pause for process in processes for pause, _ in process.released] == [over]
    assert store.all()[1] == []


@pytest.mark.parametrize(("is_paused_again", "rate"), [(False, float("inf")), (True, 0.0)])
def test_mail_goes_at_once_unless_it_is_paused_again(store: SharedPauses, is_paused_again: bool, rate: float) -> None:
    process = Process(store)
    if is_paused_again:
        store.put(a_pause(mailer="a"))
    process.pauses.all()

    process.pauses.ended([a_pause(mailer="a")])
    eventlet.sleep(0)

    assert [each for _, each in process.released] == [rate]


@pytest.mark.parametrize(
    ("about", "key", "stops"),
    [
        ({"mailer": "second"}, "second", True),
        ({"mailer": "second"}, "second/t", True),
        ({"mailer": "second"}, "third", False),
        ({"mailer": "second", "priority": "bulk"}, "second", False),
    ],
)
def test_a_mailer_that_is_paused_for_a_mail_may_not_stand_in(
    store: SharedPauses, about: dict[str, str], key: str, stops: bool
) -> None:
    store.put(a_pause(**about))
    process = Process(store)
    process.pauses.all()

    assert process.pauses.stop(a_mail(tenant="t"), key) is stops


def test_what_is_logged_of_a_pause_names_no_tenant() -> None:
    said = a_pause(mailer="default", tenant="ann@example.org", priority="bulk").criteria.loggable

    assert said == "mailer default, tenant (one), priority bulk"
