"""
Put a message's large content into a blob store, and back into the message: see ``message.references``.

What is put there: each attachment, or whole MIME message, of more than the store's ``above`` bytes, and of the others
the largest, until the rest fits into RabbitMQ's smallest limit. Texts stay in the message.
"""

from __future__ import annotations

import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

from mail_service import sizes
from mail_service.blobs import BlobMissing
from mail_service.errors import InvalidMessage
from mail_service.message import mime
from mail_service.message.attachments import UNKNOWN_TYPE
from mail_service.message.digests import LARGE
from mail_service.message.references import Reference, Spot, copied, owner_of, spots

#: bytes of a message's JSON that fits into any queue, whatever else travels with it
FITS: Final = sizes.LARGEST - 2 * sizes.ROOM_TO_GROW

Put = Callable[[str, bytes], None]
Get = Callable[[str], bytes]


class Damaged(BlobMissing):
    """The store has something else under this key than was put there."""


def has_large(canonical: Mapping[str, Any], above: int) -> bool:
    """Whether `emptied` would change anything."""
    return bool(_large(canonical, above))


def emptied(message: Mapping[str, Any], canonical: Mapping[str, Any], *, mail_id: str, above: int, put: Put) -> Any:
    """
    Return *message* with references for its large content, once all of that is in the store.

    Args:
        message: As it was handed in.
        canonical: The same in its canonical form.
        mail_id: Whose the blobs are.
        above: Bytes.
        put: The store's; what it raises is raised.
    """
    if not (large := _large(canonical, above)):
        return message
    # attachments in their canonical form say their type, for which their content need not be looked at again
    changed = copied({**message, **{name: canonical[name] for name in ("attachments", "mime") if name in canonical}})
    owner = owner_of(mail_id)
    for spot in spots(changed):
        if spot.place in large:
            content = b64decode(spot.value)
            # a name of its own at each time: copies of a mail that is handed in twice do not share what one deletes
            key = f"{owner}/{uuid.uuid4().hex}"
            put(key, content)
            reference = Reference(key=key, size=len(content), sha256=sha256(content).hexdigest())
            spot.holder[spot.name] = reference.to_json()
    return changed


def _large(canonical: Mapping[str, Any], above: int) -> set[str]:
    """The places whose content goes into the store."""
    found = {spot.place: len(spot.value) for spot in spots(canonical) if isinstance(spot.value, str)}
    large = {place for place, size in found.items() if size * 3 // 4 > above}
    left = sum(size for place, size in found.items() if place not in large)
    for place, size in sorted(found.items(), key=lambda item: item[1], reverse=True):
        if left <= FITS or size <= LARGE:
            break
        if place not in large:
            large.add(place)
            left -= size
    return large


def filled(canonical: Mapping[str, Any], get: Get) -> dict[str, Any]:
    """
    Return *canonical* with all content in it again.

    Raises BlobMissing, which names the place, or what else *get* raises.
    """
    complete = copied(canonical)
    for spot in spots(complete):
        if (reference := spot.reference) is not None:
            content = _content(spot, reference, get)
            _check(spot, content, complete)
            spot.holder[spot.name] = b64encode(content).decode("ascii")
    return complete


def _content(spot: Spot, reference: Reference, get: Get) -> bytes:
    try:
        content = get(reference.key)
    except BlobMissing:
        raise BlobMissing(
            f"{spot.place} ({reference.size:,} bytes) is not in the blob store: it was deleted there, or the store is "
            "not the one that it was put into (mail.blobs, and the client's)"
        ) from None
    if len(content) != reference.size or sha256(content).hexdigest() != reference.sha256:
        raise Damaged(f"{spot.place} is damaged in the blob store: it is not what was put there")
    return content


def _check(spot: Spot, content: bytes, message: dict[str, Any]) -> None:
    """Look at what could not be looked at when the mail was accepted."""
    if spot.name == "mime":
        if problem := mime.problem(content):
            raise InvalidMessage(spot.place, problem)
        return
    pointer = "/" + spot.place.replace("[", "/").replace("]", "").replace(".", "/")
    kind = message.get("types", {}).get(pointer)
    if kind == "text" or (kind is None and spot.holder["mimetype"].startswith("text/")):
        try:
            content.decode()
        except UnicodeDecodeError:
            if kind == "text":
                raise InvalidMessage(spot.place, "is not text in UTF-8, as types says") from None
            spot.holder["mimetype"] = UNKNOWN_TYPE
