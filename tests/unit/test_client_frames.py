"""The frames that a client writes are those of AMQP, as py-amqp reads and writes them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from amqp import Message, spec
from amqp.method_framing import frame_writer
from amqp.serialization import dumps, loads
from hypothesis import given, settings
from hypothesis import strategies as st

from mail_service.client import frames
from mail_service.client.parcel import Parcel

from ..support.messages import examples

CHANNEL = 7


def parsed(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """The type and the content of each frame."""
    stream = BytesIO(raw)
    while head := stream.read(7):
        kind, channel, size = struct.unpack(">BHI", head)
        assert channel == CHANNEL
        yield kind, stream.read(size)
        assert stream.read(1) == b"\xce"


def written(parcel: Parcel, *, largest: int = 131_072) -> bytes:
    return b"".join(frames.publish(parcel, channel=CHANNEL, largest=largest))


def a_parcel(**changes: Any) -> Parcel:
    made = {"id": "m1", "body": b'{"v":1}', "routing_key": "mail.send.v1.normal", "headers": {"mail.submitted_ms": 17}}
    return Parcel(**made | changes)


def read(parcel: Parcel, *, largest: int = 131_072) -> tuple[list[Any], dict[str, Any], bytes]:
    """The arguments of ``basic.publish``, the properties and the body, as py-amqp reads them."""
    (method, call), (header, properties), *bodies = parsed(written(parcel, largest=largest))
    assert (method, header) == (1, 2)
    assert struct.unpack(">HH", call[:4]) == spec.Basic.Publish
    class_id, weight, size = struct.unpack(">HHQ", properties[:12])
    assert (class_id, weight, size) == (60, 0, len(parcel.body))
    message = Message()
    message._load_properties(60, properties, 12)
    assert all(kind == 3 for kind, _ in bodies)
    assert all(len(part) <= largest - 8 for _, part in bodies)
    return loads("Bssbb", call, 4)[0], message.properties, b"".join(part for _, part in bodies)


texts = st.text(max_size=60)
tables = st.dictionaries(
    st.text(min_size=1, max_size=60),
    st.one_of(st.integers(-(2**63), 2**63 - 1), texts, st.lists(texts, max_size=3)),
    max_size=4,
)


@settings(max_examples=examples(40))
@given(
    parcel=st.builds(
        Parcel,
        id=texts,
        body=st.binary(min_size=1, max_size=300),
        routing_key=texts,
        exchange=texts,
        headers=tables,
        properties=st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("correlation_id", "reply_to", "expiration"), texts)
        ),
    ),
    largest=st.integers(20, 400),
)
def test_what_is_written_is_read_again(parcel: Parcel, largest: int) -> None:
    call, properties, body = read(parcel, largest=largest)

    assert call == [0, parcel.exchange, parcel.routing_key, True, False]
    assert properties == {name: value for name, value in parcel.amqp_properties().items() if value is not None}
    assert body == parcel.body


@pytest.mark.parametrize("size", [1, 99, 100, 101, 200, 1000])
def test_a_body_is_cut_where_py_amqp_cuts_it(size: int) -> None:
    parcel = a_parcel(body=b"x" * size)

    assert pieces(written(parcel, largest=108)) == pieces(written_by_py_amqp(parcel, largest=108))


def pieces(raw: bytes) -> list[bytes]:
    return [content for kind, content in parsed(raw) if kind == 3]


def written_by_py_amqp(parcel: Parcel, *, largest: int) -> bytes:
    class Transport:
        frames = b""

        def write(self, raw: bytes) -> None:
            self.frames += bytes(raw)

    class Connection:
        frame_max = largest
        bytes_sent = 0

    transport = Transport()
    write = frame_writer(Connection(), transport)
    args = dumps("Bssbb", (0, parcel.exchange, parcel.routing_key, True, False))
    write(1, CHANNEL, spec.Basic.Publish, args, Message(parcel.body, **parcel.amqp_properties()))
    return transport.frames


def test_a_name_that_is_too_long_for_amqp_is_no_half_frame() -> None:
    with pytest.raises(ValueError, match="256"):
        written(a_parcel(exchange="x" * 256))
