"""
What the installed Django and Python write for one header field, one text, one part's header.

Django 5.2 builds mails with the email package's old classes and Django 6 with the modern ones, which fold and encode
differently, and Python's patch releases differ too. So only what no version can write in two ways is written here, and
whatever else is asked of the package itself, once, and kept.
"""

from __future__ import annotations

import email.message
import email.policy
import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from email import quoprimime
from email.generator import BytesGenerator
from email.headerregistry import AddressHeader, UniqueUnstructuredHeader, UnstructuredHeader
from functools import lru_cache
from io import BytesIO
from typing import Any, Final, NamedTuple

import django
from django.core.mail import EmailAttachment, EmailMultiAlternatives
from django.core.mail import message as django_message

from mail_service.mailers.content import BROKEN_FOLD
from mail_service.message import mime

MODERN: Final = django.VERSION >= (6, 0)
#: of the messages that Django's SMTP backend asks for
POLICY: Final[Any] = email.policy.SMTP if MODERN else email.policy.compat32.clone(linesep="\r\n")

#: characters of base64 that are put into lines at a time: whole lines, 240 KB
PIECE: Final = 76 * 3200
#: characters of a line that nothing folds; the package folds at 78
_UNFOLDED: Final = 76
#: octets of a line beyond which a text is quoted-printable or base64: RFC 5322, 2.1.1 or, in Django 6, where lines fold
_LONG_LINE: Final = 78 if MODERN else 998

#: characters of a value, or a header, that is worth keeping for the next mail
_KEPT: Final = 500

_WORDS = re.compile(r"[!-~]+(?: [!-~]+)*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_SPEC = rf"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@{_LABEL}(?:\.{_LABEL})*"
_MAILBOX = rf"(?:{_SPEC}|[A-Za-z0-9]+(?: [A-Za-z0-9]+)* <{_SPEC}>)"
_MAILBOXES = re.compile(rf"{_MAILBOX}(?:, {_MAILBOX})*")
_MESSAGE_ID = re.compile(rf"<{_SPEC}>")
_FILENAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,29}")

#: Django 6's header classes by name; what stands here in one line is written by them as it came
_FIELDS: Final[dict[str, re.Pattern[str]]] = {
    **dict.fromkeys(("from", "sender", "reply-to", "to", "cc"), _MAILBOXES),
    "message-id": _MESSAGE_ID,
}


def field(name: str, value: str) -> bytes:
    """
    Return the lines of a header field.

    Raises:
        ValueError: as the email package does for a value that it cannot write.
    """
    plain = _plain_form(name)
    if plain is not None and len(name) + len(value) <= _UNFOLDED - 2 and plain.fullmatch(value) and "=?" not in value:
        return f"{name}: {value}\r\n".encode("ascii")
    return _kept(name, value) if len(value) <= _KEPT else _written(name, value)


@lru_cache(maxsize=256)
def _plain_form(name: str) -> re.Pattern[str] | None:
    """What a value must look like to be written as it is; None when the field has rules of its own."""
    if not MODERN:
        return _WORDS
    if (form := _FIELDS.get(name.lower())) is not None:
        return form
    header_class = POLICY.header_factory.registry.get(name.lower(), UnstructuredHeader)
    return _WORDS if header_class in (UnstructuredHeader, UniqueUnstructuredHeader) else None


def _written(name: str, value: str) -> bytes:
    """Ask the email package, in the way that Django does."""
    if not MODERN:
        name, value = django_message.forbid_multi_line_headers(name, value, "utf-8")
        folded: bytes = POLICY.fold_binary(name, value)
        return folded
    name, header = POLICY.header_store_parse(name, value)
    if isinstance(header, AddressHeader) and not all(address.domain.isascii() for address in header.addresses):
        made = email.message.EmailMessage(policy=POLICY)
        made[name] = value
        EmailMultiAlternatives()._idna_encode_address_header_domains(made)  # noqa: SLF001 - there is no other way in
        return made.as_bytes().removesuffix(b"\r\n")
    folded = POLICY.fold_binary(name, header)
    if BROKEN_FOLD.search(folded):
        raise ValueError("the email package has not folded this header as it should")
    return folded


