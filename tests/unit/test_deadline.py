"""Attempts end in time, whatever a backend does. eventlet runs here unpatched: what blocks is never called."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import eventlet
import pytest
from eventlet.event import Event

from mail_service.delivery.deadline import Deadline, Exited
from mail_service.diagnosis import DeadlineExceeded
from tests.support.waiting import eventually


def test_what_an_attempt_returns_is_returned() -> None:
    assert Deadline(5).run(lambda: "accepted") == "accepted"


def test_what_an_attempt_raises_is_raised() -> None:
    def refuse() -> NoReturn:
        raise ValueError("no such user")

    with pytest.raises(ValueError, match="no such user"):
        Deadline(5).run(refuse)


def test_what_is_raised_says_where() -> None:
    def refuse() -> NoReturn:
        raise ValueError("no such user")

    with pytest.raises(ValueError, match="no such user") as raised:
        Deadline(5).run(refuse)

    assert "refuse" in [entry.name for entry in raised.traceback]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_backend_cannot_end_the_process(error: type[BaseException]) -> None:
    def leave() -> NoReturn:
        raise error

    with pytest.raises(Exited, match=error.__name__):
        Deadline(5).run(leave)


def test_an_attempt_without_an_end_is_ended() -> None:
    stopped = []

    def hang() -> None:
        try:
            Event().wait()
        finally:
            stopped.append(True)

    with pytest.raises(DeadlineExceeded, match=r"no end after 0\.05 seconds"):
        Deadline(0.05).run(hang)
    assert stopped


def test_a_backend_that_swallows_everything_does_not_keep_the_worker() -> None:
    swallowed: list[Any] = []
    finish = Event()

    def stubborn() -> None:
        while not finish.ready():
            try:
                eventlet.sleep(0.01)
            except BaseException as exc:  # noqa: BLE001 - that is what makes it stubborn
                swallowed.append(exc)

    with pytest.raises(DeadlineExceeded):
        Deadline(0.05).run(stubborn)
    assert swallowed
    finish.send(None)
    eventlet.sleep(0.02)


def test_what_comes_after_the_end_is_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    done = []

    def late() -> None:
        try:
            Event().wait()
        except BaseException:  # noqa: BLE001
            eventlet.sleep(0.05)
            done.append(True)
            raise ValueError("too late") from None

    with pytest.raises(DeadlineExceeded):
        Deadline(0.05).run(late)
    eventually(lambda: eventlet.sleep(0.01) or done)
    eventlet.sleep(0.01)

    assert capsys.readouterr().err == ""


def test_a_timeout_of_the_backends_own_is_its_own() -> None:
    def impatient() -> None:
        with eventlet.Timeout(0.01):
            Event().wait()

    with pytest.raises(Exited, match="Timeout"):
        Deadline(5).run(impatient)


def test_cut_short_ends_what_is_running() -> None:
    deadline = Deadline(60)
    running = [eventlet.spawn(deadline.run, Event().wait) for _ in range(3)]
    eventlet.sleep(0.01)

    deadline.cut_short()

    for greenlet in running:
        with pytest.raises(DeadlineExceeded, match="the service is stopping"):
            greenlet.wait()


def test_cut_short_ends_what_comes_after_it_too() -> None:
    deadline = Deadline(60)
    deadline.cut_short()

    with pytest.raises(DeadlineExceeded, match="the service is stopping"):
        deadline.run(Event().wait)


def test_cut_short_leaves_alone_what_has_ended() -> None:
    deadline = Deadline(60)
    ended = eventlet.spawn(deadline.run, lambda: "accepted")
    eventlet.sleep(0.01)

    deadline.cut_short()

    assert ended.wait() == "accepted"


def test_two_attempts_at_once_end_each_for_itself() -> None:
    deadline = Deadline(0.2)
    hanging = eventlet.spawn(deadline.run, Event().wait)

    assert deadline.run(lambda: "accepted") == "accepted"
    with pytest.raises(DeadlineExceeded):
        hanging.wait()


def test_nothing_was_monkey_patched_here() -> None:
    from eventlet import patcher

    assert not patcher.is_monkey_patched("socket"), sys.modules.keys()
