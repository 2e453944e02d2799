"""One SMTP session, of which the stage is known at every moment. Who keeps it and what a reply means, others decide."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.core.mail.utils import DNS_NAME

from mail_service.diagnosis import Stage
from mail_service.mailers.replies import Client, Reply, TlsClient

#: bytes handed to the socket at a time: its timeout counts for each piece, not for the whole of a large message
_PIECE: Final = 256 * 1024
#: seconds for a good-bye, which nobody waits for
_GOODBYE_S: Final = 2.0

#: commands sent at a time: their replies must fit into the buffers on the way, since nobody reads while it is written
_GROUP: Final = 100
#: bytes of a mail that is worth sending before anybody is known to get it
_AT_ONCE: Final = 64 * 1024
#: RFC 5321, 4.2.2: a command or a parameter is not known
_NOT_KNOWN: Final = frozenset({500, 501, 502, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A mail as it goes over the wire."""

    #: MAIL FROM; empty for a bounce
    sender: str
    #: address as typed to the one for RCPT TO
    recipients: Mapping[str, str]
    #: the message in pieces that each end with a line
    content: Sequence[bytes]

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return sum(map(len, self.content))

    @property
    def is_ascii(self) -> bool:
        """Whether no byte of the content has its highest bit set."""
        return all(map(bytes.isascii, self.content))


class _Command(NamedTuple):
    """A line, and how far the conversation is when it has been sent."""

    stage: Stage
    line: str
    #: of the recipient, as typed
    address: str = ""


_RESET: Final = _Command("mail", "RSET")
_DATA: Final = _Command("data", "DATA")


class ChunkingRefused(smtplib.SMTPDataError):
    """
    The server, or something in front of it, offers CHUNKING and does not know BDAT: it took the content for commands.
    """


