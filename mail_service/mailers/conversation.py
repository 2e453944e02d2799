"""One SMTP session, of which the stage is known at every moment. Who keeps it and what a reply means, others decide."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.core.mail.utils import DNS_NAME

from mail_service.diagnosis import Stage

#: bytes handed to the socket at a time: its timeout counts for each piece, not for the whole of a large message
_PIECE: Final = 256 * 1024
#: seconds for a good-bye, which nobody waits for
_GOODBYE_S: Final = 2.0

_LEADING_DOT = re.compile(rb"^\.", re.MULTILINE)


class Reply(NamedTuple):
    """What the server answered, as smtplib has it."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A mail as it goes over the wire."""

    #: MAIL FROM; empty for a bounce
    sender: str
    #: address as typed to the one for RCPT TO
    recipients: Mapping[str, str]
    content: bytes


class Conversation:
    """A session with the server that a Django SMTP backend is configured for. One mail at a time."""

    def __init__(self, backend: Any, timeout_s: float) -> None:
        self.stage: Stage = "connect"
        #: mails handed over in this session
        self.mails = 0
        #: of the pool's clock
        self.idle_since = 0.0
        self._backend = backend
        self._timeout_s = timeout_s
        self._smtp: Any = None

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

    def carry(self, transfer: Transfer, refused: dict[str, Reply]) -> Reply:
        """
        Hand one mail over. Returns the reply that accepts it, or the last refusal when every recipient was refused.

        Each refused recipient's reply goes into *refused*, also when an error ends the session later.

        Raises:
            smtplib.SMTPException: for a refusal of the whole mail, or a lost connection; ``stage`` tells when.
        """
        content = transfer.content
        self.stage = "mail"
        reply = self._command(f"MAIL FROM:<{transfer.sender}>{self._parameters(content)}")
        if not reply.accepts:
            raise smtplib.SMTPSenderRefused(reply.code, reply.text, transfer.sender)
        self._name_recipients(transfer.recipients, refused)
        if len(refused) == len(transfer.recipients):
            return list(refused.values())[-1]
        self.stage = "data"
        reply = self._command("DATA")
        if reply.code // 100 != 3:
            raise smtplib.SMTPDataError(reply.code, reply.text)
        self.stage = "body"
        reply = self._send_content(content)
        if not reply.accepts:
            raise smtplib.SMTPDataError(reply.code, reply.text)
        self.mails += 1
        return reply

    def reset(self) -> bool:
        """Forget the mail under way. Returns whether the session is in order for another one."""
        try:
            return self._command("RSET").accepts
        except (OSError, ValueError):
            return False

    def ask(self) -> Reply:
        """Ask whether the server is there."""
        self.stage = "connect"
        return self._command("NOOP")

    def end(self) -> None:
        """Say good-bye and close, soon and without an error."""
        with suppress(Exception):
            self._smtp.sock.settimeout(_GOODBYE_S)
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
        self._smtp = backend.connection_class(backend.host, backend.port, **options)
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

    def _parameters(self, content: bytes) -> str:
        """The parameters of MAIL that the server knows: SIZE (RFC 1870) and BODY=8BITMIME (RFC 6152)."""
        features = self._smtp.esmtp_features
        size = f" SIZE={len(content)}" if "size" in features else ""
        body = " BODY=8BITMIME" if "8bitmime" in features and not content.isascii() else ""
        return size + body

    def _name_recipients(self, recipients: Mapping[str, str], refused: dict[str, Reply]) -> None:
        self.stage = "rcpt"
        for address, recipient in recipients.items():
            reply = self._command(f"RCPT TO:<{recipient}>")
            if not reply.accepts:
                refused[address] = reply
            if not (reply.accepts or reply.refuses):
                raise smtplib.SMTPResponseException(reply.code, reply.text)

    def _send_content(self, content: bytes) -> Reply:
        if content.startswith(b".") or b"\n." in content:
            content = _LEADING_DOT.sub(b"..", content)
        if len(content) <= _PIECE:
            self._smtp.send(content + b".\r\n")
            return self._reply()
        pieces = memoryview(content)
        for start in range(0, len(content), _PIECE):
            self._smtp.send(pieces[start : start + _PIECE])
        self._smtp.send(b".\r\n")
        return self._reply()

    def _command(self, line: str) -> Reply:
        self._smtp.putcmd(line)
        return self._reply()

    def _reply(self) -> Reply:
        code, text = self._smtp.getreply()
        return Reply(code, text)
