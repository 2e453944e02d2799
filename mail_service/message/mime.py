"""Whole MIME parts and messages as bytes, and back, such that a backend sends what it would have sent."""

from __future__ import annotations

import email.message
import email.policy
import re
from email import errors, message_from_bytes
from email.feedparser import FeedParser
from email.generator import BytesGenerator
from email.message import Message, MIMEPart
from email.mime.base import MIMEBase
from email.parser import BytesParser
from email.policy import Policy
from io import BytesIO
from typing import Any

from mail_service.bounds import DEFAULT, Bounds, at_most
from mail_service.message.addresses import ADDRESS_HEADERS

#: characters: RFC 5321, 4.5.3.1 has 254 for an address, and a name goes before it
_LONGEST_MAILBOX = 320
_LINE_END = re.compile(rb"\r\n|\r|\n")
_END_OF_HEADERS = re.compile(rb"\r?\n\r?\n|\r\r")

#: defects after which the parser has guessed where something begins or ends
_BROKEN_HEADERS = (
    errors.MissingHeaderBodySeparatorDefect,
    errors.FirstHeaderLineIsContinuationDefect,
    errors.MalformedHeaderDefect,
)
_BROKEN = (
    *_BROKEN_HEADERS,
    errors.NoBoundaryInMultipartDefect,
    errors.StartBoundaryNotFoundDefect,
    errors.MultipartInvariantViolationDefect,
)


class _TooMuch(Exception):
    """More than a limit allows; the text is for people."""


class _LimitedParser(FeedParser):
    """
    Stops at a header that is too long, and at too many parts.

    The standard library's time for a Content-Type grows with the square of its parameters: 2 MB of them took minutes.
    """

    def __init__(self, most: Bounds) -> None:
        super().__init__(policy=email.policy.compat32)
        self._most = most
        self._headers = 0

    def _parse_headers(self, lines: list[str]) -> None:
        self._headers += 1
        if self._headers > self._most.max_attachments + self._most.max_nesting + 1:
            raise _TooMuch(f"has more parts than are allowed: {at_most(self._most.max_attachments, 'max_attachments')}")
        _check_lengths(lines, self._most)
        super()._parse_headers(lines)  # type: ignore[misc]  # nobody is meant to see it, and it has not changed since 2002


def _check_lengths(lines: list[str], most: Bounds) -> None:
    """Raise for fields that are longer together than ``max_header_length``; addresses count as recipients do."""
    lengths = {False: 0, True: 0}
    is_of_addresses = False
    for line in lines:
        if not line.startswith((" ", "\t")):
            is_of_addresses = line.partition(":")[0].lower() in ADDRESS_HEADERS
        lengths[is_of_addresses] += len(line)
    if lengths[False] > most.max_header_length:
        raise _TooMuch(f"has a header that is too long; {at_most(most.max_header_length, 'max_header_length')}")
    if lengths[True] > most.max_recipients * _LONGEST_MAILBOX:
        raise _TooMuch(f"has too many addresses in its header; {at_most(most.max_recipients, 'max_recipients')}")


def _parsed(raw: bytes, most: Bounds, *, only_header: bool = False) -> Message[str, str]:
    parser = _LimitedParser(most)
    if only_header:
        parser._set_headersonly()  # type: ignore[attr-defined]  # noqa: SLF001 - as HeaderParser does
    parser.feed(raw.decode("ascii", "surrogateescape"))
    return parser.close()


def problem(raw: bytes, *, most: Bounds = DEFAULT) -> str:
    """
    Say why *raw* is no MIME part or message, or return an empty string.

    Only the header is parsed, since parsing a megabyte takes 20 ms; a multipart is parsed as a whole.
    """
    end = _END_OF_HEADERS.search(raw)
    try:
        top = _parsed(raw[: end.end()] if end else raw, most, only_header=True)
        if not top.keys():
            return "is not MIME: it does not begin with a header"
        if top.get_content_maintype() != "multipart":
            return _found(top, _BROKEN_HEADERS)
        whole = _parsed(raw, most)
        if _is_deeper(whole, most.max_nesting):
            return f"has parts inside parts; {at_most(most.max_nesting, 'max_nesting')}"
        return next(filter(None, (_found(part, _BROKEN) for part in whole.walk())), "")
    except _TooMuch as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  # parts inside parts a thousand deep, and what the parser stumbles over
        return f"is not well-formed MIME: {type(error).__name__}"


def _is_deeper(part: Message[Any, Any], levels: int) -> bool:
    parts = part.get_payload() if part.is_multipart() else ()
    return bool(parts) and (levels == 0 or any(_is_deeper(each, levels - 1) for each in parts))  # type: ignore[arg-type]


def _found(part: Message[Any, Any], defects: tuple[type, ...]) -> str:
    found = next((defect for defect in part.defects if isinstance(defect, defects)), None)
    return f"is not well-formed MIME: {type(found).__name__}" if found else ""


