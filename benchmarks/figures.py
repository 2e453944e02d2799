"""Waiting for what is measured, and what is said of many measurements."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TypeVar

T = TypeVar("T")

LIMIT_S = 240
LOOK_S = 0.02


def until(ask: Callable[[], T], is_enough: Callable[[T], bool], what: str, *, every_s: float = LOOK_S) -> T:
    """The first answer that is enough. Raises TimeoutError."""
    end = time.monotonic() + LIMIT_S
    while not is_enough(answer := ask()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what} not within {LIMIT_S} s")
        time.sleep(every_s)
    return answer


def quantile(values: Collection[float], share: float) -> float:
    """Of *values*, in any order, the one that so great a share of them is below: 0.5 is the median."""
    return sorted(values)[int(len(values) * share)]
