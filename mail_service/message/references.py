"""
References: what a message has in place of content in base64 that lies in a blob store.

``{"blob": key, "size": bytes, "sha256": hex}`` may stand for an attachment's ``content`` or ``mime`` and for the
message's own ``mime``. Each is made for one mail, whose id its key begins with, so nobody refers to another one's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from mail_service.errors import InvalidMessage

#: of whose mail it is, and which of its blobs: see ``owner_of``
_KEY = re.compile(r"[0-9a-f]{32}/[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MEMBERS = {"blob", "size", "sha256"}
#: members of an attachment that have content in base64
_MEMBERS_IN_BASE64 = ("content", "mime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Where content lies, and how it is recognised."""

    key: str
    #: bytes, not those of its base64
    size: int
    #: of the bytes, in hexadecimal
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """As it stands in a message."""
        return {"blob": self.key, "size": self.size, "sha256": self.sha256}


def owner_of(mail_id: str) -> str:
    """What the keys of a mail's blobs begin with: its id may have any length and any character."""
    return sha256(mail_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def parse(value: Mapping[str, Any], place: str) -> Reference:
    """Read a reference. Raises InvalidMessage."""
    key, size, digest = (value.get(name) for name in ("blob", "size", "sha256"))
    is_sound = (
        set(value) == _MEMBERS
        and isinstance(key, str)
        and _KEY.fullmatch(key)
        and isinstance(size, int)
        and not isinstance(size, bool)
        and size >= 0
        and isinstance(digest, str)
        and _SHA256.fullmatch(digest)
    )
    if not is_sound:
        raise InvalidMessage(place, "must be a string in base64, or a reference as the mail service made it")
    assert isinstance(key, str)  # noqa: S101 - and so on
    assert isinstance(size, int)  # noqa: S101
    return Reference(key=key, size=size, sha256=str(digest))


@dataclass(frozen=True, slots=True)
class Spot:
    """A place of a message that has content in base64, or a reference."""

    holder: dict[str, Any]
    name: str
    place: str

    @property
    def value(self) -> Any:
        """What is there."""
        return self.holder[self.name]

    @property
    def reference(self) -> Reference | None:
        """The reference, if it is one. Raises InvalidMessage for one that cannot be read."""
        return parse(self.value, self.place) if isinstance(self.value, Mapping) else None


def spots(message: object) -> Iterator[Spot]:
    """The places of *message*, which may be any JSON value."""
    if not isinstance(message, dict):
        return
    attachments = message.get("attachments")
    for index, item in enumerate(attachments if isinstance(attachments, list | tuple) else ()):
        if isinstance(item, dict):
            for name in _MEMBERS_IN_BASE64:
                if isinstance(item.get(name), str | dict):
                    yield Spot(item, name, f"attachments[{index}].{name}")
    if isinstance(message.get("mime"), str | dict):
        yield Spot(message, "mime", "mime")


def references(message: object) -> list[Reference]:
    """Those in *message*. Raises InvalidMessage for one that cannot be read."""
    return [found for spot in spots(message) if (found := spot.reference) is not None]


def has_any(message: object) -> bool:
    """Whether there is one in *message*, readable or not."""
    return any(isinstance(spot.value, dict) for spot in spots(message))


def referred_size(message: object) -> int:
    """Bytes that the references in *message* would take as base64. Raises InvalidMessage."""
    return sum(-(-reference.size // 3) * 4 for reference in references(message))


def require_own(message: object, mail_id: str) -> None:
    """Raise InvalidMessage for a reference that was made for another mail than *mail_id*."""
    for spot in spots(message):
        if (reference := spot.reference) is not None and not reference.key.startswith(f"{owner_of(mail_id)}/"):
            raise InvalidMessage(spot.place, "refers to a blob of another mail: each is made for one id")


def copied(message: Mapping[str, Any]) -> dict[str, Any]:
    """*message*, in which a spot may be changed without changing the one given."""
    changed = dict(message)
    if isinstance(attachments := message.get("attachments"), list | tuple):
        changed["attachments"] = [dict(item) if isinstance(item, dict) else item for item in attachments]
    return changed


def without_references(message: Any) -> Any:
    """*message* without the attachments, and the whole MIME message, that are not in it."""
    if not has_any(message):
        return message
    changed = copied(message)
    gone = [spot.holder for spot in spots(changed) if isinstance(spot.value, dict)]
    changed["attachments"] = [item for item in changed.get("attachments", ()) if not any(item is each for each in gone)]
    if any(each is changed for each in gone):
        del changed["mime"]
    # what it says belongs to attachments by their number
    changed.pop("types", None)
    return changed
