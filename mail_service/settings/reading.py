"""Reads one mapping of the configuration key by key, and notes every mistake with its path instead of stopping."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.errors import HeaderParseError, InvalidHeaderDefect
from email.headerregistry import Group, HeaderRegistry
from typing import TypeVar

from mail_service.settings.masks import is_secret_name, mask_text

T = TypeVar("T")
D = TypeVar("D")

_LONGEST_VALUE_SHOWN = 60
_LONGEST_NAME = 100
#: characters, and those that the option ``tenant`` does not take; see ``mail_service.message.options``
_LONGEST_TENANT = 200
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HEADERS = HeaderRegistry()


class Mistakes:
    """The mistakes found so far, one sentence each, in the order of the file."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, path: str, problem: str) -> None:
        """Note that what stands at *path* has this *problem*."""
        self.found.append(f"{path}: {problem}")


class Section:
    """
    A mapping at *path* that may have the keys *known*; any other key is a mistake.

    Each reading method returns the default where the key is missing, and also where its value was noted as a mistake,
    so that reading goes on and all mistakes are found in one go.
    """

    def __init__(self, value: object, path: str, mistakes: Mistakes, known: Iterable[str] | None = None) -> None:
        self.path = path
        self.mistakes = mistakes
        self.values: dict[str, object] = {}
        if value is None:
            return
        if not isinstance(value, Mapping):
            mistakes.add(path, f"expected a mapping, got {shown(value, path)}")
            return
        allowed = None if known is None else list(known)
        for key, item in value.items():
            if allowed is not None and key not in allowed:
                mistakes.add(join(path, key), f"unknown key; {nearest(key, allowed)}")
            elif not isinstance(key, str):
                mistakes.add(join(path, key), f"expected a text as key, got {shown(key)}; put it in quotes")
            else:
                self.values[key] = item

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def at(self, key: str) -> str:
        """The path of *key*."""
        return join(self.path, key)

    def wrong(self, key: str, expected: str, value: object) -> None:
        """Note that *key* should have been *expected*."""
        self.mistakes.add(self.at(key), f"expected {expected}, got {shown(value, self.at(key))}")

    def section(self, key: str, known: Iterable[str] | None = None) -> Section:
        """The mapping below *key*; empty when it is missing or has nothing in it."""
        return Section(self.values.get(key), self.at(key), self.mistakes, known)

    def section_keys(self, key: str) -> tuple[str, ...]:
        """The names in the mapping below *key*, whatever they hold."""
        value = self.values.get(key)
        return tuple(str(name) for name in value) if isinstance(value, Mapping) else ()

    def whole(
        self, key: str, default: D, *, what: str = "a whole number", least: int = 0, most: int | None = None
    ) -> int | D:
        """A whole number from *least* to *most*. Booleans and numbers in quotes are none."""
        return self._read(key, default, lambda value: as_whole(value, least, most), what + _range(least, most))

    def number(
        self, key: str, default: D, *, what: str, least: float = 0, above: bool = False, most: float | None = None
    ) -> float | D:
        """A finite number from *least* (with *above*: greater than it) to *most*, whole or not."""
        return self._read(
            key, default, lambda value: as_number(value, least, above, most), what + _range(least, most, above)
        )

    def flag(self, key: str, default: bool) -> bool:
        """``true`` or ``false``."""
        return self._read(key, default, lambda value: value if isinstance(value, bool) else None, "true or false")

    def text(self, key: str, default: D, *, what: str = "a text") -> str | D:
        """A string with something in it."""
        return self._read(key, default, lambda value: value if isinstance(value, str) and value.strip() else None, what)

    def choice(self, key: str, default: str, options: Sequence[str]) -> str:
        """One of *options*."""
        value = self.values.get(key, default)
        if isinstance(value, str) and value in options:
            return value
        hint = f"; {nearest(value, options)}" if isinstance(value, str) else ""
        self.mistakes.add(self.at(key), f"expected one of {', '.join(options)}, got {shown(value, self.at(key))}{hint}")
        return default

    def names(self, key: str) -> tuple[str, ...]:
        """A list of different names; none when it is missing or has nothing in it."""
        value = self.values.get(key)
        if value is None:
            return ()
        if not isinstance(value, (list, tuple)):
            hint = f"; write [{value}]" if is_name(value) else ""
            self.mistakes.add(self.at(key), f"expected a list of names, got {shown(value, self.at(key))}{hint}")
            return ()
        names: dict[str, None] = {}
        for index, name in enumerate(value):
            path = f"{self.at(key)}[{index}]"
            if not isinstance(name, str) or not is_name(name):
                self.mistakes.add(path, f"expected a name, got {shown(name, path)}")
            elif name in names:
                self.mistakes.add(path, f"{shown(name)} stands there twice")
            else:
                names[name] = None
        return tuple(names)

    def _read(self, key: str, default: D, accept: Callable[[object], T | None], expected: str) -> T | D:
        if key not in self.values:
            return default
        accepted = accept(self.values[key])
        if accepted is not None:
            return accepted
        self.wrong(key, expected, self.values[key])
        return default


