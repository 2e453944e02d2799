"""
A real SMTP server in a process of its own that fails as it is told to, and notes down every mail that it accepted.

    python -m mail_service.local.smtp_server FOLDER [--port N] [--settings JSON]

It prints one JSON line with its port, appends to ``FOLDER/log.jsonl`` and obeys ``FOLDER/rules.json``, a list of rules
that may be replaced at any time. ``SmtpServer`` does all that for a program. It listens on the loopback address only,
and keeps whatever it gets: not a server for real mail.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import fnmatch
import json
import re
import ssl
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

from aiosmtpd.smtp import MISSING, SMTP, AuthResult, Envelope, LoginPassword, Session

from .scripted import LogWriter, RulesFile, ScriptedServer

#: where in the conversation a rule applies: before the greeting, at a command, in the middle of the message's bytes,
#: and at the dot that ends them
Stage = Literal["connect", "helo", "auth", "mail", "rcpt", "data", "body", "end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """
    One thing that goes wrong. Rules are tried in order and the first that applies decides; one that only hangs goes on.

    ``Rule(at="rcpt", to="late@*", reply="450 4.2.0 later", times=2)`` refuses that recipient twice and then accepts it;
    ``Rule(at="end", accept=True, drop=True)`` takes the mail and hangs up instead of saying so.
    """

    at: Stage
    #: shell pattern of the recipients it is for; at ``data``, ``body`` and ``end`` it takes one of the mail's to match.
    #: Each recipient has its own count of ``times``
    to: str | None = None
    #: shell pattern of the envelope sender it is for
    sender: str | None = None
    #: how often it applies; None is always
    times: int | None = None
    #: seconds to wait before the answer or the drop
    hang_s: float = 0
    #: what to answer instead; 421 also closes the connection
    reply: str | None = None
    #: close the connection without a word
    drop: bool = False
    #: at ``body``: how many bytes of the message to read before
    after_bytes: int = 0
    #: at ``end``: the mail counts as accepted, at once, whatever the client is told
    accept: bool = False

    def __post_init__(self) -> None:
        if self.at == "body" and self.reply:
            raise ValueError("A reply in the middle of a message would be taken for the next one's: use at='end'.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the server offers."""

    username: str | None = None
    password: str = ""
    #: refuse MAIL without a login
    auth_required: bool = False
    #: None, ``starttls`` or ``implicit``; then *certificate* is a PEM file with certificate and key
    tls: Literal["starttls", "implicit"] | None = None
    certificate: str | None = None
    pipelining: bool = True
    #: RFC 3030: a message may come in one BDAT. Off, since most tests are about DATA
    chunking: bool = False
    smtputf8: bool = True
    eightbitmime: bool = True
    #: bytes, advertised as SIZE and enforced at the end of the message; 0 is no limit and no SIZE
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A mail that the server took."""

    mail_from: str
    rcpt_tos: tuple[str, ...]
    #: the message's bytes, transparency dots removed
    data: bytes
    #: the parameters of MAIL, such as ``BODY=8BITMIME``
    options: tuple[str, ...]
    #: seconds since the epoch
    time: float
    #: number of the connection since the server started, from 1
    connection: int
    user: str | None
    tls: bool

    @property
    def email(self) -> EmailMessage:
        return message_from_bytes(self.data, policy=policy.default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """A rule that applied once."""

    at: Stage
    reply: str | None
    mail_from: str
    rcpt_tos: tuple[str, ...]
    time: float
    connection: int


class SmtpServer(ScriptedServer[Accepted | Fired]):
    """
    The server as a context manager: ``with SmtpServer(Rule(...)) as server: ... server.port ... server.accepted()``.

    Args:
        folder: Where the log goes; a temporary one by default, removed at the end.
        port: 0 lets the system choose one. The port stays the same when it is started again.
    """

    kind = "SMTP"
    module = "mail_service.local.smtp_server"

    def __init__(
        self, *rules: Rule, settings: Settings | None = None, folder: Path | None = None, port: int = 0
    ) -> None:
        super().__init__(_entry, folder=folder, port=port, settings=asdict(settings or Settings()))
        self.script(*rules)

    def script(self, *rules: Rule) -> None:
        """Replace all rules; in force from the next command on, and counted anew."""
        self._write_rules(map(asdict, rules))

    def accepted(self) -> list[Accepted]:
        """Give every mail accepted so far, in order; also those from before a restart."""
        return [entry for entry in self._log.all() if isinstance(entry, Accepted)]

    def fired(self) -> list[Fired]:
        """Give every time that a rule applied, in order."""
        return [entry for entry in self._log.all() if isinstance(entry, Fired)]

    def forget(self) -> None:
        """Leave out of ``accepted`` and ``fired`` what happened up to now."""
        self._log.forget()


def _entry(values: dict[str, Any]) -> Accepted | Fired:
    kind = values.pop("what")
    values["rcpt_tos"] = tuple(values["rcpt_tos"])
    if kind == "fired":
        return Fired(**values)
    return Accepted(**values | {"data": base64.b64decode(values["data"]), "options": tuple(values["options"])})


class _Rules:
    """The rules of a file that may be replaced at any time, and how often each has applied."""

    def __init__(self, path: Path) -> None:
        self._file = RulesFile(path)
        self._rules: list[Rule] = []
        self._used: Counter[tuple[int, str | None]] = Counter()

    def applying(self, at: Stage, sender: str, recipients: Sequence[str]) -> Iterator[Rule]:
        """Give the rules that apply now, each counted as used when it is given."""
        self._refresh()
        for number, rule in enumerate(self._rules):
            if rule.at != at or not _matches(sender, rule.sender):
                continue
            for recipient in recipients if rule.to is not None else [None]:
                used = self._used[number, recipient]
                if _matches(recipient, rule.to) and (rule.times is None or used < rule.times):
                    self._used[number, recipient] += 1
                    yield rule
                    break

    def _refresh(self) -> None:
        new = self._file.changed()
        if new is not None:
            self._rules = [Rule(**each) for each in new]
            self._used.clear()


def _matches(address: str | None, pattern: str | None) -> bool:
    return pattern is None or (address is not None and fnmatch.fnmatchcase(address, pattern))


class _Hooks:
    """What aiosmtpd asks at each stage."""

    def __init__(self, rules: _Rules, log: LogWriter, settings: Settings) -> None:
        self.rules = rules
        self.log = log
        self.settings = settings
        self.connections = 0

    async def handle_EHLO(
        self, server: _Server, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        refused = await server.play("helo")
        if refused:
            return [refused]
        session.host_name = hostname
        offered = [line for line in responses[1:-1] if self._is_offered(line[4:])]
        more = ["250-PIPELINING"] if self.settings.pipelining else []
        more += ["250-CHUNKING"] if self.settings.chunking else []
        # one write instead of one for each line
        return ["\r\n".join([responses[0], *offered, *more, responses[-1]])]

    async def handle_HELO(self, server: _Server, session: Session, _envelope: Envelope, hostname: str) -> str:
        refused = await server.play("helo")
        if refused:
            return refused
        session.host_name = hostname
        return f"250 {server.hostname}"

    async def handle_AUTH(self, server: _Server, _session: Session, _envelope: Envelope, _args: list[str]) -> Any:
        return await server.play("auth") or MISSING

    async def handle_MAIL(
        self, server: _Server, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.settings.auth_required and not session.authenticated:
            return "530 5.7.0 Authentication required"
        refused = await server.play("mail", sender=address)
        if refused:
            return refused
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(
        self, server: _Server, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        refused = await server.play("rcpt", recipients=[address])
        if refused:
            return refused
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    def accepted(self, server: _Server, data: bytes) -> None:
        envelope, session = cast("Envelope", server.envelope), cast("Session", server.session)
        self.log.write(
            what="accepted",
            connection=server.number,
            mail_from=_bare(envelope.mail_from or ""),
            rcpt_tos=envelope.rcpt_tos,
            options=envelope.mail_options,
            user=cast("LoginPassword", session.auth_data).login.decode() if session.authenticated else None,
            tls=session.ssl is not None or self.settings.tls == "implicit",
            data=base64.b64encode(data).decode(),
        )

    def fired(self, server: _Server, rule: Rule, sender: str, recipients: Sequence[str]) -> None:
        self.log.write(
            what="fired",
            connection=server.number,
            at=rule.at,
            reply=rule.reply,
            mail_from=sender,
            rcpt_tos=list(recipients),
        )

    def login(self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, given: Any) -> AuthResult:
        right = isinstance(given, LoginPassword) and self.settings.username is not None
        expected = ((self.settings.username or "").encode(), self.settings.password.encode())
        return AuthResult(success=right and (given.login, given.password) == expected, handled=False, auth_data=given)

    def _is_offered(self, keyword: str) -> bool:
        if keyword.startswith("AUTH"):
            return self.settings.username is not None
        return self.settings.eightbitmime or keyword != "8BITMIME"


class _Server(SMTP):
    """aiosmtpd's protocol, which closes connections when told to and takes lines and messages of any length."""

    line_length_limit = 2**27
    command_size_limit = 2**17

    _ADDRESS = re.compile(r"""\s*<((?:"(?:[^"\\]|\\.)*"|[^<>"])*)>\s*(.*)""", re.DOTALL)

    def __init__(self, hooks: _Hooks, tls: ssl.SSLContext | None) -> None:
        self._hooks = hooks
        hooks.connections += 1
        self.number = hooks.connections
        self._read = bytearray()
        self._taken = False
        # aiosmtpd keeps this one in its class, for all connections, and raises it at each EHLO
        self.command_size_limits = defaultdict(lambda: self.command_size_limit)
        super().__init__(
            hooks,
            hostname="smtp.example.org",
            ident="ready",
            enable_SMTPUTF8=hooks.settings.smtputf8,
            data_size_limit=hooks.settings.size or None,
            tls_context=tls,
            auth_require_tls=False,
            authenticator=hooks.login,
            loop=asyncio.get_running_loop(),
        )

    async def play(self, at: Stage, *, sender: str | None = None, recipients: Sequence[str] = ()) -> str | None:
        """Do what the rules say for this moment, and give the reply that replaces the usual one."""
        envelope = cast("Envelope", self.envelope)
        sender = _bare(sender or envelope.mail_from or "")
        recipients = recipients or envelope.rcpt_tos
        for rule in self._hooks.rules.applying(at, sender, recipients):
            self._hooks.fired(self, rule, sender, recipients)
            await self._read_ahead(rule.after_bytes)
            if rule.accept:
                self._accept()
            await asyncio.sleep(rule.hang_s)
            if rule.drop:
                cast("asyncio.Transport", self.transport).abort()
                # ends the conversation without a word in the log, as aiosmtpd does when the client goes away
                raise asyncio.CancelledError
            if rule.reply:
                return await self._say_goodbye(rule.reply) if rule.reply.startswith("421") else rule.reply
        return None

    async def smtp_DATA(self, _arg: str | None) -> None:
        """
        Take a message.

        aiosmtpd's own reads line by line, which is slow, and can neither stop in the middle nor take long lines.
        """
        if not cast("Envelope", self.envelope).rcpt_tos:
            await self.push("503 5.5.1 Error: need RCPT command")
            return
        refused = await self.play("data")
        if not refused:
            await self.push("354 End data with <CR><LF>.<CR><LF>")
            self._read.clear()
            refused = await self.play("body") or await self._take_message()
        await self.push(refused or "250 2.0.0 OK")
        self.envelope = self._create_envelope()

    async def smtp_BDAT(self, arg: str | None) -> None:
        """Take a message in one chunk, which is read to its end and forgotten where it is refused (RFC 3030, 2)."""
        size = int((arg or "").removesuffix(" LAST"))
        self._read.clear()
        self._taken = False
        has_recipients = bool(cast("Envelope", self.envelope).rcpt_tos)
        refused = await self.play("body") if has_recipients else "503 5.5.1 Error: need RCPT command"
        await self._read_ahead(size)
        # in the form in which DATA has it
        self._read = bytearray(b"\r\n" + self._read).replace(b"\n.", b"\n..")[2:] + b".\r\n"
        refused = refused or await self.play("end")
        if not refused:
            self._accept()
        await self.push(refused or "250 2.0.0 OK")
        self.envelope = self._create_envelope()

    async def _handle_client(self) -> None:
        refused = await self.play("connect")
        if refused:
            await self._say_goodbye(refused)
        await super()._handle_client()

    async def _say_goodbye(self, reply: str) -> NoReturn:
        await self.push(reply)
        self._writer.close()
        raise asyncio.CancelledError

    async def _take_message(self) -> str | None:
        """Read to the lone dot, and give the refusal if there is one."""
        read = self._read
        while read != b".\r\n" and not read.endswith(b"\r\n.\r\n"):
            read += await self._reader.readuntil(b".\r\n")
        self._taken = False
        size = self._hooks.settings.size
        refused = "552 5.3.4 Message too big" if size and len(read) > size else await self.play("end")
        if not refused:
            self._accept()
        return refused

    def _accept(self) -> None:
        if not self._taken:
            self._taken = True
            text = bytes(self._read[: -len(b".\r\n")])
            self._hooks.accepted(self, (text[1:] if text.startswith(b".") else text).replace(b"\r\n.", b"\r\n"))

    async def _read_ahead(self, count: int) -> None:
        """Read that many bytes of a message, which must be longer."""
        if count > len(self._read):
            self._read += await self._reader.readexactly(count - len(self._read))

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """Take the address as it was typed; aiosmtpd's own parser is slow and rewrites some addresses."""
        found = self._ADDRESS.fullmatch(arg)
        return (found[1] or "<>", found[2]) if found else (None, None)


async def _serve(folder: Path, port: int, settings: Settings) -> None:
    hooks = _Hooks(_Rules(folder / "rules.json"), LogWriter(folder / "log.jsonl"), settings)
    tls = _tls_context(settings)
    starttls, implicit = (tls, None) if settings.tls == "starttls" else (None, tls)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Server(hooks, starttls), SmtpServer.host, port, ssl=implicit, backlog=1000
    )
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


def _tls_context(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls is None or settings.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.certificate)
    return context


def _bare(sender: str) -> str:
    return "" if sender == "<>" else sender


def main() -> None:
    parser = argparse.ArgumentParser(description="A scripted SMTP server on the loopback address.")
    parser.add_argument("folder", type=Path, help="where log.jsonl is written and rules.json is read")
    parser.add_argument("--port", type=int, default=0, help="0, the default, lets the system choose")
    parser.add_argument("--settings", type=json.loads, default={}, help="what the server offers, as JSON; see Settings")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(given.folder, given.port, Settings(**given.settings)))


if __name__ == "__main__":
    main()
