"""
Tell a mail's envelope sender that it failed for good: a delivery report (RFC 3464), itself a mail like any other.

The same end of a mail makes the same report under the same id, so that it is sent once, whoever dies in between. Its
own envelope sender is empty, and nothing with an empty one is ever reported: there are no loops (RFC 5321, 4.5.5).
"""

from __future__ import annotations

import hashlib
import logging
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from email.utils import format_datetime, parseaddr
from typing import Any, Final

from mail_service import clock, message
from mail_service.amqp.mailqueue import MailQueue
from mail_service.amqp.publisher import PublishFailed, TooLarge
from mail_service.delivery.copies import read, validated
from mail_service.envelope import Envelope, derived_id, seal
from mail_service.ledger import Ledger, StoreDown
from mail_service.ledger.records import Mail
from mail_service.mailers.content import envelope_address, mime_bytes, sender_of
from mail_service.message.references import has_any, without_references
from mail_service.outcome import Status
from mail_service.settings import Settings

_log = logging.getLogger(__name__)

#: (record, report) -> the message to send in its place, or None for no report
Factory = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any] | None]

#: the ``door`` of a report
DOOR: Final = "bounce"
EMPTY: Final = "<>"
#: how a mail ends of which somebody is told
ENDS: Final = frozenset({Status.FAILED, Status.EXPIRED, Status.PARTLY_SENT})
#: which of its recipients are named
UNREACHED: Final = frozenset({Status.FAILED, Status.EXPIRED})
SUBJECT: Final = "Undelivered mail returned to sender"

#: characters of what a server said; RFC 5322, 2.1.1 ends a line at 998
_LONGEST_DIAGNOSTIC: Final = 800
_REPLY = re.compile(r"[45]\d\d[ -]")
_ENHANCED = re.compile(r"(?:\A|[ -])([45]\.\d{1,3}\.\d{1,3})\b")
_REPORT_TYPE = re.compile(rb"^content-type:\s*multipart/report\b", re.IGNORECASE | re.MULTILINE)
_END_OF_HEADERS = re.compile(rb"\r\n\r\n")
#: what the email package's boundaries look like; it draws another number each time
_BOUNDARY = re.compile(rb"={15}(\d+)==")


class Bouncer:
    """Makes reports, and puts them on their way."""

    def __init__(self, settings: Settings, ledger: Ledger, queue: MailQueue, factory: Factory | None = None) -> None:
        self._settings = settings
        self._ledger = ledger
        self._queue = queue
        self._factory = factory

    def report(self, envelope: Envelope, mail: Mail) -> None:
        """
        Report *mail*, which has ended, if somebody is to be told. May be called again for the same end.

        Raises PublishFailed when the broker does not confirm the report; nothing else.
        """
        try:
            if mail.status in ENDS and not self._is_known(report_id(mail)):
                self._send(envelope, mail)
        except TooLarge:
            _log.warning("the report about mail %s is larger than the broker takes; nobody is told", mail.id)
        except PublishFailed:
            raise
        except Exception as exc:  # noqa: BLE001 - the mail is where it should be; a report must not change that
            _log.error("no report could be made about mail %s (%s)", mail.id, type(exc).__name__)

    def _is_known(self, mail_id: str) -> bool:
        try:
            return self._ledger.find(mail_id) is not None
        except StoreDown:
            # then the worker that takes the second copy finds out
            return False

    def _send(self, envelope: Envelope, mail: Mail) -> None:
        canonical = validated(without_references(envelope.message), self._settings)
        sender = sender_of(canonical.get("envelope_sender"), canonical.get("from_email") or EMPTY)
        if not sender or is_report(canonical):
            return
        report = self._made(envelope, canonical, mail, sender)
        if report is None:
            return
        sealed = seal(report, self._options(mail), door=DOOR, mail_id=report_id(mail), sender=report["from_email"])
        sealed = replace(sealed, message_id=_message_id(mail, report["from_email"]), date=_date(mail.updated_at))
        accepted = read(sealed.body(), {}, redelivered=False, settings=self._settings)
        self._queue.put(sealed)
        with suppress(StoreDown):
            self._ledger.accept(accepted.mail)

    def _options(self, mail: Mail) -> dict[str, Any]:
        options = {"id": report_id(mail), "tenant": mail.tenant, "mailer": self._settings.bounce.mailer}
        return {name: value for name, value in options.items() if value is not None}

    def _made(self, envelope: Envelope, canonical: Mapping[str, Any], mail: Mail, sender: str) -> dict[str, Any] | None:
        original = _original(envelope, canonical, mail.id)
        is_small = len(original) * 4 < self._settings.max_size and not has_any(envelope.message)
        whole = self._settings.bounce.whole and is_small
        report = compose(mail, original, whole=whole, author=self._settings.default_from, to=sender)
        if self._factory is None:
            return report
        own = self._factory(mail.record(), report)
        return None if own is None else {"from_email": report["from_email"], **own, "envelope_sender": EMPTY}


def report_id(mail: Mail) -> str:
    """The id of the report about this end of *mail*; a replay may have another end."""
    return derived_id(DOOR, mail.id, mail.submitted_at, str(mail.generation))


def is_report(canonical: Mapping[str, Any]) -> bool:
    """Whether the message is itself a report, whatever its sender."""
    if "mime" not in canonical:
        return False
    head = _END_OF_HEADERS.split(_with_crlf(b64decode(canonical["mime"])), maxsplit=1)[0]
    return _REPORT_TYPE.search(head) is not None


