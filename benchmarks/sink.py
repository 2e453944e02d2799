"""An SMTP server that takes everything and counts, with as little work as possible: the sender is what is measured."""

from __future__ import annotations

import asyncio
import json
import sys
import time

_OFFER = b"250-sink\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"


class _Sink(asyncio.Protocol):
    count = 0
    first = last = 0.0

    def __init__(self) -> None:
        self._buffer = b""
        self._in_data = False
        #: bytes of a BDAT still to come
        self._chunk = 0

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
            self._count()
        elif head[:4].upper() == b"BDAT":
            self._chunk = int(head.split()[1])
        else:
            self._answer(head[:4].upper())
        return True

    def _take_chunk(self) -> bool:
        if len(self._buffer) < self._chunk:
            return False
        self._buffer = self._buffer[self._chunk :]
        self._chunk = 0
        self._count()
        return True

    def _count(self) -> None:
        _Sink.count += 1
        _Sink.last = time.monotonic()
        _Sink.first = _Sink.first or _Sink.last
        self._transport.write(b"250 2.0.0 taken\r\n")

    def _answer(self, verb: bytes) -> None:
        if verb == b"EHLO":
            self._transport.write(_OFFER)
        elif verb == b"DATA":
            self._in_data = True
            self._transport.write(b"354 go on\r\n")
        elif verb == b"QUIT":
            self._transport.write(b"221 bye\r\n")
            self._transport.close()
        else:
            self._transport.write(b"250 2.0.0 ok\r\n")


async def _main() -> None:
    """Print the port, then for each line of standard input the count and the seconds from first mail to last."""
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip() == b"reset":
            _Sink.count, _Sink.first, _Sink.last = 0, 0.0, 0.0
        print(json.dumps({"count": _Sink.count, "seconds": _Sink.last - _Sink.first}), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
