"""Writes of one turn of the event loop go out together; who reads can be called away, and loses nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import eventlet
import pytest
from amqp.transport import TCPTransport
from eventlet.greenio import GreenSocket

from mail_service.amqp.buffering import Ahead, Together

#: a heartbeat on channel 0 with something in it
PAYLOAD = b"still here"
FRAME = b"\x08\x00\x00" + len(PAYLOAD).to_bytes(4, "big") + PAYLOAD + b"\xce"


@pytest.fixture
def line() -> Iterator[tuple[Any, Ahead, socket.socket]]:
    """What reads frames from a socket, and the other end of it."""
    ours, theirs = socket.socketpair()
    transport = TCPTransport("localhost")
    with theirs, GreenSocket(ours) as transport.sock:
        transport._setup_transport()
        ahead = transport._quick_recv = Ahead(transport._quick_recv)
        yield transport, ahead, theirs


def called_away(ahead: Ahead) -> None:
    eventlet.hubs.get_hub().schedule_call_global(0, ahead.time_out)
    eventlet.sleep(0)


@pytest.mark.parametrize("came", range(len(FRAME)))
def test_who_waits_for_a_frame_has_a_time_out_when_called_away_and_gets_the_frame_later(came: int, line: Any) -> None:
    transport, ahead, theirs = line
    reading = eventlet.spawn(transport.read_frame)
    eventlet.sleep(0)
    theirs.send(FRAME[:came])
    eventlet.sleep(0)
    called_away(ahead)
    with eventlet.Timeout(10), pytest.raises(TimeoutError):
        reading.wait()

    theirs.send(FRAME[came:])
    with eventlet.Timeout(10):
        kind, channel, payload = transport.read_frame()

    assert (kind, channel, bytes(payload)) == (8, 0, PAYLOAD)


def test_nobody_is_called_away_who_does_not_read(line: Any) -> None:
    _, ahead, _ = line
    called_away(ahead)


def test_what_comes_in_one_turn_is_written_by_one_call_and_in_order() -> None:
    written: list[bytes] = []
    together = Together(written.append)
    for number in range(5):
        together(b"%d" % number)
    eventlet.sleep(0)

    assert written == [b"01234"]


def test_memory_that_is_used_again_spoils_nothing() -> None:
    written: list[bytes] = []
    together = Together(written.append)
    memory = bytearray(b"one")
    together(memoryview(memory))
    memory[:] = b"two"
    together(memoryview(memory))
    eventlet.sleep(0)

    assert written == [b"onetwo"]


def test_what_comes_during_a_write_follows_it() -> None:
    written: list[bytes] = []

    def write(data: bytes) -> None:
        written.append(data)
        if data == b"first":
            together(b"second")
            # the socket is full: others run meanwhile
            eventlet.sleep(0)
            together(b"third")

    together = Together(write)
    together(b"first")
    eventlet.sleep(0)
    eventlet.sleep(0)

    assert written == [b"first", b"secondthird"]


def test_a_broken_connection_is_the_readers_to_notice(capfd: pytest.CaptureFixture[str]) -> None:
    def write(_data: bytes) -> None:
        raise BrokenPipeError

    together = Together(write)
    together(b"lost")
    eventlet.sleep(0)
    together(b"lost too")
    eventlet.sleep(0)

    assert capfd.readouterr().err == ""
