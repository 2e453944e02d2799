"""Writes of one turn of the event loop go out together."""

from __future__ import annotations

import eventlet
import pytest

from mail_service.amqp.buffering import Together


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
