"""
What a message may look like, and its canonical form: ``validate``.

The canonical form holds only what was given and differs from the default, lists as lists, ``html`` as the first of the
alternatives, base64 without line breaks, attachments with their type, times with an offset; so equal mails are equal
JSON values. An empty value of Django's own fields is the default. An empty one of Anymail's is kept: there
``merge_data = {}`` asks for a mail of its own to each recipient.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from mail_service import bounds as all_bounds
from mail_service.bounds import DEEPEST, Bounds, at_most
from mail_service.errors import InvalidMessage
from mail_service.message import kinds, references
from mail_service.message.addresses import BadAddress, addr_spec, unique
from mail_service.message.checking import JSON, Check, too_deep, unknown, wrong
from mail_service.message.digests import LARGE
from mail_service.message.fields import ANYMAIL_FIELDS, FIELDS, NULLABLE, TYPED, iso, sender
from mail_service.message.words import got, key

DEFAULT_MAX_SIZE = 25_000_000
#: fields whose entries are counted together, and the setting that has the most there may be
_COUNTED = (
    (("to", "cc", "bcc"), "max_recipients"),
    (("reply_to",), "max_recipients"),
    (("attachments", "alternatives"), "max_attachments"),
)
_SURROGATE = re.compile("[\ud800-\udfff]")
SURROGATE = "has half of a surrogate pair, which is no character"
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A message that may be handed in, and its JSON: the same text is measured and travels."""

    #: as it travels
    message: Mapping[str, JSON]
    #: the same as compact JSON
    text: str
    #: the message in its canonical form
    canonical: Mapping[str, JSON]
    #: address of the author; the default one where the message leaves it to the service, "" where to the ESP
    sender: str


def validate(
    message: object,
    *,
    default_from: str | None = None,
    max_size: int = DEFAULT_MAX_SIZE,
    bounds: Bounds = all_bounds.DEFAULT,
    takes_references: bool = False,
) -> dict[str, JSON]:
    """
    Return the canonical form of *message*, which may be any JSON value.

    Args:
        default_from: Used when the message has no ``from_email``.
        max_size: Bytes that the message may take as compact JSON in UTF-8.
        bounds: Of everything else.
        takes_references: Large content may lie in a blob store; it counts as if it were in the message.

    Raises:
        InvalidMessage: names the place, such as ``to[2]`` or ``headers["X-Foo"]``, but shows no value of it.
    """
    canonical = _checked(message, max_size, bounds, takes_references=takes_references)
    return _complete(canonical, default_from)


def checked_as_given(
    message: object, *, default_from: str, max_size: int, bounds: Bounds = all_bounds.DEFAULT
) -> Checked:
    """Do as ``validate``; the message travels as it was handed in."""
    given, text = as_json(message, max_size, bounds)
    canonical = _complete(_canonical(given, strict=True, bounds=bounds), default_from)
    return Checked(message=given, text=text, canonical=canonical, sender=canonical.get("from_email", ""))


def checked_in_canonical_form(
    message: dict[str, JSON], *, default_from: str, max_size: int, bounds: Bounds = all_bounds.DEFAULT
) -> Checked:
    """Do the same for a message that travels in canonical form; the default sender is not added to it."""
    canonical = _canonical(message, strict=True, bounds=bounds)
    _, text = as_json(canonical, max_size, bounds)
    complete = _complete(dict(canonical), default_from)
    return Checked(message=canonical, text=text, canonical=canonical, sender=complete.get("from_email", ""))


def canonical_form(message: object, *, strict: bool, max_size: int | None = None) -> dict[str, JSON]:
    """Return the canonical form; not *strict* leaves out what only a mail about to be sent must satisfy."""
    given, _ = as_json(message, max_size)
    return _canonical(given, strict=strict)


def _checked(message: object, max_size: int, bounds: Bounds, *, takes_references: bool) -> dict[str, JSON]:
    given, size = _measured(message, max_size, bounds)
    canonical = _canonical(given, strict=True, bounds=bounds, takes_references=takes_references)
    if takes_references and (more := references.referred_size(canonical)):
        _check_size(size + more, max_size)
    return canonical


