"""Reads an SMTP server's replies: in as few steps as they come in, of a bounded length, and each within its time."""

from __future__ import annotations

import smtplib
import ssl
import time
from typing import Any, Final, NamedTuple

#: bytes asked of the socket at a time: the replies to a group of commands come together
_READ: Final = 16 * 1024
#: bytes of a line and of a reply, beyond which it is none; RFC 5321, 4.5.3.1.5 allows 512 a line
LONGEST_LINE: Final = 8 * 1024
LONGEST_REPLY: Final = 64 * 1024


class Reply(NamedTuple):
    """What the server answered; the code is -1 for what is no reply, as smtplib has it."""

    code: int
    text: bytes

    @property
    def accepts(self) -> bool:
        """By its first digit, as RFC 5321, 4.2.1 asks; smtplib knows 250 and 251 only."""
        return self.code // 100 == 2

    @property
    def refuses(self) -> bool:
        """A clear no, after which the session can go on; 421 ends it."""
        return self.code // 100 in {4, 5} and self.code != 421


class ReplyReader:
    """
    Takes the place of the file that smtplib reads replies from.

    A socket's own timeout counts anew for each byte, so that a slow server could make one reply last for ever; here it
    is for the whole of a reply.
    """

    def __init__(self, sock: Any, timeout_s: float) -> None:
        #: seconds for a whole reply
        self.timeout_s = timeout_s
        self._sock = sock
        self._read = b""
        self._at = 0

    def reply(self) -> Reply:
        """
        Return the next reply.

        Raises:
            EOFError: when the server has closed.
            TimeoutError: when it has not come in time. Another OSError: whatever the socket has to say.
        """
        ends = time.monotonic() + self.timeout_s
        texts: list[bytes] = []
        size = 0
        while True:
            line = self._line(ends)
            size += len(line)
            if size > LONGEST_REPLY or len(line) > LONGEST_LINE:
                return Reply(-1, b"the reply is too long")
            texts.append(line[4:].strip(b" \t\r\n"))
            code = int(line[:3]) if len(line) > 2 and line[:3].isdigit() else -1
            if code < 0 or line[3:4] != b"-":
                return Reply(code, texts[0] if len(texts) == 1 else b"\n".join(texts))

    def is_quiet(self) -> bool:
        """Whether nothing is there to be read, the end included."""
        if self._at < len(self._read):
            return False
        try:
            # not by a timeout of 0, with which eventlet's TLS sockets wait all the same
            self._sock.setblocking(0)
            self._sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._sock.setblocking(1)
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Forget what was read; smtplib closes the socket itself."""
        self._read, self._at = b"", 0

    def _line(self, ends: float) -> bytes:
        """The next line, or what there is of it when the server closes or does not come to its end."""
        while (end := self._read.find(b"\n", self._at)) < 0:
            begun = self._read[self._at :]
            if len(begun) > LONGEST_LINE:
                return begun
            more = self._more(ends)
            if not more:
                self._read, self._at = b"", 0
                if not begun:
                    raise EOFError
                return begun
            self._read, self._at = begun + more, 0
        line = self._read[self._at : end]
        self._at = end + 1
        return line

    def _more(self, ends: float) -> bytes:
        left_s = ends - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left_s)
        received: bytes = self._sock.recv(_READ)
        return received


class _ReadsReplies:
    """Smtplib's client with our reader, from the greeting on. Its errors stay what they are."""

    file: ReplyReader | None
    sock: Any
    timeout: float

    def getreply(self) -> Reply:
        """See ``smtplib.SMTP.getreply``; the file is new at the beginning and after STARTTLS."""
        if self.file is None:
            self.file = ReplyReader(self.sock, self.timeout)
        try:
            return self.file.reply()
        except EOFError:
            self.close()
            raise smtplib.SMTPServerDisconnected("Connection unexpectedly closed") from None
        except OSError as error:
            self.close()
            raise smtplib.SMTPServerDisconnected(f"Connection unexpectedly closed: {error}") from error

    def close(self) -> None:
        raise NotImplementedError


class Client(_ReadsReplies, smtplib.SMTP):
    """An SMTP client."""

    close = smtplib.SMTP.close


class TlsClient(_ReadsReplies, smtplib.SMTP_SSL):
    """An SMTP client that speaks TLS from the first byte."""

    close = smtplib.SMTP_SSL.close
