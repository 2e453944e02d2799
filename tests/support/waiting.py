"""Waits for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def eventually(condition: Callable[[], Value], timeout_s: float = 30, *, every_s: float = 0.02) -> Value:
    """
    Call *condition* until it answers something true, and give that.

    After *timeout_s* an assertion fails with the last answer. An AssertionError of *condition* counts as "not yet".
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            answer: Value | AssertionError = condition()
        except AssertionError as error:
            answer = error
        if answer and not isinstance(answer, AssertionError):
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s; last answer: {answer!r}")
        time.sleep(every_s)
