"""The reader takes from a stream what smtplib takes from it, in whatever pieces it arrives."""

from __future__ import annotations

import io
import smtplib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail_service.mailers.replies import LONGEST_LINE, LONGEST_REPLY, Client, Reply, ReplyReader


class Pieces:
    """A socket on which these pieces arrive, and then the end."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = iter([piece for piece in pieces if piece])
        self.timeouts: list[float] = []

    def settimeout(self, seconds: float) -> None:
        self.timeouts.append(seconds)

    def recv(self, _size: int) -> bytes:
        return next(self._pieces, b"")

    def close(self) -> None:
        pass


def replies(*pieces: bytes) -> list[Reply]:
    return list(_until_the_end(ReplyReader(Pieces(*pieces), 5)))


def _until_the_end(reader: ReplyReader) -> Iterator[Reply]:
    while True:
        try:
            yield reader.reply()
        except EOFError:
            return


def smtplibs(stream: bytes) -> list[Reply]:
    client = smtplib.SMTP()
    client.file = io.BytesIO(stream)  # as readable as a socket's
    found = []
    while True:
        try:
            found.append(Reply(*client.getreply()))
        except smtplib.SMTPServerDisconnected:
            return found


ENDS = st.sampled_from(["\r\n", "\n", " \r\n"])
LINES = st.one_of(
    st.builds(
        lambda code, mark, text, end: f"{code}{mark}{text}{end}".encode(),
        st.sampled_from([250, 354, 421, 550, 999]),
        st.sampled_from([" ", "-", "", "  "]),
        st.text(st.sampled_from("ok 2.0-\t"), max_size=8),
        ENDS,
    ),
    # no code at all; smtplib takes whatever Python takes for a number, such as +25
    st.builds(
        lambda text, end: f"{text}{end}".encode(), st.sampled_from(["", "banana", "2x0 ok", "-", "no-250", ".."]), ENDS
    ),
)


@given(st.lists(LINES, max_size=8), st.data())
def test_replies_are_read_as_smtplib_reads_them(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert replies(*pieces) == smtplibs(stream)


def test_a_line_that_the_end_cuts_off_counts_as_smtplib_counts_it() -> None:
    assert replies(b"250 o") == smtplibs(b"250 o") == [Reply(250, b"o")]


@pytest.mark.parametrize(
    "stream",
    [
        b"250 " + b"x" * LONGEST_LINE,
        b"250-more\r\n" * (LONGEST_REPLY // 8),
        b"250-" + b"x" * LONGEST_LINE + b"\r\n250 ok\r\n",
    ],
    ids=["a line without end", "lines without end", "a long line"],
)
def test_what_is_too_long_is_no_reply(stream: bytes) -> None:
    """In smtplib it is a 500, which after the content would say that the mail was refused."""
    assert ReplyReader(Pieces(stream), 5).reply().code == -1


def test_the_time_left_gets_less_within_a_reply_and_begins_anew_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr("time.monotonic", lambda: float(next(now)))
    sock = Pieces(b"25", b"0 ", b"ok\r\n", b"250 ok\r\n")
    reader = ReplyReader(sock, 10)

    reader.reply()
    first, sock.timeouts = sock.timeouts, []
    reader.reply()

    assert first == [9, 8, 7]
    assert sock.timeouts == [9]


def test_no_time_left_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr("time.monotonic", lambda: float(next(now)))

    with pytest.raises(TimeoutError):
        ReplyReader(Pieces(*[b"2"] * 50), 10).reply()


def test_a_client_that_was_cut_off_says_so_as_smtplib_does() -> None:
    client = Client()
    client.sock = Pieces()
    client.timeout = 5

    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.getreply()

    assert client.sock is None