class Conversation:
    """A session with the server that a Django SMTP backend is configured for. One mail at a time."""

    def __init__(self, backend: Any, timeout_s: float) -> None:
        self.stage: Stage = "connect"
        #: it is not a new one, and the server may have closed it meanwhile
        self.is_kept = False
        #: of the pool's clock
        self.idle_since = 0.0
        self._backend = backend
        self._timeout_s = timeout_s
        self._smtp: Any = None
        #: a mail has begun that neither was accepted nor has come to its end
        self._is_under_way = False

    def begin(self) -> None:
        """
        Connect, say hello, and where configured turn to TLS and log in.

        Raises:
            OSError: whatever smtplib, the socket or TLS has to say; ``stage`` tells when.
            ImproperlyConfigured: for options that no session can be begun with.
        """
        try:
            self._connect()
            self._secure_and_log_in()
        except BaseException as error:
            self.drop()
            if isinstance(error, (TypeError, ValueError, OverflowError)) and not isinstance(error, OSError):
                raise ImproperlyConfigured(f"OPTIONS of the SMTP backend: {error}") from error
            raise

    def carry(self, transfer: Transfer, refused: dict[str, Reply], *, at_once: bool = False) -> Reply:
        """
        Hand one mail over. Returns the reply that accepts it, or the last refusal when every recipient was refused.

        Each refused recipient's reply goes into *refused*, also when an error ends the session later.

        Args:
            transfer: The mail.
            refused: By address as typed.
            at_once: Send a small mail with its content in one go where the server offers CHUNKING: one round trip
                instead of two, but from its beginning on a lost connection leaves the outcome unknown.

        Raises:
            ChunkingRefused: the server does not know what it offers; nothing was accepted.
            smtplib.SMTPException: for a refusal of the whole mail, or a lost connection; ``stage`` tells when.
        """
        groups = self._groups(transfer, at_once=at_once and not self._is_under_way)
        self._is_under_way = True
        for group in groups:
            if group[0].stage in {"data", "body"} and len(refused) == len(transfer.recipients):
                break
            reply = self._ask_together(group, transfer, refused)
        if len(refused) == len(transfer.recipients):
            return list(refused.values())[-1]
        if self.stage == "data":
            self.stage = "body"
            reply = self._send_content(transfer.content)
            # with its end the mail is over, whatever has become of it: RFC 5321, 4.1.1.4
            self._is_under_way = False
        if not reply.accepts:
            raise smtplib.SMTPDataError(reply.code, reply.text)
        self._is_under_way = False
        return reply

    @property
    def is_open(self) -> bool:
        """Whether it goes on: nothing has happened after which it was ended."""
        return self._smtp is not None and self._smtp.sock is not None

    @property
    def is_quiet(self) -> bool:
        """Whether the server has neither closed nor said anything since its last reply, such as a 421."""
        reader = self._smtp.file
        return reader is not None and reader.is_quiet()

    def reset(self) -> bool:
        """Forget the mail under way. Returns whether the session is in order for another one."""
        try:
            self._is_under_way = not self._command("RSET").accepts
        except OSError:
            return False
        return not self._is_under_way

    def ask(self) -> Reply:
        """Ask whether the server is there."""
        self.stage = "connect"
        return self._command("NOOP")

    def end(self) -> None:
        """Say good-bye and close, soon and without an error."""
        with suppress(Exception):
            self._timeout_s = self._smtp.file.timeout_s = _GOODBYE_S
            self._command("QUIT")
        self.drop()

    def drop(self) -> None:
        """Close the socket, whatever state the session is in."""
        if self._smtp is not None:
            with suppress(Exception):
                self._smtp.close()

    def _connect(self) -> None:
        backend = self._backend
        # smtplib would ask for the host's full name at each connection, which can take seconds
        options: dict[str, Any] = {"local_hostname": DNS_NAME.get_fqdn(), "timeout": self._timeout_s}
        if backend.use_ssl:
            options["context"] = backend.ssl_context
        self.stage = "connect"
        self._smtp = (TlsClient if backend.use_ssl else Client)(backend.host, backend.port, **options)
        # a last small piece would wait for the acknowledgement of the one before, which the other side delays
        self._smtp.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._hello()

    def _secure_and_log_in(self) -> None:
        backend = self._backend
        if backend.use_tls:
            self.stage = "starttls"
            self._smtp.starttls(context=backend.ssl_context)
            self._hello()
        if backend.username and backend.password:
            self.stage = "auth"
            self._smtp.login(backend.username, backend.password)

    def _hello(self) -> None:
        self.stage = "helo"
        self._smtp.ehlo_or_helo_if_needed()

    def _groups(self, transfer: Transfer, *, at_once: bool) -> list[list[_Command]]:
        """
        What is sent before a reply is waited for: one command or, where the server offers PIPELINING, many.

        RFC 2920, 3.1: DATA ends a group. BDAT does too (RFC 4468, 3.3), but its content goes with it: Postfix's
        BDAT_README has MAIL, RCPT and BDAT in one go, and wants no other order.
        """
        features = self._smtp.esmtp_features
        commands = [_RESET] if self._is_under_way else []
        commands.append(_Command("mail", f"MAIL FROM:<{transfer.sender}>{self._parameters(transfer)}"))
        commands += [_Command("rcpt", f"RCPT TO:<{to}>", address) for address, to in transfer.recipients.items()]
        if "pipelining" not in features:
            return [[command] for command in [*commands, _DATA]]
        has_content = at_once and "chunking" in features and transfer.size <= _AT_ONCE
        commands.append(_Command("body", f"BDAT {transfer.size} LAST") if has_content else _DATA)
        return [commands[start : start + _GROUP] for start in range(0, len(commands), _GROUP)]

    def _parameters(self, transfer: Transfer) -> str:
        """The parameters of MAIL that the server knows: SIZE (RFC 1870) and BODY=8BITMIME (RFC 6152)."""
        features = self._smtp.esmtp_features
        size = f" SIZE={transfer.size}" if "size" in features else ""
        body = " BODY=8BITMIME" if "8bitmime" in features and not transfer.is_ascii else ""
        return size + body

    def _ask_together(self, group: Sequence[_Command], transfer: Transfer, refused: dict[str, Reply]) -> Reply:
        """Send a group of commands and take the reply to each of them, since none can be told from another."""
        has_content = group[-1].stage == "body"
        self.stage = group[0].stage
        self._write(_lines(group) + (b"".join(transfer.content) if has_content else b""))
        for position, command in enumerate(group):
            # once the content is on its way, nothing but a clear no says that it was not accepted
            self.stage = "body" if has_content else command.stage
            reply = self._reply()
            if reply.code // 100 in {4, 5}:
                self.stage = command.stage
            match command.stage:
                case "mail" if not reply.accepts:
                    if command is _RESET:
                        self.drop()
                        raise smtplib.SMTPServerDisconnected("the mail before this one is still under way")
                    self._is_under_way = False
                    if reply.refuses:
                        self._hear_out(group[position + 1 :])
                    raise smtplib.SMTPSenderRefused(reply.code, reply.text, transfer.sender)
                case "rcpt" if not reply.accepts:
                    self._note_refusal(command.address, reply, refused)
                case "data" | "body":
                    self._check_last(reply, has_recipients=len(refused) < len(transfer.recipients))
        return reply

    def _note_refusal(self, address: str, reply: Reply, refused: dict[str, Reply]) -> None:
        if self.stage == "rcpt":
            refused[address] = reply
        if not reply.refuses:
            raise smtplib.SMTPResponseException(reply.code, reply.text)

    def _check_last(self, reply: Reply, *, has_recipients: bool) -> None:
        """Look at the reply to DATA, or to BDAT and the content."""
        if self.stage == "data":
            if not has_recipients:
                self._send_nothing(reply)
            elif reply.code // 100 != 3:
                raise smtplib.SMTPDataError(reply.code, reply.text)
        elif reply.code in (_NOT_KNOWN | {503} if has_recipients else _NOT_KNOWN):
            # what is still to come are replies to the content
            self.drop()
            if has_recipients:
                raise ChunkingRefused(reply.code, reply.text)

    def _hear_out(self, rest: Sequence[_Command]) -> None:
        """Take the replies to what went along with a MAIL that was refused, so that the session is in order again."""
        reply = None
        with suppress(smtplib.SMTPException):
            for _ in rest:
                reply = self._reply()
        if reply is None:
            return
        if reply.code // 100 == 3 or reply.code in _NOT_KNOWN:
            # it waits for a mail that it has refused, or takes the content for commands: no more of this session
            self.drop()
        elif reply.accepts and rest[-1].stage == "body":
            self.stage = "body"
            raise smtplib.SMTPDataError(-1, b"MAIL was refused and its content accepted")

    def _send_nothing(self, reply: Reply) -> None:
        """
        End a DATA that may have been let pass though nobody is to get the mail: with a lone dot, as RFC 2920, 3.1 asks.
        """
        if reply.code // 100 == 3:
            with suppress(smtplib.SMTPException):
                self._write(b".\r\n")
                self._reply()

    def _send_content(self, pieces: Sequence[bytes]) -> Reply:
        *most, last = map(_stuffed, pieces)
        for piece in most:
            self._write(piece)
        if len(last) <= _PIECE:
            self._write(last + b".\r\n")
        else:
            self._write(last)
            self._write(b".\r\n")
        return self._reply()

    def _command(self, line: str) -> Reply:
        self._write(f"{line}\r\n".encode("ascii"))
        return self._reply()

    def _write(self, content: bytes) -> None:
        """Hand *content* to the system, in pieces for each of which the time counts anew."""
        sock = self._smtp.sock
        if sock is None:
            raise smtplib.SMTPServerDisconnected("Not connected")
        try:
            sock.settimeout(self._timeout_s)
            if len(content) <= _PIECE:
                sock.sendall(content)
                return
            view = memoryview(content)
            for start in range(0, len(content), _PIECE):
                sock.sendall(view[start : start + _PIECE])
        except OSError as error:
            self._smtp.close()
            raise smtplib.SMTPServerDisconnected(f"Connection lost while writing: {error}") from error

    def _reply(self) -> Reply:
        reply: Reply = self._smtp.getreply()
        return reply


def _lines(commands: Iterable[_Command]) -> bytes:
    text = ""
    for command in commands:
        if "\r" in command.line or "\n" in command.line:
            raise ValueError("a command with a line break in it")
        text += f"{command.line}\r\n"
    return text.encode("ascii")


def _stuffed(piece: bytes) -> bytes:
    """With another dot before each that begins a line: RFC 5321, 4.5.2."""
    if piece.startswith(b"."):
        piece = b"." + piece
    return piece.replace(b"\n.", b"\n..") if b"\n." in piece else piece