def to_bytes(part: Message[Any, Any], *, linesep: str = "\n") -> bytes:
    """Return the part with its headers unfolded, so that whoever sends it folds them as it would have the original."""
    fp = BytesIO()
    BytesGenerator(fp, mangle_from_=False, maxheaderlen=0, policy=part.policy).flatten(part, linesep=linesep)
    return fp.getvalue()


class _Part(MIMEBase):
    """A parsed part of the class that Django takes as an attachment in every version."""

    def __init__(self, policy: Policy[Any] = email.policy.compat32) -> None:
        Message.__init__(self, policy=policy)


def style(part: Message[Any, Any]) -> str:
    """Say which of Python's message classes *part* is: ``old``, ``modern``, or modern and ``parsed`` from bytes."""
    if not isinstance(part, MIMEPart):
        return "old"
    built = any(hasattr(value, "name") for each in part.walk() for _, value in each.raw_items())
    return "modern" if built else "parsed"


def to_part(raw: bytes, style: str = "old") -> MIMEBase | MIMEPart[Any]:
    """Return an attachment of a *style*: old is what Django 5.2 takes, Django 6 takes all."""
    return _parse(raw, _Part if style == "old" else MIMEPart, style)  # type: ignore[no-any-return]


def to_message(raw: bytes, style: str = "old") -> Message[Any, Any]:
    """Return a message of a *style*, to be attached as ``message/rfc822``."""
    return _parse(raw, Message if style == "old" else email.message.EmailMessage, style)  # type: ignore[no-any-return]


def _parse(raw: bytes, cls: Any, style: str) -> Any:
    """Parse into *cls*, the parts inside it too. Any, since typeshed knows no message class but the two usual ones."""
    policy = email.policy.compat32 if style == "old" else email.policy.default
    made = BytesParser(cls, policy=policy).parsebytes(raw)
    if style == "modern":
        for part in made.walk():
            _build_headers(part)
    return made


def _build_headers(part: Any) -> None:
    """Make of headers as they came what a program would have set; Python encodes and folds these differently."""
    headers = part.items()
    for name in part.keys():  # noqa: SIM118  # a message is no dict
        del part[name]
    for name, value in headers:
        part[name] = value


class _Verbatim:
    """
    Gives back the very bytes that were parsed for as long as nobody changes the message.

    The standard library folds long headers anew when it writes a parsed message, which a signature may not survive.
    ``as_bytes`` and ``as_string`` take Django's *linesep* and the standard library's *policy*.
    """

    _raw: bytes | None = None
    _written: bytes | None = None

    def remember(self, raw: bytes) -> None:
        self._raw, self._written = raw, self._write()

    def as_bytes(self, unixfrom: bool = False, policy: Policy[Any] | None = None, linesep: str | None = None) -> bytes:
        policy = policy or self.policy  # type: ignore[attr-defined]
        linesep = policy.linesep if linesep is None else linesep
        if self._raw is None or unixfrom or self._must_recode(policy) or self._write() != self._written:
            return self._write(unixfrom, policy, linesep)
        return _LINE_END.sub(linesep.encode("ascii"), self._raw)

    def as_string(self, unixfrom: bool = False, maxheaderlen: int = 0, linesep: str | None = None) -> str:  # noqa: ARG002
        return self.as_bytes(unixfrom, linesep=linesep).decode("ascii", "surrogateescape")

    def __bytes__(self) -> bytes:
        return self.as_bytes()

    def __str__(self) -> str:
        return self.as_string()

    def _must_recode(self, policy: Policy[Any]) -> bool:
        return policy.cte_type == "7bit" and not (self._raw or b"").isascii()

    def _write(self, unixfrom: bool = False, policy: Policy[Any] | None = None, linesep: str = "\n") -> bytes:
        fp = BytesIO()
        generator = BytesGenerator(fp, mangle_from_=False, policy=policy or self.policy)  # type: ignore[attr-defined]
        generator.flatten(self, unixfrom=unixfrom, linesep=linesep)
        return fp.getvalue()


class _VerbatimMessage(_Verbatim, Message):  # type: ignore[misc]
    pass


class _VerbatimEmailMessage(_Verbatim, email.message.EmailMessage):  # type: ignore[misc]
    pass


def to_verbatim(raw: bytes, policy: Policy[Any] | None = None) -> Message[Any, Any]:
    """Parse a whole message that will be written as *raw*; old style without *policy*, as Django 5.2's are."""
    made: Any
    if policy is None:
        made = message_from_bytes(raw, _class=_VerbatimMessage, policy=email.policy.compat32)
    else:
        made = message_from_bytes(raw, _class=_VerbatimEmailMessage, policy=policy)
    made.remember(raw)
    return made  # type: ignore[no-any-return]
