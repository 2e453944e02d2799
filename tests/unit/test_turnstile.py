"""A turnstile knows of mail that other processes have put into its queues only after a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import eventlet
import pytest

from mail_service.ledger.turns import TurnQueue, Wish
from mail_service.limits.bucket import Grant
from mail_service.limits.turnstile import Turnstile
from mail_service.settings import Limit

QUEUE = TurnQueue(name="mail.turn.v1.bulk.x.0", key="mailer:default", lane="bulk", part=0)


class Crowd:
    """Turns, a queue and workers: one mail passes after the other, and *behind* are as many as others put in."""

    has_room = True
    is_full = False

    def __init__(self, behind: int) -> None:
        self.behind = behind
        self.turnstile: Turnstile

    def ask(self, _wish: Wish) -> Grant:
        return Grant(beats=(0.0,))

    def get(self, _name: str) -> Any:
        return SimpleNamespace(delivery_info={"message_count": self.behind})

    def take(self, _message: object, turnstile: Turnstile) -> None:
        eventlet.sleep(0)
        turnstile.done(was_used=True)

    def tend(self, *, is_needed: bool) -> None:
        """There is no connection."""

    def share(self, _message: object) -> None:
        raise AssertionError("nobody shares here")


@pytest.fixture
def pass_by() -> Iterator[Callable[[int], list[str]]]:
    """What was said of a mail that was expected to pass at once, when a hundred have passed before so many others."""
    turnstiles: list[Turnstile] = []

    def passed(behind: int) -> list[str]:
        crowd, said, seconds = Crowd(behind), list[str](), count()
        turnstile = Turnstile(
            QUEUE.key,
            limit=lambda: Limit(rate=10),
            turns=crowd,
            source=crowd,  # type: ignore[arg-type]  # as much of it as is needed
            takers={"bulk": crowd},
            monotonic=lambda: next(seconds) / 100,
        )
        turnstiles.append(turnstile)
        turnstile.add(QUEUE)
        turnstile.came(QUEUE.name)
        turnstile.remember("bulk", lambda: said.append("it takes longer"))
        for _ in range(200):
            eventlet.sleep(0)
        return said

    yield passed
    for turnstile in turnstiles:
        turnstile.close()


def test_mail_that_was_expected_to_pass_at_once_is_told_of_behind_many_others(
    pass_by: Callable[[int], list[str]],
) -> None:
    assert pass_by(50) == ["it takes longer"]


def test_nothing_is_said_while_all_pass_within_a_moment(pass_by: Callable[[int], list[str]]) -> None:
    assert pass_by(2) == []
