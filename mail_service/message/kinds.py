"""
Which Python types stood where JSON has only a string: the optional field ``types`` of a message.

A message from Django may hold a ``Decimal`` in its metadata or a number as a header's value. On the wire they are the
strings that one expects; ``types`` says beside them, by JSON pointer (RFC 6901), what they were, so that the backend
meets the same object. ``{"metadata": {"price": "19.90"}, "types": {"/metadata/price": "decimal"}}``

Whoever writes messages by hand needs none of this.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Decimal
from email import charset
from typing import Any
from uuid import UUID

_TRUTH = {"True": True, "False": False}

#: kind -> how to make the object from its string; raises ValueError or one of its like
_FROM_TEXT: Mapping[str, Callable[[str], object]] = {
    "decimal": Decimal,
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "uuid": UUID,
    "integer": int,
    "float": float,
    "boolean": _TRUTH.__getitem__,
}

#: what only a place that holds nothing but strings needs to have named: a header, a tag
_PLAIN: Mapping[type, tuple[str, Callable[[Any], str]]] = {
    bool: ("boolean", bool.__repr__),  # before int, whose subclass it is
    int: ("integer", int.__repr__),
    float: ("float", float.__repr__),
}

_ENCODINGS = {"qp": charset.QP, "base64": charset.BASE64, "shortest": charset.SHORTEST, None: None}
_ENCODING_NAMES = {value: name for name, value in _ENCODINGS.items()}
_CHARSET_TEXTS = ("output_charset", "input_codec", "output_codec")
_CHARSET_ENCODINGS = ("header_encoding", "body_encoding")


def to_text(value: object) -> tuple[str, str] | None:
    """Return the string and the kind of a value that JSON does not have, or None when it cannot be carried."""
    match value:
        case Decimal():
            return str(value), "decimal"
        case dt.datetime():  # before date, whose subclass it is
            return value.isoformat(), "datetime"
        case dt.date():
            return value.isoformat(), "date"
        case dt.time():
            return value.isoformat(), "time"
        case UUID():
            return str(value), "uuid"
    return None


def plain_to_text(value: object) -> tuple[str, str] | None:
    """Do the same for the values that JSON has but a header or a tag has not."""
    for plain, (kind, write) in _PLAIN.items():
        if isinstance(value, plain):
            return write(value), kind
    return to_text(value)


def from_text(text: str, kind: str) -> object:
    """Make the object again. Raises ``ValueError`` for an unknown kind and for a text that is not of this kind."""
    try:
        return _FROM_TEXT[kind](text)
    except (KeyError, ValueError, ArithmeticError) as error:
        raise ValueError(f"not a {kind}" if kind in _FROM_TEXT else f"unknown type {kind[:40]!r}") from error


def from_charset(value: charset.Charset) -> dict[str, str | None] | None:
    """Return what makes *value* differ from its name alone, or None when it does what JSON cannot say."""
    if type(value) is not charset.Charset:
        return None
    try:
        named = {name: _ENCODING_NAMES[getattr(value, name)] for name in _CHARSET_ENCODINGS}
    except (KeyError, TypeError):  # a function in the place of the encoding
        return None
    return named | {name: getattr(value, name) for name in _CHARSET_TEXTS}


def to_charset(name: str, details: object) -> charset.Charset:
    """Make the ``Charset`` again. Raises ``ValueError`` naming what is wrong in *details*."""
    if not isinstance(details, dict) or set(details) != {*_CHARSET_TEXTS, *_CHARSET_ENCODINGS}:
        raise ValueError(f"must be an object with {', '.join((*_CHARSET_ENCODINGS, *_CHARSET_TEXTS))}")
    made = charset.Charset(name)
    if any(not isinstance(value, str | None) for value in details.values()):
        raise ValueError("must hold strings and null only")
    for key in _CHARSET_ENCODINGS:
        if details[key] not in _ENCODINGS:
            raise ValueError(f"{key} must be qp, base64, shortest or null")
        setattr(made, key, _ENCODINGS[details[key]])
    for key in _CHARSET_TEXTS:
        setattr(made, key, details[key])
    return made


def pointer(*path: str | int) -> str:
    """Return the JSON pointer of *path*: ``/metadata/a~1b`` of ``("metadata", "a/b")``."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def steps(pointer: str) -> list[str]:
    """Return the path of a JSON pointer."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def find(message: Any, path: list[str]) -> tuple[Any, str | int]:
    """Return the list or object that *path* leads into and the last step. Raises ``LookupError``."""
    here = message
    for step in path[:-1]:
        here = here[_step(here, step)]
    last = _step(here, path[-1])
    here[last]
    return here, last


def _step(here: Any, step: str) -> str | int:
    if isinstance(here, dict):
        return step
    if isinstance(here, list) and step.isascii() and step.isdecimal() and len(step) < 10:
        return int(step)
    raise LookupError(step)
