"""
Builds the usual mails' bytes straight from the canonical message: texts, attachments, inline images.

They are byte for byte what Django's SMTP backend hands over on the installed versions, boundaries excepted, at a small
part of the cost: the email package parses, copies and folds everything anew for each mail. For whatever is not usual
the answer is None, and the package is asked; so it is for all mails when a few samples do not come out as Django has
them, as may happen with versions that nobody has tried yet.
"""

from __future__ import annotations

import logging
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import count
from typing import Any, Final

from django.conf import settings

from mail_service import message
from mail_service.logs import say
from mail_service.mailers import dialect
from mail_service.mailers.content import has_lone_line_ends, mime_bytes

_log = logging.getLogger(__name__)

#: header fields of a program's own that would meet ours, or that Django has rules for
_UNUSUAL_HEADERS: Final = frozenset({"subject", "bcc", "mime-version"})
#: those that Django puts in front itself
_IN_FRONT: Final = frozenset({"from", "to", "cc", "reply-to"})
_LISTS: Final = (("To", "to"), ("Cc", "cc"), ("Reply-To", "reply_to"))

#: what the email package's boundaries begin with
_BAR: Final = b"=" * 15

_SUBTYPE = re.compile(r"[a-z0-9.+-]+")
_TEXT_TYPE = re.compile(r"text/[a-z0-9.+-]+(?:; method=[A-Z]+)?")
_BINARY_TYPE = re.compile(r"(?:application|image|audio|video|font)/[A-Za-z0-9.+-]+")
_END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")


class _Unusual(Exception):
    """This mail is for the email package."""


def compose(canonical: Mapping[str, Any], *, message_id: str, date: str) -> list[bytes] | None:
    """
    Return the mail's bytes in pieces that each end with a line, or None when the email package has to build it.

    Django's settings must be configured.

    Args:
        canonical: A validated message.
        message_id: For a mail that brings none of its own; with angle brackets.
        date: The same; as RFC 5322, 3.3 has it.
    """
    if settings.DEFAULT_CHARSET != "utf-8" or not _is_proven():
        return None
    return _composed(canonical, message_id, date)


def _composed(canonical: Mapping[str, Any], message_id: str, date: str) -> list[bytes] | None:
    try:
        _require_usual(canonical)
        return _gathered(_pieces(canonical, message_id, date))
    except Exception:  # noqa: BLE001 - whatever is wrong with this mail, the email package says it as it always has
        return None


def _require_usual(canonical: Mapping[str, Any]) -> None:
    if "mime" in canonical or not canonical.get("from_email"):
        raise _Unusual
    if canonical.get("encoding", "utf-8") != "utf-8":
        raise _Unusual
    for pointer in canonical.get("types", ()):
        if not (pointer.startswith("/attachments/") and pointer.endswith("/mime")):
            raise _Unusual


def _pieces(canonical: Mapping[str, Any], message_id: str, date: str) -> list[bytes]:
    """The whole mail: the outermost part's header, the mail's own fields, and everything else."""
    alternatives = canonical.get("alternatives", ())
    attached = [_attached(item, index, canonical) for index, item in enumerate(canonical.get("attachments", ()))]
    texts, shape = _texts(canonical, bool(attached))
    heads = dialect.heads(shape)
    parts = [[head, b"\r\n", text.content] for head, text in zip(heads.texts, texts, strict=True)]
    if heads.multiparts:
        outer, inner = _boundaries(message_id, [*parts, *attached])
        if alternatives:
            parts = [_multipart(heads.multiparts[-1], inner, parts)]
        if attached:
            parts = [_multipart(heads.multiparts[0], outer, parts + attached)]
    ((head, *rest),) = parts
    return [head, _fields(canonical, message_id, date), *rest]


def _texts(canonical: Mapping[str, Any], has_attachments: bool) -> tuple[list[dialect.Text], dialect.Shape]:
    """The body, unless Django leaves it out, and the alternatives."""
    body, alternatives = canonical.get("body", ""), canonical.get("alternatives", ())
    others = [dialect.text(item["content"]) for item in alternatives]
    mimetypes = [_matching(_TEXT_TYPE, item["mimetype"]) for item in alternatives]
    types = tuple(zip(mimetypes, [text.encoding for text in others], strict=True))
    if not body and (alternatives or has_attachments):
        return others, dialect.Shape("", "", types, has_attachments)
    first = dialect.text(body)
    subtype = _matching(_SUBTYPE, canonical.get("content_subtype", "plain"))
    return [first, *others], dialect.Shape(subtype, first.encoding, types, has_attachments)


