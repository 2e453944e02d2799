"""
What each field of a message may hold, and its canonical form. ``checks`` puts them together.

A checker takes the value, the place to name when it is wrong, and the ``Check`` it is part of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.charset import Charset
from typing import Any

from mail_service.errors import InvalidMessage
from mail_service.message import kinds
from mail_service.message.addresses import ADDRESS_HEADERS, BadAddress, addr_spec, check_header, is_plain
from mail_service.message.attachments import alternatives, attachments, whole_mime
from mail_service.message.checking import JSON, Check, allow, content_type, line, text, too_deep, wrong
from mail_service.message.hidden import has_break, parameters_have_break
from mail_service.message.words import got, key

#: RFC 5322, 3.6.8: printable ASCII but the colon
_HEADER_NAME = re.compile(r"[!-9;-~]+")
#: Python's codecs leave out whatever is no letter or digit, so that it knows "utf\r\n8"; in a header it must not stand
_CHARSET = re.compile(r"[ !#-\[\]-~]*")
#: RFC 2045, 5.1; Django passes parameters through, as in ``calendar; method=REQUEST``
_SUBTYPE = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+(?:[ \t]*;[ -~]*)?")
#: The standard library's parser takes up to 9 ns times the square of an address's length, so all of a message's take at
#: most 2 s. That are 20,000 addresses of 100 characters.
_MOST_ADDRESS_COST = 200_000_000


def _address(value: object, place: str, check: Check) -> str:
    text = line(value, place, check)
    if check.strict and not is_plain(text):
        try:
            _spend(len(text), check)
            addr_spec(text)
        except BadAddress as error:
            raise InvalidMessage(place, str(error)) from error
    return text


def _spend(length: int, check: Check) -> None:
    check.address_cost += length * length
    if check.address_cost > _MOST_ADDRESS_COST:
        raise BadAddress("one of so many long addresses that to read them all takes too long: shorten their names")


def _envelope_sender(value: object, place: str, check: Check) -> str:
    """An address, or the empty one (RFC 5321, 4.5.5), as reports have it that nobody may report on."""
    return "<>" if isinstance(value, str) and value.strip() == "<>" else _address(value, place, check)


def sender(value: object, place: str, check: Check) -> str:
    return _address(value, place, check) if value != "" else ""


def _addresses(value: object, place: str, check: Check) -> list[str]:
    if isinstance(value, str):
        return [_address(value, place, check)]
    if not isinstance(value, list | tuple):
        raise wrong(place, "a list of addresses", value)
    return [_address(item, f"{place}[{index}]", check) for index, item in enumerate(value)]


def _headers(value: object, place: str, check: Check) -> dict[str, str]:
    if not isinstance(value, dict):
        raise wrong(place, "an object of names and strings", value)
    return {name: _header(name, text, f"{place}{key(name)}", check) for name, text in value.items()}


def _header(name: object, value: object, place: str, check: Check) -> str:
    if not isinstance(name, str):
        raise wrong(place, "a header's name", name)
    text = line(value, place, check)
    if not check.strict:
        return text
    check.lengthen_header(len(name) + len(text), place)
    if not _HEADER_NAME.fullmatch(name):
        raise InvalidMessage(place, "is not a header's name: only printable ASCII without spaces and colons")
    lower = name.lower()
    if lower.startswith("content-") and parameters_have_break(text):
        raise InvalidMessage(place, "must be one line: a parameter has an encoded line break or NUL")
    if lower == "bcc":
        raise InvalidMessage(place, "would show everybody who else got the mail; use the field bcc")
    if lower in ADDRESS_HEADERS:
        try:
            check_header(text)
        except BadAddress as error:
            raise InvalidMessage(place, str(error)) from error
    return text


def _subtype(value: object, place: str, check: Check) -> str:
    subtype = text(value, place, check)
    if subtype and not _SUBTYPE.fullmatch(subtype):
        raise InvalidMessage(place, "must be the subtype of a text/… type, such as plain or html")
    content_type(subtype, place, check)
    return "" if subtype == "plain" else subtype


def _subject(value: object, place: str, check: Check) -> str:
    subject = line(value, place, check)
    check.lengthen_header(len(subject), place)
    return subject


def _encoding(value: object, place: str, check: Check) -> str:
    name = text(value, place, check)
    if check.strict and not _CHARSET.fullmatch(name):
        raise InvalidMessage(place, "must be the name of a charset: one line of ASCII without quotes")
    try:
        " ".encode(name or "utf-8")
        if (details := check.take(place)) is not None:
            _check_charsets(kinds.to_charset(name, details), check)
    except LookupError as error:
        raise InvalidMessage(place, "must be a text encoding that Python knows, such as utf-8 or iso-8859-1") from error
    except ValueError as error:  # codecs such as "undefined", names with NUL; details of a Charset
        raise InvalidMessage(place, f"cannot be used: {error}") from error
    return name


def _check_charsets(made: Charset, check: Check) -> None:
    """Raise ValueError for names of a charset that no header can have, LookupError for those that Python has not."""
    for name in (made.output_charset, made.input_codec, made.output_codec):
        if name is not None and check.strict:
            if not _CHARSET.fullmatch(name):
                raise ValueError("its names must be one line of ASCII without quotes")
            " ".encode(name)


def _flag(value: object, place: str, _check: Check) -> bool:
    if not isinstance(value, bool):
        raise wrong(place, "true or false", value)
    return value


def _template_id(value: object, place: str, check: Check) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise wrong(place, "a string or a whole number", value)
    return line(value, place, check) if isinstance(value, str) else value


def _tags(value: object, place: str, check: Check) -> list[str]:
    if not isinstance(value, list | tuple):
        raise wrong(place, "a list of strings", value)
    return [line(item, f"{place}[{index}]", check) for index, item in enumerate(value)]


def _send_at(value: object, place: str, check: Check) -> str:
    text = line(value, place, check)
    if allow(check.take(place), ("text",), place) is not None:
        return text
    try:
        return iso(text).isoformat()
    except ValueError as error:
        raise InvalidMessage(place, "must be a time in ISO 8601, such as 2030-01-31T12:00:00Z") from error


def iso(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _object(value: object, place: str, check: Check) -> dict[str, JSON]:
    """Check an object whose values may be anything. Its names may become parts of headers, so they are single lines."""
    if not isinstance(value, dict):
        raise wrong(place, "an object", value)
    _check_names(value, place, check)
    return _anything(value, place, 0, check.deepest)  # type: ignore[no-any-return]  # an object again


def _by_recipient(value: object, place: str, check: Check) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise wrong(place, "an object of recipients and objects", value)
    return {address: _object(item, f"{place}{key(address)}", check) for address, item in _named(value, place, check)}


def _headers_by_recipient(value: object, place: str, check: Check) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise wrong(place, "an object of recipients and headers", value)
    made, common = {}, check.header_length
    for address, item in _named(value, place, check):
        # each is a mail of its own
        check.header_length = common
        made[address] = _headers(item, f"{place}{key(address)}", check)
    check.header_length = common
    return made


def _named(value: dict[Any, Any], place: str, check: Check) -> Iterable[tuple[str, Any]]:
    _check_names(value, place, check)
    return value.items()


def _check_names(value: dict[Any, Any], place: str, check: Check) -> None:
    for name in value:
        # the place is made for an error only: it takes longer than the look at a name
        if not isinstance(name, str) or (check.strict and has_break(name)):
            line(name, f"{place}{key(name)}", check)


def _anything(value: object, place: str, depth: int, deepest: int) -> JSON:
    """Copy a JSON value, with lists for tuples. That its strings and numbers can be written is known already."""
    try:
        return _copy(value, depth, deepest)
    except _OddError:
        return _copy_by_place(value, place, depth, deepest)


class _OddError(Exception):
    """Something is wrong somewhere."""


_SCALARS = frozenset({str, int, float, bool, type(None)})


def _copy(value: Any, depth: int, deepest: int) -> JSON:
    """Do as ``_copy_by_place`` without a word about the place, which takes ten times as long."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if depth > deepest:
        raise _OddError
    if kind is dict:
        if not all(type(name) is str for name in value):
            raise _OddError
        return {name: _copy(item, depth + 1, deepest) for name, item in value.items()}
    if kind is list:
        return [_copy(item, depth + 1, deepest) for item in value]
    raise _OddError