def compose(mail: Mail, original: bytes, *, whole: bool, author: str, to: str) -> dict[str, Any]:
    """
    The report about *mail* as a message.

    Args:
        original: The mail as it would have been sent, with line ends of CR LF.
        whole: Return all of it; else its header (RFC 3462, section 2).
        author: Whose address stands in From.
        to: The envelope sender of the mail.
    """
    address = envelope_address(author)
    states = {who: state for who, state in mail.recipients.items() if Status(state["status"]) in UNREACHED}
    text = _text(mail, states)
    bar = f"report-{hashlib.sha256(report_id(mail).encode()).hexdigest()[:32]}"
    if whole:
        returned = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + original
    else:
        head = _END_OF_HEADERS.split(original, maxsplit=1)[0]
        returned = b"Content-Type: text/rfc822-headers; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + head
    head_lines = [
        f"From: Mail Delivery System <{address}>",
        f"To: {to}",
        f"Subject: {SUBJECT}",
        f"Date: {_date(mail.updated_at)}",
        f"Message-ID: {_message_id(mail, address)}",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{bar}"',
    ]
    parts = [
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" + _base64(text),
        b"Content-Type: message/delivery-status\r\n\r\n" + _status(mail, states, address).encode("ascii", "replace"),
        returned,
    ]
    mime = "\r\n".join(head_lines).encode("ascii") + b"\r\n"
    for part in parts:
        mime += f"\r\n--{bar}\r\n".encode() + part
    mime += f"\r\n--{bar}--\r\n".encode()
    return {
        "subject": SUBJECT,
        "body": text,
        "from_email": f"Mail Delivery System <{address}>",
        "to": [to],
        "headers": {"Auto-Submitted": "auto-replied"},
        "envelope_sender": EMPTY,
        "mime": b64encode(mime).decode(),
    }


def _text(mail: Mail, states: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "Your mail could not be delivered to:",
        "",
        *(f"  {who}\n    {_line(state.get('detail') or state['status'])}" for who, state in states.items()),
        "",
        f"It was accepted at {mail.submitted_at} and is not tried again. Its id is {mail.id}.",
    ]
    return "\n".join(lines) + "\n"


def _status(mail: Mail, states: Mapping[str, Mapping[str, Any]], address: str) -> str:
    """The machine-readable part (RFC 3464, section 2)."""
    per_message = [f"Reporting-MTA: dns; {address.rpartition('@')[2]}"]
    if mail.id.isascii() and mail.id.isprintable():
        per_message.append(f"Original-Envelope-Id: {mail.id}")
    per_message.append(f"Arrival-Date: {_date(mail.submitted_at)}")
    blocks = [per_message, *(_of_recipient(mail, who, state) for who, state in states.items())]
    return "\r\n".join("".join(f"{line}\r\n" for line in block) for block in blocks)


def _of_recipient(mail: Mail, who: str, state: Mapping[str, Any]) -> Sequence[str]:
    detail = _line(state.get("detail") or state["status"])
    kind = "smtp" if _REPLY.match(detail) else "x-mail-service"
    return [
        f"Final-Recipient: {_typed(who)}",
        "Action: failed",
        f"Status: {status_code(Status(state['status']), detail)}",
        f"Diagnostic-Code: {kind}; {detail[:_LONGEST_DIAGNOSTIC]}",
        f"Last-Attempt-Date: {_date(mail.updated_at)}",
    ]


def status_code(status: Status, detail: str) -> str:
    """
    The code of RFC 3463: the server's own where it gave one of the right class.

    Else ``4.4.7`` (delivery time expired) where the time was used up, and ``5.0.0`` for any other failure.
    """
    found = _ENHANCED.search(detail)
    is_expired = status == Status.EXPIRED
    if found is not None and (is_expired or found[1].startswith("5")):
        return found[1]
    return "4.4.7" if is_expired else "5.0.0"


def _typed(address: str) -> str:
    """An address with its type: RFC 3464, 2.3.2; beyond ASCII RFC 6533, section 3."""
    if address.rpartition("@")[0].isascii():
        with suppress(ValueError):
            address = envelope_address(address)
    if address.isascii():
        return f"rfc822; {address}"
    return "utf-8; " + "".join(char if char.isascii() else f"\\x{{{ord(char):X}}}" for char in address)


def _line(text: str) -> str:
    return " ".join(text.split())


def _base64(text: str) -> bytes:
    encoded = b64encode(text.replace("\n", "\r\n").encode("utf-8", "replace"))
    return b"\r\n".join(encoded[at : at + 76] for at in range(0, len(encoded), 76))


def _date(moment: str) -> str:
    return format_datetime(clock.parse(moment).replace(microsecond=0))


def _message_id(mail: Mail, author: str) -> str:
    domain = parseaddr(author)[1].rpartition("@")[2] or "mail-service.invalid"
    return f"<{report_id(mail)}@{domain}>"


def _original(envelope: Envelope, canonical: Mapping[str, Any], seed: str) -> bytes:
    """The mail as it would have been sent; the same bytes each time, which the boundaries are not by themselves."""
    email = message.load(dict(canonical))
    message.stamp(email, message_id=envelope.message_id, date=envelope.date)
    numbers: dict[bytes, bytes] = {}

    def settled(found: re.Match[bytes]) -> bytes:
        digits = found[1]
        if digits not in numbers:
            number = int(hashlib.sha256(f"{seed}\x1f{len(numbers)}".encode()).hexdigest(), 16)
            numbers[digits] = str(number)[: len(digits)].encode()
        return b"=" * 15 + numbers[digits] + b"=="

    return _BOUNDARY.sub(settled, mime_bytes(email))


def _with_crlf(content: bytes) -> bytes:
    return content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
