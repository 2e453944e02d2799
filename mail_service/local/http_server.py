"""
A real HTTP server in a process of its own that answers as it is told to, and notes down every request that it got.

    python -m mail_service.local.http_server FOLDER [--port N] [--settings JSON]

It prints one JSON line with its port, appends to ``FOLDER/log.jsonl`` and obeys ``FOLDER/rules.json``, a list of rules
that may be replaced at any time. ``HttpServer`` does all that for a program. It stands in for the API of an email
provider: connections are kept alive, and faults are those of a network, down to single bytes. It listens on the
loopback address only.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import fnmatch
import json
import re
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from .scripted import LogWriter, RulesFile, ScriptedServer

#: the longest request line and header fields, in bytes
_HEAD_LIMIT = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """
    One answer. Rules are tried in order and the first that applies decides; one that only hangs goes on to the next.

    ``Rule(path="/email", body_has="late@", times=2, status=429, headers={"Retry-After": "3"})`` asks that recipient
    twice to come later; ``Rule(drop="request")`` takes the request and hangs up instead of answering. A request for
    which no rule applies is answered with 404.
    """

    #: shell pattern, without the query
    path: str = "*"
    #: shell pattern: ``POST``
    method: str = "*"
    #: name of a header field, in any case, to the shell pattern of its value
    if_headers: Mapping[str, str] = field(default_factory=dict)
    #: regular expression to be found in the body, such as a recipient's address
    body_has: str | None = None
    #: how often it applies; None is always
    times: int | None = None
    #: regular expression; each different text that it finds in the body has its own count of ``times``
    each: str | None = None
    #: seconds to wait before the answer or the drop
    hang_s: float = 0
    #: the answer's status; None without anything else to do makes a rule that only hangs
    status: int | None = None
    #: the answer's header fields; Content-Length and Content-Type need not be given
    headers: Mapping[str, str] = field(default_factory=dict)
    #: the answer's body; what is not a string is sent as JSON. ``$number`` becomes the request's number
    body: object = ""
    #: answer with these bytes (Latin-1) instead of anything that HTTP knows, and hang up
    garbage: str | None = None
    #: send only so many bytes of the body that was announced, and hang up
    cut_after: int | None = None
    #: seconds before each byte of the answer
    byte_s: float = 0
    #: hang up without an answer: as soon as the ``connection`` is there, when the ``head`` of the request was read and
    #: its body not, or when the whole ``request`` was
    drop: Literal["connection", "head", "request"] | None = None
    #: hang up as a crashed machine does, with a TCP reset
    reset: bool = False
    #: hang up after the answer without having said so, as servers do with connections that are idle for long
    close: bool = False

    def __post_init__(self) -> None:
        if self.drop == "connection" and (self.path, self.method, self.if_headers) != ("*", "*", {}):
            raise ValueError("drop='connection' comes before any request: it has no path, method or headers.")
        if self.drop in {"connection", "head"} and (self.body_has or self.each):
            raise ValueError(f"drop={self.drop!r} comes before the body: it cannot depend on it.")

    @property
    def only_hangs(self) -> bool:
        """Whether another rule has to say what to answer."""
        return self.status is None and self.garbage is None and self.drop is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that the server got."""

    method: str
    #: with the query
    path: str
    #: names in lower case
    headers: Mapping[str, str]
    body: bytes
    #: seconds since the epoch, when it had come
    time: float
    #: number of the request since the server started, from 1
    number: int
    #: number of the connection since the server started, from 1
    connection: int
    #: of the answer to come; None when it is to be dropped, or is garbage
    status: int | None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class HttpServer(ScriptedServer[Request]):
    """
    The server as a context manager: ``with HttpServer(Rule(...)) as server: ... server.url ... server.requests()``.

    Args:
        certificate: A PEM file with certificate and key; then ``url`` begins with https.
        folder: Where the log goes; a temporary one by default, removed at the end.
        port: 0 lets the system choose one. The port stays the same when it is started again.
    """

    kind = "HTTP"
    module = "mail_service.local.http_server"

    def __init__(
        self, *rules: Rule, certificate: Path | None = None, folder: Path | None = None, port: int = 0
    ) -> None:
        self._scheme = "https" if certificate else "http"
        settings = {"certificate": str(certificate.absolute())} if certificate else {}
        super().__init__(_request, folder=folder, port=port, settings=settings)
        self.script(*rules)

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"{self._scheme}://{self.host}:{self.port}"

    def script(self, *rules: Rule) -> None:
        """Replace all rules; in force from the next request on, and counted anew."""
        self._write_rules(map(asdict, rules))

    def requests(self) -> list[Request]:
        """Give every request so far, in order of their coming; also those from before a restart."""
        return self._log.all()

    def forget(self) -> None:
        """Leave out of ``requests`` those that came up to now."""
        self._log.forget()


def _request(entry: dict[str, Any]) -> Request:
    return Request(**entry | {"body": base64.b64decode(entry["body"])})


class _Rules:
    """The rules of a file that may be replaced at any time, and how often each has applied."""

    def __init__(self, path: Path) -> None:
        self._file = RulesFile(path)
        self._rules: list[Rule] = []
        self._used: Counter[tuple[int, str]] = Counter()

    def refresh(self) -> None:
        """Look whether there are new ones."""
        new = self._file.changed()
        if new is not None:
            self._rules = [Rule(**each) for each in new]
            self._used.clear()

    def applying(self, moment: Literal["connection", "head", "request"], head: _Head, body: str) -> list[Rule]:
        """Give the rules that apply now, each counted as used: those that hang, and the one that decides, if any."""
        found = []
        for number, rule in enumerate(self._rules):
            at = rule.drop or "request"
            if at != moment or not _matches(rule, head, body):
                continue
            counted = re.search(rule.each, body) if rule.each else None
            key = (number, counted[0] if counted else "")
            if rule.times is None or self._used[key] < rule.times:
                self._used[key] += 1
                found.append(rule)
                if not rule.only_hangs:
                    break
        return found