def _measured(message: object, max_size: int, bounds: Bounds) -> tuple[dict[str, JSON], int]:
    """Do as ``as_json`` and return the size: large content is measured where it is, since its text takes two copies."""
    if not (isinstance(message, dict) and any(map(_is_large, references.spots(message)))):
        given, text = as_json(message, max_size, bounds)
        return given, _bytes(text)
    rest = references.copied(message)
    size = 0
    for spot in filter(_is_large, references.spots(rest)):
        size += len(spot.value)
        spot.holder[spot.name] = ""
    _, text = as_json(rest, None, bounds)
    size += _bytes(text)
    _check_size(size, max_size)
    return message, size


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _is_large(spot: references.Spot) -> bool:
    """Of base64 in one line each character is a byte; what turns out to be none is refused where it is read."""
    value = spot.value
    return (
        isinstance(value, str) and len(value) > LARGE and value.isascii() and not any(map(value.__contains__, "\r\n\t"))
    )


def as_json(message: object, max_size: int | None, bounds: Bounds | None = None) -> tuple[dict[str, JSON], str]:
    """
    Return *message* and its text in JSON.

    Raises InvalidMessage when it is no object, cannot be written in UTF-8, or takes more than *max_size* bytes.
    """
    if not isinstance(message, dict):
        raise InvalidMessage("message", f"must be an object, not {got(message)}")
    if bounds is not None:
        _count_values(message, bounds.max_values)
    try:
        text = _encode(message)
        size = _bytes(text)
    except (ValueError, TypeError, RecursionError) as error:
        _find_unwritable(message, "", 0)
        raise InvalidMessage("message", f"cannot be written as JSON: {type(error).__name__}") from error
    if max_size is not None:
        _check_size(size, max_size)
    return message, text


def _check_size(size: int, max_size: int) -> None:
    if size > max_size:
        problem = f"takes {size:,} bytes as JSON; at most {max_size:,} are allowed (mail.max_size)"
        raise InvalidMessage("message", problem)


def _canonical(
    message: dict[str, JSON],
    *,
    strict: bool,
    bounds: Bounds = all_bounds.DEFAULT,
    takes_references: bool = False,
) -> dict[str, JSON]:
    check = Check(strict=strict, bounds=bounds, takes_references=takes_references, kinds=_kinds(message))
    if strict:
        _count(message, check)
    canonical: dict[str, JSON] = {}
    for name, value in message.items():
        if (checker := FIELDS.get(name)) is None:
            raise unknown(name, "", FIELDS)
        if value is None:
            continue
        checked = checker(value, name, check)
        if checked or name in ANYMAIL_FIELDS or (name == "from_email" and not strict):
            canonical[name] = checked
    _fold_html(canonical, check)
    if check.kinds or check.settled:
        canonical["types"] = _settle_kinds(canonical, check)
    return canonical


def _count(message: dict[str, JSON], check: Check) -> None:
    """Raise for too much of something before it is looked at one by one; what is no list, others complain about."""
    for names, setting in _COUNTED:
        others = 0
        for name in names:
            if isinstance(many := message.get(name), list | tuple):
                check.count(many, name, setting, others=others)
                others += len(many)


def _count_values(message: dict[Any, Any], most: int) -> None:
    """Raise for more values than there may be, before the time is spent to look at each."""
    count = 0
    for name, value in message.items():
        waiting = [value]
        while waiting:
            holder = waiting.pop()
            if not isinstance(holder, dict | list | tuple):
                continue
            count += len(holder)
            if count > most:
                problem = f"makes the message one of more than {most:,} values; {at_most(most, 'max_values')}"
                raise InvalidMessage(str(name)[:100], problem)
            items = holder.values() if isinstance(holder, dict) else holder
            waiting.extend(item for item in items if isinstance(item, dict | list | tuple))


def _complete(canonical: dict[str, JSON], default_from: str | None) -> dict[str, JSON]:
    """Return *canonical* with a sender. Raises InvalidMessage when it has none, or no recipient."""
    if "from_email" not in canonical and canonical.get("types", {}).get("/from_email") != "none":
        if not default_from:
            raise InvalidMessage("from_email", "is missing, and mail.default_from is not configured")
        canonical["from_email"] = sender(default_from, "from_email", Check(strict=True))
    if not ("to" in canonical or "cc" in canonical or "bcc" in canonical):
        raise InvalidMessage("to", "there is no recipient in to, cc or bcc")
    return canonical