def as_whole(value: object, least: int, most: int | None = None) -> int | None:
    """*value* if it is a whole number in the range, else None."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if value >= least and (most is None or value <= most) else None


def as_number(value: object, least: float, above: bool = False, most: float | None = None) -> float | None:
    """*value* as a float if it is a finite number in the range, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    if value < least or (above and value == least) or (most is not None and value > most):
        return None
    return float(value)


def is_name(value: object) -> bool:
    """Whether *value* can name a mailer, a schedule or a service: one printable line without blanks around it."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable() and value == value.strip()


def is_tenant(value: object) -> bool:
    """Whether a mail can be for *value*: what the option ``tenant`` takes."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_TENANT and not _CONTROL.search(value)


def is_dotted_path(value: str) -> bool:
    """Whether *value* has the form ``package.module.name``; nothing is imported."""
    parts = value.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def is_mailbox(value: str) -> bool:
    """Whether *value* is one address on one line, bare or with a display name."""
    try:
        header = _HEADERS("From", value)
    except (HeaderParseError, ValueError, IndexError):  # the last for "a@": a weakness of the standard library's parser
        return False
    if not value.isprintable() or any(isinstance(defect, InvalidHeaderDefect) for defect in header.defects):
        return False
    groups: Sequence[Group] = getattr(header, "groups", ())
    addresses = [address for group in groups if group.display_name is None for address in group.addresses]
    return len(groups) == len(addresses) == 1 and bool(addresses[0].username and addresses[0].domain)


def join(path: str, key: object) -> str:
    """The path of *key* below *path*; a key that would not fit on a line is cut."""
    name = str(key) if is_name(key) or isinstance(key, int) else shown(key)
    return f"{path}.{name}" if path else name


def nearest(name: object, known: Iterable[str]) -> str:
    """The known word most like *name* as a question, or all of them when none is like it."""
    by_lower = {word.lower(): word for word in known}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean {by_lower[close[0]]}?" if close else f"known: {', '.join(by_lower.values())}"


def shown(value: object, path: str = "") -> str:
    """*value* as mistakes name it: short, on one line, never a secret; with a hint where it is a usual slip."""
    if path and any(is_secret_name(part) for part in path.split(".")):
        return "something else (not shown)"
    match value:
        case None:
            return "nothing; leave the key out for the default (or is an environment variable empty?)"
        case Mapping() | list() | tuple():
            return "a mapping" if isinstance(value, Mapping) else "a list"
        case str():
            return _text_shown(value)
        case _:
            return json.dumps(value) if isinstance(value, bool) else _cut(str(value))


def _text_shown(value: str) -> str:
    quoted = json.dumps(_cut(mask_text(value)), ensure_ascii=False)
    return f"{quoted}, which is a text; leave the quotes away" if _is_numeric(value) else quoted


def _is_numeric(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE_SHOWN else text[: _LONGEST_VALUE_SHOWN - 3] + "..."


def _range(least: float, most: float | None, above: bool = False) -> str:
    if most is not None:
        return f" {'above' if above else 'from'} {least:g} to {_plain(most)}"
    return f" {'>' if above else '>='} {_plain(least)}"


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)
