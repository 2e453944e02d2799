"""
An SMTP server that takes everything and counts, with as little work as possible: the sender is what is measured.

For a storm it refuses each mail to a recipient whose name begins with ``s`` so many times first, with 451.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.figures import until

ROOT = Path(__file__).parents[1]

_OFFER = b"250-sink\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
_RECIPIENT = re.compile(rb"<([^@>]*)")


@dataclass(slots=True)
class _Tally:
    count: int = 0
    #: of an attempt, by ``time.monotonic``, and of what was taken
    begun: float = 0.0
    first: float = 0.0
    last: float = 0.0
    #: of each mail, in a storm
    refusals: int = 0
    attempts: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    #: when the last of these was taken for the first time
    stormed: float = 0.0
    #: when mail came whose recipient's name does not begin with ``s``
    healthy: dict[str, float] = field(default_factory=dict)

    def answer(self) -> dict[str, Any]:
        return {"count": self.count, "begun": self.begun, "first": self.first, "last": self.last}

    def details(self) -> dict[str, Any]:
        doubled = sum(count - 1 for count in self.taken.values())
        return self.answer() | {
            "attempts": self.attempts.total(),
            "taken": len(self.taken),
            "doubled": doubled,
            "stormed": self.stormed,
            "healthy": self.healthy,
        }


class _Sink(asyncio.Protocol):
    tally = _Tally()

    def __init__(self) -> None:
        self._buffer = b""
        self._in_data = False
        #: bytes of a BDAT still to come
        self._chunk = 0
        self._recipient = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._take():
            pass

    def _take(self) -> bool:
        if self._chunk:
            return self._take_chunk()
        end = b"\r\n.\r\n" if self._in_data else b"\r\n"
        head, found, rest = self._buffer.partition(end)
        if not found:
            return False
        self._buffer = rest
        if self._in_data:
            self._in_data = False
            self._came()
        elif head[:4].upper() == b"BDAT":
            self._chunk = int(head.split()[1])
        else:
            self._answer(head[:4].upper(), head)
        return True

    def _take_chunk(self) -> bool:
        if len(self._buffer) < self._chunk:
            return False
        self._buffer = self._buffer[self._chunk :]
        self._chunk = 0
        self._came()
        return True

    def _came(self) -> None:
        tally, now = _Sink.tally, time.monotonic()
        tally.begun = tally.begun or now
        if tally.refusals and self._is_refused(tally, now):
            self._transport.write(b"451 4.3.0 later\r\n")
            return
        tally.count += 1
        tally.last = now
        tally.first = tally.first or now
        self._transport.write(b"250 2.0.0 taken\r\n")

    def _is_refused(self, tally: _Tally, now: float) -> bool:
        if not self._recipient.startswith("s"):
            tally.healthy.setdefault(self._recipient, now)
            return False
        tally.attempts[self._recipient] += 1
        if tally.attempts[self._recipient] <= tally.refusals:
            return True
        tally.taken[self._recipient] += 1
        if tally.taken[self._recipient] == 1:
            tally.stormed = now
        return False

    def _answer(self, verb: bytes, line: bytes) -> None:
        if verb == b"EHLO":
            self._transport.write(_OFFER)
        elif verb == b"DATA":
            self._in_data = True
            self._transport.write(b"354 go on\r\n")
        elif verb == b"QUIT":
            self._transport.write(b"221 bye\r\n")
            self._transport.close()
        else:
            if verb == b"RCPT" and (found := _RECIPIENT.search(line)):
                self._recipient = found[1].decode()
            self._transport.write(b"250 2.0.0 ok\r\n")


class Sink:
    """The SMTP server, in a process of its own."""

    def __enter__(self) -> Self:
        program = [sys.executable, "-m", "benchmarks.sink"]
        self._process = subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._line())
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    def ask(self, words: str = "count") -> dict[str, Any]:
        """How many mails came, and when; ``reset`` begins anew. See `_main`."""
        assert self._process.stdin
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def await_count(self, count: int) -> float:
        """Seconds from the first mail to the last, when all have come."""
        answer = self.until("count", count)
        return float(answer["last"] - answer["first"])

    def until(self, name: str, least: float) -> dict[str, Any]:
        """The first answer with so much of *name*."""
        return until(self.ask, lambda answer: bool(answer[name] >= least), f"{least} of {name!r}")

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()


async def _main() -> None:
    """Print the port, then answer each line of standard input: ``count``, ``details``, ``reset`` or ``reset 2``."""
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        word, _, number = line.decode().strip().partition(" ")
        if word == "reset":
            _Sink.tally = _Tally(refusals=int(number or 0))
        answer = _Sink.tally.details() if word == "details" else _Sink.tally.answer()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
