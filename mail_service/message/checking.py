"""What every check of a message needs: where it stands, and how it says what is wrong."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from mail_service import bounds
from mail_service.bounds import Bounds, at_most
from mail_service.errors import InvalidMessage
from mail_service.message import kinds
from mail_service.message.hidden import has_break, parameters_have_break
from mail_service.message.words import got, nearest

#: what ``json.loads`` returns; spelled out it would need a cast at every step into it
JSON = Any


@dataclass(slots=True)
class Check:
    """One message being checked."""

    #: False for ``dump`` and ``load``, which carry also what would not be accepted as a mail to send
    strict: bool
    #: of a strict one
    bounds: Bounds = bounds.DEFAULT
    #: content may lie in a blob store, and a reference stand for it
    takes_references: bool = False
    #: ``types`` entries that no field has answered for yet
    kinds: dict[str, Any] = field(default_factory=dict)
    #: those that a field has
    settled: dict[str, Any] = field(default_factory=dict)
    #: characters that the header has so far
    header_length: int = 0
    #: of the addresses that only the parser can read, the squares of their lengths
    address_cost: int = 0

    def take(self, *path: str | int) -> Any:
        """Return the entry of ``types`` for this place, if there is one; the caller answers for it."""
        if not self.kinds:
            return None
        pointer = kinds.pointer(*path)
        kind = self.kinds.pop(pointer, None)
        if kind is not None:
            self.settled[pointer] = kind
        return kind

    @property
    def deepest(self) -> int:
        """Levels of lists and objects in one another."""
        return min(self.bounds.max_nesting, bounds.DEEPEST) if self.strict else bounds.DEEPEST

    def count(self, many: Collection[object], place: str, setting: str, *, others: int = 0) -> None:
        """Raise when there are more of something, with *others* elsewhere, than the *setting* allows."""
        most = getattr(self.bounds, setting)
        if self.strict and len(many) + others > most:
            raise InvalidMessage(place, f"has {len(many) + others:,} entries; {at_most(most, setting)}")

    def lengthen_header(self, by: int, place: str) -> None:
        """Raise when what the message puts into its header fields becomes too long."""
        self.header_length += by
        most = self.bounds.max_header_length
        if self.strict and self.header_length > most:
            problem = f"makes the header {self.header_length:,} characters long; {at_most(most, 'max_header_length')}"
            raise InvalidMessage(place, problem)


def too_deep(place: str, deepest: int) -> InvalidMessage:
    problem = f"is nested deeper than {deepest} levels; {at_most(deepest, 'max_nesting')}"
    return InvalidMessage(place.partition("[")[0], problem)


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
    if check.strict and has_break(value):
        raise InvalidMessage(place, "must be one line: it contains a line break or a NUL")
    return value


def content_type(value: str, place: str, check: Check) -> None:
    """Raise for what a type's parameters must not have, or have too much of."""
    check.lengthen_header(len(value), place)
    if check.strict and (has_break(value) or parameters_have_break(value)):
        raise InvalidMessage(place, "must be one line: a parameter has an encoded line break or NUL")


def allow(kind: Any, allowed: tuple[str, ...], place: str) -> str | None:
    if kind is not None and kind not in allowed:
        raise InvalidMessage(f"types for {place}", f"must be {' or '.join(allowed)}")
    return kind  # type: ignore[no-any-return]  # a str now
