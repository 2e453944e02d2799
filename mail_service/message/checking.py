"""What every check of a message needs: where it stands, and how it says what is wrong."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from mail_service.errors import InvalidMessage
from mail_service.message import kinds
from mail_service.message.words import got, nearest

#: what ``json.loads`` returns; spelled out it would need a cast at every step into it
JSON = Any

#: levels of lists and objects inside a field that may hold anything; far below where Python's own JSON gives up
MAX_DEPTH = 64

#: what ends a line for Django (CR, LF) or for the ``str.splitlines`` inside Python's email package, and NUL
_BREAK = re.compile("[\r\n\0\x0b\x0c\x1c\x1d\x1e]")


@dataclass(slots=True)
class Check:
    """One message being checked."""

    #: False for ``dump`` and ``load``, which carry also what would not be accepted as a mail to send
    strict: bool
    #: ``types`` entries that no field has answered for yet
    kinds: dict[str, Any] = field(default_factory=dict)
    #: those that a field has
    settled: dict[str, Any] = field(default_factory=dict)

    def take(self, *path: str | int) -> Any:
        """Return the entry of ``types`` for this place, if there is one; the caller answers for it."""
        if not self.kinds:
            return None
        pointer = kinds.pointer(*path)
        kind = self.kinds.pop(pointer, None)
        if kind is not None:
            self.settled[pointer] = kind
        return kind


def too_deep(place: str) -> InvalidMessage:
    return InvalidMessage(place.partition("[")[0], f"is nested deeper than {MAX_DEPTH} levels")


def unknown(name: object, place: str, known: Collection[str]) -> InvalidMessage:
    return InvalidMessage(f"{place}{str(name)[:100]}" or '""', f"there is no such field{nearest(name, known)}")


def wrong(place: str, wanted: str, value: object) -> InvalidMessage:
    return InvalidMessage(place, f"must be {wanted}, not {got(value)}")


def text(value: object, place: str, _check: Check) -> str:
    if not isinstance(value, str):
        raise wrong(place, "a string", value)
    return value


def line(value: object, place: str, check: Check) -> str:
    if not isinstance(value, str):
        raise wrong(place, "a string", value)
    if check.strict and _BREAK.search(value):
        raise InvalidMessage(place, "must be one line: it contains a line break or a NUL")
    return value


def allow(kind: Any, allowed: tuple[str, ...], place: str) -> str | None:
    if kind is not None and kind not in allowed:
        raise InvalidMessage(f"types for {place}", f"must be {' or '.join(allowed)}")
    return kind  # type: ignore[no-any-return]  # a str now