def _multipart(head: bytes, boundary: bytes, parts: Sequence[Sequence[bytes]]) -> list[bytes]:
    """As RFC 2046, 5.1.1 has it: the line end before a boundary belongs to the boundary."""
    pieces = [head.replace(dialect.BOUNDARY, boundary)]
    for part in parts:
        pieces += (b"\r\n--" + boundary + b"\r\n", *part)
    pieces.append(b"\r\n--" + boundary + b"--\r\n")
    return pieces


def _boundaries(message_id: str, parts: Sequence[Sequence[bytes]]) -> tuple[bytes, bytes]:
    """Return two lines that no part contains, the same ones at every attempt."""
    looks_alike = any(_BAR in piece for part in parts for piece in part)
    for number in count():
        drawn = int.from_bytes(blake2b(f"{number} {message_id}".encode(), digest_size=16).digest())
        pair = _boundary(drawn // 10**19), _boundary(drawn)
        if not looks_alike or not any(boundary in piece for boundary in pair for part in parts for piece in part):
            return pair
    raise AssertionError


def _boundary(number: int) -> bytes:
    return b"%s%019d==" % (_BAR, number % 10**19)


def _fields(canonical: Mapping[str, Any], message_id: str, date: str) -> bytes:
    """The mail's own fields, in Django's order."""
    headers = canonical.get("headers", {})
    own = {name.lower() for name in headers}
    if len(own) != len(headers) or not own.isdisjoint(_UNUSUAL_HEADERS) or any(map(_is_of_content, own)):
        raise _Unusual
    field = dialect.field
    lines = [
        field("Subject", canonical.get("subject", "")),
        field("From", headers.get("From", canonical["from_email"])),
    ]
    for name, key in _LISTS:
        if name in headers:
            lines.append(field(name, headers[name]))
        elif values := canonical.get(key):
            lines.append(field(name, ", ".join(values)))
    if "date" not in own:
        lines.append(field("Date", date))
    if "message-id" not in own:
        lines.append(field("Message-ID", message_id))
    lines += [field(name, value) for name, value in headers.items() if name.lower() not in _IN_FRONT]
    return b"".join(lines)


def _is_of_content(name: str) -> bool:
    return name.startswith("content-")


def _attached(item: Mapping[str, str], index: int, canonical: Mapping[str, Any]) -> list[bytes]:
    if "mime" in item:
        return _whole_part(b64decode(item["mime"]), canonical.get("types", {}).get(f"/attachments/{index}/mime", "old"))
    filename, mimetype = item.get("filename", ""), item["mimetype"]
    if mimetype.startswith("text/"):
        text = dialect.text(b64decode(item["content"]).decode())
        head = dialect.attachment_head(filename, _matching(_TEXT_TYPE, mimetype), text.encoding)
        return [head, b"\r\n", text.content]
    head = dialect.attachment_head(filename, _matching(_BINARY_TYPE, mimetype), "base64")
    return [head, b"\r\n", *_wrapped(item["content"])]


def _whole_part(raw: bytes, style: str) -> list[bytes]:
    """A MIME part as it came: its header in the installed version's words, its body with other line ends."""
    end = _END_OF_HEADERS.search(raw)
    if end is None or b"\r" in raw[: end.start()] or not raw.isascii():
        raise _Unusual
    head = dialect.part_head(raw[: end.start()], style)
    if head is None:
        raise _Unusual
    return [head, b"\r\n", dialect.crlf(raw[end.end() :])]


def _wrapped(encoded: str) -> Iterator[bytes]:
    """Base64 as it came, in lines: the email package decodes and encodes it, and this is what it makes."""
    for start in range(0, len(encoded), dialect.PIECE):
        yield from dialect.wrapped(encoded[start : start + dialect.PIECE].encode("ascii"))


def _gathered(pieces: Iterable[bytes]) -> list[bytes]:
    """
    Put small pieces together and leave large ones as they are; each ends with a line, and no line with half an end.
    """
    gathered: list[bytes] = []
    waiting: list[bytes] = []
    for piece in pieces:
        waiting.append(piece)
        if len(piece) >= dialect.PIECE and piece.endswith(b"\r\n"):
            gathered.append(b"".join(waiting))
            waiting.clear()
    if waiting:
        gathered.append(b"".join(waiting))
    if not gathered[-1].endswith(b"\r\n"):
        gathered[-1] += b"\r\n"
    if any(map(has_lone_line_ends, gathered)):
        raise _Unusual
    return gathered


def _matching(form: re.Pattern[str], value: str) -> str:
    if not form.fullmatch(value):
        raise _Unusual
    return value


@lru_cache(maxsize=1)
def _is_proven() -> bool:
    """Whether the samples come out as Django has them, on what is installed here."""
    for sample in SAMPLES:
        composed = _composed(sample, _MESSAGE_ID, _DATE)
        if composed is None or _comparable(b"".join(composed)) != _comparable(_as_django_has_it(sample)):
            sentence = (
                "mails are built by Python's email package, at a higher cost: the form of this version is not known"
            )
            say(_log, logging.WARNING, sentence, event="composer")
            return False
    return True


def _as_django_has_it(canonical: dict[str, Any]) -> bytes:
    try:
        email = message.load(canonical)
        message.stamp(email, message_id=_MESSAGE_ID, date=_DATE)
        return mime_bytes(email)
    except Exception:  # noqa: BLE001 - of a mail that is as plain as can be: nothing is known about this version
        return b""


def _comparable(content: bytes) -> bytes:
    """The bytes with numbers for boundaries, in the order in which they occur."""
    names = {name: b"%d" % index for index, name in enumerate(dict.fromkeys(_ANY_BOUNDARY.findall(content)))}
    return _ANY_BOUNDARY.sub(lambda found: names[found[0]], content)


_ANY_BOUNDARY = re.compile(rb"={15}\d{19}==")
_MESSAGE_ID: Final = "<6d8749383ee845cd9e7bee61f2087f16@example.org>"
_DATE: Final = "Sun, 22 Nov 2026 04:11:59 +0000"
_PLAIN: Final = {"subject": "Order 17", "body": "Thank you.\n", "from_email": "a@example.org", "to": ["b@example.org"]}
_HTML: Final = {"content": "<p>Thank you.</p>", "mimetype": "text/html"}
_FILE: Final = {"filename": "a.pdf", "content": b64encode(bytes(100)).decode("ascii"), "mimetype": "application/pdf"}
_INLINE: Final = b"Content-Type: image/png\nContent-Transfer-Encoding: base64\nContent-ID: <logo>\n\nAAAA\n"

#: one of each kind
SAMPLES: Final[tuple[dict[str, Any], ...]] = (
    _PLAIN,
    {**_PLAIN, "body": ".\r\nGrüße\r\n\n", "alternatives": [_HTML]},
    {**_PLAIN, "body": "", "alternatives": [{**_HTML, "content": "<p>Grüße</p>" + "x" * 1000}], "attachments": [_FILE]},
    {
        **_PLAIN,
        "body": "Grüße \r\n" * 20,
        "alternatives": [{**_HTML, "content": "<p>Grüße</p> \n" + " = " * 400 + "\n" * 20}],
    },
    {
        **_PLAIN,
        "body": "é" * 2000,
        "headers": {"Message-ID": "<own@example.org>", "Date": "Sun, 22 Nov 2026 10:00:00 +0100"},
    },
    {
        "subject": "Grüße " * 20,
        "from_email": "Ann Bee <a@example.org>",
        "to": ["Ünal <b@bücher.example>", "c@example.org"],
        "cc": [f"recipient-{number}@example.org" for number in range(9)],
        "reply_to": ['"Bee, Ann" <d@example.org>'],
        "headers": {"List-Unsubscribe": f"<https://example.org/{'x' * 80}>", "X-Mailer": "test"},
        "attachments": [
            {"filename": "Größe.txt", "content": b64encode(b"a,b\n").decode("ascii"), "mimetype": "text/csv"},
            {"mime": b64encode(_INLINE).decode("ascii")},
        ],
    },
)
