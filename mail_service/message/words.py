"""Words for what is wrong with a value, without showing the value."""

from __future__ import annotations

import json
from collections.abc import Collection
from difflib import get_close_matches

_NAMES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (type(None), "null"),
    (bool, "a boolean"),  # before int, whose subclass it is
    ((int, float), "a number"),
    (str, "a string"),
    ((list, tuple), "a list"),
    (dict, "an object"),
)


def got(value: object) -> str:
    """Name the JSON type of *value*: ``a number``, ``null``, or Python's name for what is not JSON."""
    for types, name in _NAMES:
        if isinstance(value, types):
            return name
    return f"a Python {type(value).__name__}"


def nearest(name: object, known: Collection[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest of *known*, or an empty string."""
    close = get_close_matches(str(name)[:100], known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def key(name: object) -> str:
    """Return ``["X-Foo"]``, the place of *name* in an object, cut where it is very long."""
    return f"[{json.dumps(str(name)[:100])}]"