def recipients(canonical: dict[str, JSON]) -> list[str]:
    """Return the bare addresses of a validated message as typed, of to, cc and bcc in this order, once each."""
    return unique(address for name in ("to", "cc", "bcc") for address in canonical.get(name, ()))


def author(canonical: Mapping[str, JSON]) -> str:
    """Return the bare address in From of a validated message, in lower case; empty where there is none."""
    try:
        return addr_spec(str(canonical.get("from_email") or "")).lower()
    except BadAddress:
        return ""


def send_at(canonical: dict[str, JSON]) -> datetime | None:
    """
    Return when the mail is due, with an offset, or None when it says nothing that can be read.

    A string that a Django program put into ``send_at`` is in the form of its ESP; here ISO 8601, RFC 5322 and seconds
    since 1970 are understood.
    """
    text = canonical.get("send_at")
    if not isinstance(text, str):
        return None
    for parse in (iso, parsedate_to_datetime, lambda text: datetime.fromtimestamp(float(text), UTC)):
        try:
            found = parse(text)
        except (ValueError, OverflowError, OSError, TypeError):
            continue
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None


def _find_unwritable(value: object, place: str, depth: int) -> None:
    """Raise naming the first place that ``_encode`` stumbled over."""
    if depth > DEEPEST:
        raise too_deep(place, DEEPEST)
    match value:
        case str() if _SURROGATE.search(value):
            raise InvalidMessage(place, SURROGATE)
        case float() if not math.isfinite(value):
            raise InvalidMessage(place, "must be a finite number")
        case None | str() | bool() | int() | float():
            return
        case list() | tuple():
            for index, item in enumerate(value):
                _find_unwritable(item, f"{place}[{index}]", depth + 1)
        case dict():
            for name, item in value.items():
                _find_unwritable(name, place or "message", depth)
                _find_unwritable(item, _inside(place, name), depth + 1)
        case _:
            raise InvalidMessage(place, f"must be JSON, not {got(value)}")


def _inside(place: str, name: object) -> str:
    if place.startswith(("attachments[", "alternatives[")):
        return f"{place}.{str(name)[:100]}"
    return f"{place}{key(name)}" if place else str(name)[:100]


def _fold_html(canonical: dict[str, JSON], check: Check) -> None:
    """Make ``html`` the first alternative, where Django programs put it: the last one is what a reader prefers."""
    html = canonical.pop("html", None)
    if html is None:
        return
    if any(pointer.startswith("/alternatives/") for pointer in check.settled):
        raise InvalidMessage("types", "cannot be given for alternatives beside html")
    canonical["alternatives"] = [{"content": html, "mimetype": "text/html"}, *canonical.get("alternatives", ())]


def _kinds(message: dict[str, JSON]) -> dict[str, Any]:
    given = message.get("types")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise wrong("types", "an object of JSON pointers and types", given)
    return dict(given)


def _settle_kinds(canonical: dict[str, JSON], check: Check) -> dict[str, Any]:
    """Return ``types`` in canonical form: each entry belongs to a string of this type, or to a field that was None."""
    for pointer, kind in check.kinds.items():
        place = f"types{key(pointer)}"
        if not isinstance(kind, str):
            raise wrong(place, "the name of a type", kind)
        path = kinds.steps(str(pointer))
        if kind == "none" and len(path) == 1 and path[0] in NULLABLE and path[0] not in canonical:
            continue
        text = _typed_text(canonical, path)
        if text is None:
            raise InvalidMessage(place, "does not lead to a string that can be of another type")
        try:
            kinds.from_text(text, kind)
        except ValueError as error:
            raise InvalidMessage(place, str(error)) from error
    return dict(sorted((check.kinds | check.settled).items()))


def _typed_text(canonical: dict[str, JSON], path: list[str]) -> str | None:
    """Return the string that *path* leads to, if it is one that may stand for another type."""
    if not path or path[0] not in TYPED:
        return None
    try:
        holder, last = kinds.find(canonical, path)
    except LookupError:
        return None
    return holder[last] if isinstance(holder[last], str) else None
