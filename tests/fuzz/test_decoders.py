"""Whoever reads what comes from outside returns, or raises the one error that says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.messages import examples

from .targets import TARGETS, Target


def fuzzed(target: Target, count: int) -> Callable[[], None]:
    """A test of *target* with *count* inputs. It has hypothesis' ``fuzz_one_input`` too."""

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    @given(target.inputs)
    def test(given_input: Any) -> None:
        # the text is shown to people, and written into a database
        assert len(_refusal(target, given_input)) < 20_000

    return test


def _refusal(target: Target, given_input: Any) -> str:
    try:
        target.read(given_input)
    except target.errors as refused:
        return str(refused)
    return ""


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_makes_it_raise_anything_else(name: str) -> None:
    fuzzed(TARGETS[name], examples(40))()