_kept = lru_cache(maxsize=1024)(_written)


class Text(NamedTuple):
    """A text's bytes, and the transfer encoding that they are in."""

    encoding: str
    content: bytes


def text(content: str) -> Text:
    """Return the body of a text part, as UTF-8."""
    raw = content.encode()
    encoding = "7bit" if len(raw) == len(content) else "8bit"
    if not MODERN:
        if len(raw) > _LONG_LINE and max(map(len, raw.splitlines())) > _LONG_LINE:
            return _long_text(content)
        return Text(encoding, crlf(raw))
    lines = raw.splitlines()
    if max(map(len, lines), default=0) > _LONG_LINE:
        return _encoded(lines)
    return Text(encoding, b"\r\n".join(lines) + b"\r\n")


def _long_text(content: str) -> Text:
    """Ask Django 5.2, which may not find its lines long: it counts Unicode's other line ends too."""
    part = django_message.SafeMIMEText(content, "plain", "utf-8")
    return Text(part["Content-Transfer-Encoding"], part.as_bytes(linesep="\r\n").partition(b"\r\n\r\n")[2])


def _encoded(lines: list[bytes]) -> Text:
    """
    Encode lines of which one is long, as Python's ``raw_data_manager`` does for Django 6.

    The encoding that makes the first ten lines shorter is taken, and a text of no more lines keeps what was made then.
    """
    first = b"\r\n".join(lines[:10]) + b"\r\n"
    tried = quoprimime.body_encode(first.decode("latin-1"), _LONG_LINE)
    if len(tried) > -(-len(first) // 3) * 4 + 1:
        return Text("base64", b"".join(wrapped(b64encode(b"\r\n".join(lines) + b"\r\n"))))
    if len(lines) > 10:
        tried = quoprimime.body_encode((b"\n".join(lines) + b"\n").decode("latin-1"), _LONG_LINE)
    return Text("quoted-printable", crlf(tried.encode("ascii")))


def wrapped(encoded: bytes) -> Iterator[bytes]:
    """Put base64 into lines of 76 characters, some thousand of them at a time."""
    for start in range(0, len(encoded), PIECE):
        piece = encoded[start : start + PIECE]
        lines = [piece[at : at + 76] for at in range(0, len(piece), 76)]
        lines.append(b"")
        yield b"\r\n".join(lines)


def crlf(raw: bytes) -> bytes:
    """End every line by CR LF."""
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return raw.replace(b"\n", b"\r\n")


class Shape(NamedTuple):
    """All that the headers of a mail's bodies depend on."""

    #: of the body; empty for none
    subtype: str
    encoding: str
    #: mimetype and transfer encoding of each
    alternatives: tuple[tuple[str, str], ...]
    has_attachments: bool


#: stands in a multipart's header for its boundary, and is as long as the email package's are
BOUNDARY: Final = b"===============0123456789012345678=="


@dataclass(frozen=True, slots=True)
class Heads:
    """The header lines of a mail's bodies, without the empty line."""

    #: of the multiparts, the outermost first, with BOUNDARY in each
    multiparts: tuple[bytes, ...]
    #: of the body, if there is one, and the alternatives
    texts: tuple[bytes, ...]


@lru_cache(maxsize=256)
def heads(shape: Shape) -> Heads:
    """
    Return what Django writes for a mail of this *shape*, by having it write one.

    Raises:
        ValueError: when it does not make what was expected.
    """
    sample = EmailMultiAlternatives("s", _sample(shape.encoding), "a@example.org", ["a@example.org"])
    sample.content_subtype = shape.subtype or "plain"
    for mimetype, encoding in shape.alternatives:
        sample.attach_alternative(_sample(encoding), mimetype)
    if shape.has_attachments:
        sample.attachments = [EmailAttachment("f", b"x", "application/octet-stream")]
    parts = list(_built(sample).walk())
    if shape.has_attachments:
        parts.pop()
    multiparts = tuple(_head(part) for part in parts if part.is_multipart())
    texts = [part for part in parts if not part.is_multipart()]
    expected = [shape.encoding] if shape.encoding else []
    expected += [encoding for _, encoding in shape.alternatives]
    if [part["Content-Transfer-Encoding"] for part in texts] != expected:
        raise ValueError("Django encodes texts in another way than expected")
    return Heads(multiparts, tuple(map(_head, texts)))


def _sample(encoding: str) -> str:
    """A text for which Django chooses this transfer encoding."""
    return {
        "": "",
        "7bit": "x",
        "8bit": "é",
        "quoted-printable": "x" * 999,
        "base64": "é" * 999,
    }[encoding]


def _built(sample: Any) -> Any:
    """The message, written once, since a multipart chooses its boundary when it is."""
    built = sample.message(policy=POLICY) if MODERN else sample.message()
    BytesGenerator(BytesIO(), mangle_from_=False, policy=POLICY).flatten(built)
    return built


def _head(part: Any) -> bytes:
    """The fields of the part itself, not those of the mail around it."""
    lines = b""
    for name, value in part.raw_items():
        if name == "Subject":
            break
        lines += POLICY.fold_binary(name, value)
    boundary = part.get_boundary()
    if boundary is None:
        return lines
    if len(boundary) != len(BOUNDARY):
        raise ValueError("the email package makes other boundaries than expected")
    return lines.replace(boundary.encode("ascii"), BOUNDARY)


def attachment_head(filename: str, mimetype: str, encoding: str) -> bytes:
    """Return the header lines of an attachment: *encoding* is base64 or, for a text, that of `text`."""
    if _FILENAME.fullmatch(filename):
        before, after = _around_filename(mimetype, encoding)
        return before + filename.encode("ascii") + after
    return _attachment_head(filename, mimetype, encoding)


@lru_cache(maxsize=256)
def _around_filename(mimetype: str, encoding: str) -> tuple[bytes, bytes]:
    before, found, after = _attachment_head("f", mimetype, encoding).partition(b'filename="f"')
    if not found:
        raise ValueError("Django names attachments in another way than expected")
    return before + b'filename="', b'"' + after


@lru_cache(maxsize=1024)
def _attachment_head(filename: str, mimetype: str, encoding: str) -> bytes:
    sample = EmailMultiAlternatives("s", "b", "a@example.org", ["a@example.org"])
    content: Any = _sample(encoding) if mimetype.startswith("text/") else b"x"
    sample.attachments = [EmailAttachment(filename or None, content, mimetype)]
    part = list(_built(sample).walk())[-1]
    if part["Content-Transfer-Encoding"] != encoding:
        raise ValueError("Django encodes attachments in another way than expected")
    return _head(part)


def part_head(raw: bytes, style: str) -> bytes | None:
    """
    Return the header lines of a MIME part that came whole, with *raw* as its header, written anew.

    None for one whose body is more than text in lines, such as a multipart.
    """
    return _kept_part_head(raw, style) if len(raw) <= _KEPT else _part_head(raw, style)


def _part_head(raw: bytes, style: str) -> bytes | None:
    part = mime.to_part(raw + b"\n\n", style if MODERN else "old")
    if part.defects or part.get_content_maintype() in ("multipart", "message"):
        return None
    buffer = BytesIO()
    BytesGenerator(buffer, mangle_from_=False, policy=POLICY).flatten(part, linesep="\r\n")
    head, empty, rest = buffer.getvalue().partition(b"\r\n\r\n")
    return head + b"\r\n" if empty and not rest.strip(b"\r\n") else None


_kept_part_head = lru_cache(maxsize=256)(_part_head)