def _matches(rule: Rule, head: _Head, body: str) -> bool:
    return (
        fnmatch.fnmatchcase(head.path.partition("?")[0], rule.path)
        and fnmatch.fnmatchcase(head.method, rule.method)
        and all(
            fnmatch.fnmatchcase(head.headers.get(name.lower(), ""), pattern)
            for name, pattern in rule.if_headers.items()
        )
        and (rule.body_has is None or re.search(rule.body_has, body) is not None)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """A request line and the header fields."""

    method: str = ""
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class _HungUp(Exception):
    """This connection is over."""


class _Server:
    """Answers all connections."""

    def __init__(self, folder: Path) -> None:
        self._rules = _Rules(folder / "rules.json")
        self._log = LogWriter(folder / "log.jsonl")
        self._connections = 0
        self._requests = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until either side hangs up."""
        self._connections += 1
        number = self._connections
        try:
            await self._drop_if_told("connection", _Head(), writer)
            while head := await _read_head(reader):
                await self._drop_if_told("head", head, writer, number)
                await self._answer(head, await _read_body(head, reader, writer), writer, number)
        except (_HungUp, OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            # the other side went away, or said what is not HTTP; either is for the client to notice
            pass
        finally:
            writer.close()

    async def _drop_if_told(
        self, moment: Literal["connection", "head"], head: _Head, writer: asyncio.StreamWriter, number: int = 0
    ) -> None:
        self._rules.refresh()
        for rule in self._rules.applying(moment, head, ""):
            if moment == "head":
                self._note(head, b"", number, None)
            await asyncio.sleep(rule.hang_s)
            _hang_up(writer, rule)

    async def _answer(self, head: _Head, body: bytes, writer: asyncio.StreamWriter, connection: int) -> None:
        rules = self._rules.applying("request", head, body.decode("utf-8", "replace"))
        rule = rules[-1] if rules and not rules[-1].only_hangs else Rule(status=404, body="No rule applies.")
        number = self._note(head, body, connection, rule.status if rule.garbage is None and not rule.drop else None)
        await asyncio.sleep(sum(one.hang_s for one in rules))
        if rule.drop:
            _hang_up(writer, rule)
        await _write(
            rule.garbage.encode("latin-1") if rule.garbage is not None else _response(rule, number), rule, writer
        )
        if (
            rule.close
            or rule.garbage is not None
            or rule.cut_after is not None
            or _says_close(rule.headers, head.headers)
        ):
            _hang_up(writer, rule)

    def _note(self, head: _Head, body: bytes, connection: int, status: int | None) -> int:
        self._requests += 1
        self._log.write(
            **asdict(head),
            body=base64.b64encode(body).decode(),
            number=self._requests,
            connection=connection,
            status=status,
        )
        return self._requests


def _says_close(*headers: Mapping[str, str]) -> bool:
    return any(
        name.lower() == "connection" and value.lower() == "close" for each in headers for name, value in each.items()
    )


def _hang_up(writer: asyncio.StreamWriter, rule: Rule) -> None:
    if rule.reset:
        sock: socket.socket = writer.get_extra_info("socket")
        # on, after 0 seconds: what is not sent is thrown away, and the other side gets a RST
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    raise _HungUp


def _response(rule: Rule, number: int) -> bytes:
    text = rule.body if isinstance(rule.body, str) else json.dumps(rule.body)
    body = text.replace("$number", str(number)).encode()
    status = rule.status or 200
    reason = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Unheard Of"
    kind = "text/plain; charset=utf-8" if isinstance(rule.body, str) else "application/json"
    headers = {"Content-Type": kind, "Content-Length": str(len(body)), **rule.headers}
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body[: rule.cut_after]


async def _write(answer: bytes, rule: Rule, writer: asyncio.StreamWriter) -> None:
    if not rule.byte_s:
        writer.write(answer)
        await writer.drain()
        return
    for byte in answer:
        await asyncio.sleep(rule.byte_s)
        writer.write(bytes([byte]))
        await writer.drain()


async def _read_head(reader: asyncio.StreamReader) -> _Head | None:
    """Read a request up to its empty line; None when the client hung up instead."""
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    request, *lines = text.strip().split("\r\n")
    method, path, _ = request.split(" ")
    headers = (line.partition(":") for line in lines)
    return _Head(method=method, path=path, headers={name.lower(): value.strip() for name, _, value in headers})


async def _read_body(head: _Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    if head.headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if head.headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(head.headers.get("content-length", "0")))
    body = bytearray()
    while size := int((await reader.readline()).partition(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while (await reader.readline()).strip():
        pass
    return bytes(body)


async def _serve(folder: Path, port: int, certificate: str | None) -> None:
    server = _Server(folder)
    tls = None
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    listening = await asyncio.start_server(server.talk, HttpServer.host, port, ssl=tls, backlog=1000, limit=_HEAD_LIMIT)
    print(json.dumps({"port": listening.sockets[0].getsockname()[1]}), flush=True)
    await listening.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="A scripted HTTP server on the loopback address.")
    parser.add_argument("folder", type=Path, help="where log.jsonl is written and rules.json is read")
    parser.add_argument("--port", type=int, default=0, help="0, the default, lets the system choose")
    parser.add_argument(
        "--settings", type=json.loads, default={}, help='as JSON: {"certificate": "FILE.pem"} for https'
    )
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(given.folder, given.port, given.settings.get("certificate")))


if __name__ == "__main__":
    main()
