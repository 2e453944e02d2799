"""One number for a message, to tell whether two with the same id are the same."""

from __future__ import annotations

import json
from binascii import a2b_base64
from hashlib import sha256
from typing import Any

from mail_service.message import references

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
#: Characters of base64 above which the content's own digest stands for it: a mail is the same one whether its
#: attachments came with it or lie in a blob store. What is smaller never lies there.
LARGE = 65_536
#: characters of base64, of which four are three bytes
_PIECE = 262_144


def digest(canonical: dict[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of a canonical message: equal for equal JSON values, whatever their order."""
    return sha256(_encode(_measured(canonical)).encode("ascii")).hexdigest()


def _measured(canonical: dict[str, Any]) -> dict[str, Any]:
    if not any(_is_large(spot.value) for spot in references.spots(canonical)):
        return canonical
    measured = references.copied(canonical)
    for spot in references.spots(measured):
        if _is_large(spot.value):
            reference = spot.reference
            content = reference.sha256 if reference else _of_content(spot.value)
            spot.holder[spot.name] = {"sha256": content}
    return measured


def _of_content(encoded: str) -> str:
    """The SHA-256 of what is *encoded*, in pieces: all at once would take as much memory again."""
    made = sha256()
    for start in range(0, len(encoded), _PIECE):
        made.update(a2b_base64(encoded[start : start + _PIECE]))
    return made.hexdigest()


def _is_large(value: Any) -> bool:
    return isinstance(value, dict) or len(value) > LARGE
