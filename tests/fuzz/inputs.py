"""What hypothesis makes hostile inputs of: anything, and good inputs with something wrong in one place."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "\0", "\ud800", "a\r\nb", "=?utf-8?q?=0A?=", "1e999", "0" * 50, "9" * 5000, "ann@example.org", "x" * 3000]
    ),
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, 2**31, 2**62, 2**63, 10**40, float("nan"), float("inf"), 1e308]),
)
#: whatever JSON, YAML or an AMQP table may hold
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
#: AMQP tables have bytes besides, and times
HEADERS = st.dictionaries(TEXTS, ANYTHING | st.binary(max_size=8) | st.datetimes(), max_size=4)


@st.composite
def damaged(draw: st.DrawFn, *good: Any) -> Any:
    """One of the *good* values, with another value, or nothing, in up to three places."""
    value = json.loads(json.dumps(draw(st.sampled_from(good))))
    for _ in range(draw(st.integers(0, 3))):
        value = _damage(draw, value)
    return value


def _damage(draw: st.DrawFn, value: Any) -> Any:
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(ANYTHING)
    if isinstance(value, dict):
        name = draw(st.sampled_from([*value]))
        match draw(st.sampled_from(["inside", "inside", "without", "renamed", "beside"])):
            case "inside":
                return {**value, name: _damage(draw, value[name])}
            case "without":
                return {other: item for other, item in value.items() if other != name}
            case "renamed":
                return {draw(TEXTS) if other == name else other: item for other, item in value.items()}
        return {**value, draw(TEXTS): draw(ANYTHING)}
    place = draw(st.integers(0, len(value) - 1))
    return [*value[:place], _damage(draw, value[place]), *value[place + 1 :]]


@st.composite
def damaged_bytes(draw: st.DrawFn, *good: bytes) -> bytes:
    """One of the *good* ones with pieces left out, doubled or put in; or any bytes."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=200))
    raw = draw(st.sampled_from(good))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(raw)))
        end = draw(st.integers(start, min(len(raw), start + 40)))
        raw = raw[:start] + draw(st.sampled_from([b"", raw[start:end] * 2]) | st.binary(max_size=6)) + raw[end:]
    return raw


def as_json(value: Any) -> bytes:
    """*value* as a sender might write it, NaN and halves of characters included."""
    return json.dumps(value, default=str).encode("utf-8", "surrogatepass")
