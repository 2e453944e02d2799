"""
What is written to hand a message over: the frames of ``basic.publish``, by AMQP 0-9-1 (4.2.3 to 4.2.6).

py-amqp makes the same from tables of types for any method. That takes as long as everything else that a client does
with a mail; these few bytes are nearly the same each time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from mail_service.client.parcel import Parcel

_METHOD, _HEADER, _BODY = 1, 2, 3
#: type of frame, channel, size of what follows
_FRAME = struct.Struct(">BHI")
_FRAME_END = b"\xce"
#: bytes of a frame that are not its content
_AROUND = _FRAME.size + len(_FRAME_END)

_BASIC, _PUBLISH = 60, 40
#: class, method, a reserved number
_CALL = struct.Struct(">HHH")
#: of the two bits, mandatory is the first and immediate the second
_MANDATORY = b"\x01"
#: class, weight, size of the body, which properties follow
_PROPERTIES = struct.Struct(">HHQH")

#: In the order in which they follow. All are short strings but the table of headers and the octet of the delivery mode.
_FLAGS = {
    "content_type": 1 << 15,
    "content_encoding": 1 << 14,
    "application_headers": 1 << 13,
    "delivery_mode": 1 << 12,
    "correlation_id": 1 << 10,
    "reply_to": 1 << 9,
    "expiration": 1 << 8,
    "message_id": 1 << 7,
}


def publish(parcel: Parcel, *, channel: int, largest: int) -> Iterator[bytes]:
    """
    Yield the frames of *parcel*, mandatory; the first ones together.

    Args:
        channel: Number of the channel.
        largest: Bytes of the largest frame, as was agreed upon.
    """
    size = largest - _AROUND
    yield b"".join(
        (
            _published(channel, parcel.exchange, parcel.routing_key),
            _frame(_HEADER, channel, _properties(parcel)),
            _frame(_BODY, channel, parcel.body[:size]) if parcel.body else b"",
        )
    )
    for start in range(size, len(parcel.body), size):
        yield _frame(_BODY, channel, parcel.body[start : start + size])


@lru_cache(maxsize=64)
def _published(channel: int, exchange: str, routing_key: str) -> bytes:
    call = _CALL.pack(_BASIC, _PUBLISH, 0)
    return _frame(_METHOD, channel, call + _short(exchange) + _short(routing_key) + _MANDATORY)


def _frame(kind: int, channel: int, content: bytes) -> bytes:
    return _FRAME.pack(kind, channel, len(content)) + content + _FRAME_END


def _properties(parcel: Parcel) -> bytes:
    given = parcel.amqp_properties()
    flags, parts = 0, []
    for name, flag in _FLAGS.items():
        if (value := given.get(name)) is not None:
            flags |= flag
            parts.append(_property(value))
    return _PROPERTIES.pack(_BASIC, 0, len(parcel.body), flags) + b"".join(parts)


def _property(value: Any) -> bytes:
    if isinstance(value, str):
        return _short(value)
    return bytes((value,)) if isinstance(value, int) else _table(value)


@lru_cache(maxsize=256)
def _known_short(text: str) -> bytes:
    return _short(text)


def _short(text: str) -> bytes:
    """A short string. Raises ValueError when it has more than 255 bytes."""
    raw = text.encode()
    return bytes((len(raw),)) + raw


def _table(table: Mapping[str, Any]) -> bytes:
    return _long(b"".join(_known_short(name) + _item(value) for name, value in table.items()))


def _item(value: Any) -> bytes:
    """A value of a table, or of a list in one: what our headers have, whole numbers and text."""
    match value:
        case int():
            return b"l" + value.to_bytes(8, signed=True)
        case str():
            return b"S" + _long(value.encode())
    return b"A" + _long(b"".join(map(_item, value)))


def _long(raw: bytes) -> bytes:
    return len(raw).to_bytes(4) + raw
