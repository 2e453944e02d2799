"""Attachments, alternatives and whole MIME messages: what carries content in base64 or of any type."""

from __future__ import annotations

import mimetypes
import re
from base64 import b64encode
from binascii import a2b_base64
from typing import Any

from mail_service.errors import InvalidMessage
from mail_service.message import mime, references
from mail_service.message.checking import Check, allow, content_type, line, text, unknown, wrong

#: what Django takes for an attachment that says nothing about its type (DEFAULT_ATTACHMENT_MIME_TYPE)
UNKNOWN_TYPE = "application/octet-stream"

_WORD = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+"
#: RFC 2045, 5.1; Django passes parameters through, as in ``text/calendar; method=REQUEST``
_MIMETYPE = re.compile(rf"{_WORD}/{_WORD}(?:[ \t]*;[ -~]*)?")
_SPACE = re.compile(r"[ \t\r\n]+")


#: of a message inside a message, as ``mime.style`` has them
_STYLES = ("old", "modern", "parsed")


def attachments(value: object, place: str, check: Check) -> list[dict[str, Any]]:
    if not isinstance(value, list | tuple):
        raise wrong(place, "a list of objects", value)
    return [_attachment(item, f"{place}[{index}]", index, check) for index, item in enumerate(value)]


def _attachment(value: object, place: str, index: int, check: Check) -> dict[str, Any]:
    given = _members(value, place, ("filename", "content", "mimetype", "mime"))
    if "mime" in given:
        if len(given) > 1:
            raise InvalidMessage(place, "has mime, a whole part, so it cannot have content, filename or mimetype")
        allow(check.take("attachments", index, "mime"), ("modern", "parsed"), f"{place}.mime")
        if not (encoded := whole_mime(given["mime"], f"{place}.mime", check)):
            raise InvalidMessage(f"{place}.mime", "must not be empty")
        return {"mime": encoded}
    if "content" not in given:
        raise InvalidMessage(f"{place}.content", "is missing")
    encoded, content = _base64(given["content"], f"{place}.content", check)
    kind = allow(check.take("attachments", index, "content"), ("text", *_STYLES), f"{place}.content")
    filename = line(given.get("filename", ""), f"{place}.filename", check)
    check.lengthen_header(len(filename), f"{place}.filename")
    mimetype = _mimetype(given["mimetype"], f"{place}.mimetype", check) if "mimetype" in given else _guess(filename)
    if content is not None and (kind == "text" or (kind is None and mimetype.startswith("text/"))):
        mimetype = _type_of_text(content, mimetype, kind, f"{place}.content")
    named = {"filename": filename} if filename else {}
    return {**named, "content": encoded, "mimetype": mimetype}


def _type_of_text(content: bytes, mimetype: str, kind: str | None, place: str) -> str:
    """Return *mimetype* or, as Django's ``attach`` does for text that is not UTF-8, the unknown type."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        if kind == "text":
            raise InvalidMessage(place, "is not text in UTF-8, as types says") from error
        return UNKNOWN_TYPE
    return mimetype


def _guess(filename: str) -> str:
    return mimetypes.guess_type(filename)[0] or UNKNOWN_TYPE


def alternatives(value: object, place: str, check: Check) -> list[dict[str, str]]:
    if not isinstance(value, list | tuple):
        raise wrong(place, "a list of objects", value)
    return [_alternative(item, f"{place}[{index}]", index, check) for index, item in enumerate(value)]


def _alternative(value: object, place: str, index: int, check: Check) -> dict[str, str]:
    given = _members(value, place, ("content", "mimetype"))
    for name in ("content", "mimetype"):
        if name not in given:
            raise InvalidMessage(f"{place}.{name}", "is missing")
    content = text(given["content"], f"{place}.content", check)
    mimetype = _mimetype(given["mimetype"], f"{place}.mimetype", check)
    kind = check.take("alternatives", index, "content")
    if allow(kind, ("base64", *_STYLES), f"{place}.content") is not None:
        content, _ = _base64(content, f"{place}.content", None)
    return {"content": content, "mimetype": mimetype}


def _members(value: object, place: str, known: tuple[str, ...]) -> dict[str, Any]:
    """Return what is given of an object with fixed names."""
    if not isinstance(value, dict):
        raise wrong(place, "an object", value)
    for name in value:
        if name not in known:
            raise unknown(name, f"{place}.", known)
    return {name: item for name, item in value.items() if item is not None}


def _base64(value: object, place: str, check: Check | None) -> tuple[Any, bytes | None]:
    """
    Return the canonical text and the bytes. Line breaks and spaces are left out, anything else must be base64.

    For a reference, which is looked at where it is used, there are no bytes.
    """
    if isinstance(value, dict) and check is not None and check.takes_references:
        return references.parse(value, place).to_json(), None
    if not isinstance(value, str):
        raise wrong(place, "a string in base64", value)
    try:
        content = _decode(value)
    except ValueError:
        try:
            content = _decode(_SPACE.sub("", value))
        except ValueError as error:
            raise InvalidMessage(place, f"is not base64: {error}") from error
    if _is_canonical(value, content):
        # the very string, since megabytes need not be there twice
        return value, content
    return b64encode(content).decode("ascii"), content


def _is_canonical(text: str, content: bytes) -> bool:
    """Whether *text*, from which *content* was read, is what would be written: only its end has more than one form."""
    if len(text) != -(-len(content) // 3) * 4:
        return False
    end = content[len(content) - (len(content) % 3 or 3) :] if content else b""
    return text.endswith(b64encode(end).decode("ascii"))


def _decode(text: str) -> bytes:
    if len(text) % 4:  # what Python's strict mode lets pass: padding where none is due
        raise ValueError("Incorrect padding")
    return a2b_base64(text, strict_mode=True)


def whole_mime(value: object, place: str, check: Check) -> Any:
    encoded, raw = _base64(value, place, check)
    if raw and check.strict and (problem := mime.problem(raw, most=check.bounds)):
        raise InvalidMessage(place, problem)
    return encoded


def _mimetype(value: object, place: str, check: Check) -> str:
    given = text(value, place, check)
    if not _MIMETYPE.fullmatch(given):
        raise InvalidMessage(place, "must be type/subtype, such as application/pdf")
    content_type(given, place, check)
    return given