def _copy_by_place(value: object, place: str, depth: int, deepest: int) -> JSON:
    """Copy a JSON value, with lists for tuples. That its strings and numbers can be written is known already."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if depth > deepest:
        raise too_deep(place, deepest)
    if isinstance(value, dict):
        return {
            _name(name, place): _copy_by_place(item, f"{place}{key(name)}", depth + 1, deepest)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_copy_by_place(item, f"{place}[{index}]", depth + 1, deepest) for index, item in enumerate(value)]
    raise wrong(place, "JSON", value)


def _name(name: object, place: str) -> str:
    if not isinstance(name, str):
        raise InvalidMessage(f"{place}{key(name)}", f"names must be strings, not {got(name)}")
    return name


def _nothing(_value: object, _place: str, _check: Check) -> None:
    """``types`` is settled at the end."""


Checker = Callable[[Any, str, Check], JSON]
_ANYMAIL: dict[str, Checker] = {
    "envelope_sender": _envelope_sender,
    "metadata": _object,
    "merge_metadata": _by_recipient,
    "tags": _tags,
    "track_opens": _flag,
    "track_clicks": _flag,
    "send_at": _send_at,
    "template_id": _template_id,
    "merge_data": _by_recipient,
    "merge_global_data": _object,
    "merge_headers": _headers_by_recipient,
    "esp_extra": _object,
}
FIELDS: dict[str, Checker] = {
    "subject": _subject,
    "body": text,
    "from_email": sender,
    "to": _addresses,
    "cc": _addresses,
    "bcc": _addresses,
    "reply_to": _addresses,
    "headers": _headers,
    "html": text,
    "alternatives": alternatives,
    "content_subtype": _subtype,
    "encoding": _encoding,
    "attachments": attachments,
    "mime": whole_mime,
    "types": _nothing,
    **_ANYMAIL,
}
#: Anymail's attributes: given or not given makes a difference even when empty
ANYMAIL_FIELDS = frozenset(_ANYMAIL)
#: fields that a Python program may have set to None and meant it: Anymail then leaves them to the ESP's template, or
#: leaves out its SEND_DEFAULTS
NULLABLE = ANYMAIL_FIELDS | {"subject", "from_email"}
#: fields in which strings may stand for other Python types
TYPED = ANYMAIL_FIELDS - {"envelope_sender", "track_opens", "track_clicks", "send_at"} | {"headers"}
