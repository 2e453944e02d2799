"""What a mailer hands over: the message's bytes, addresses for the envelope, and a word about what cannot be said."""

from __future__ import annotations

import email.policy
import re
from collections.abc import Collection, Iterable
from email.header import Header
from email.headerregistry import Address
from functools import lru_cache
from typing import Any, Final

import django

from mail_service.mailers import CannotExpress, Email
from mail_service.message.addresses import addr_spec

#: Anymail's additions to a message that have no place in MIME. Not ``send_at``: this service waits itself.
ANYMAIL_FIELDS: Final = (
    "template_id",
    "merge_data",
    "merge_global_data",
    "merge_headers",
    "merge_metadata",
    "metadata",
    "tags",
    "track_opens",
    "track_clicks",
    "esp_extra",
)

#: with one of these, even an empty one, Anymail sends each recipient in ``to`` a mail that does not show the others
_BATCH_FIELDS: Final = frozenset({"merge_data", "merge_headers", "merge_metadata"})

#: lines that do not belong to the field
BROKEN_FOLD = re.compile(rb"\n(?![ \t]|\Z)|\r(?!\n)")
_PYTHON_CHECKS_HEADERS: Final = hasattr(email.policy.default, "verify_generated_headers")
_LONE_LINE_END = re.compile(rb"\r(?!\n)|(?<!\r)\n")


def mime_bytes(message: Email) -> bytes:
    """
    Build the message's MIME as Django's SMTP backend does, every line ended by CR LF.

    A lone CR or LF, which whole MIME messages from elsewhere may have, would let one mail end early and another begin
    on some servers (SMTP smuggling, CVE-2023-51764); RFC 5321, 2.3.8 forbids both.
    """
    if django.VERSION >= (6, 0):
        built = message.message(policy=email.policy.SMTP)
        if not _PYTHON_CHECKS_HEADERS:
            require_whole_headers(built)
        content = bytes(built.as_bytes())
    else:
        content = _as_bytes(message.message())
    return with_crlf(content)


def with_crlf(content: bytes) -> bytes:
    """End every line of *content* by CR LF, the last one too."""
    if has_lone_line_ends(content):
        content = _LONE_LINE_END.sub(b"\r\n", content)
    return content if content.endswith(b"\r\n") else content + b"\r\n"


def require_whole_headers(built: Any) -> None:
    """
    Raise ValueError when a header would be written as more than one: CVE-2024-6923, mended in Python 3.12.5 and 3.13.
    """
    for part in built.walk():
        for name, value in part.raw_items():
            if BROKEN_FOLD.search(part.policy.fold_binary(name, value)):
                raise ValueError(f"the header {name[:100]} has a line break in it")


def has_lone_line_ends(content: bytes) -> bool:
    """Whether there is a CR without LF, or the other way round."""
    line_ends = content.count(b"\r\n")
    return content.count(b"\n") != line_ends or content.count(b"\r") != line_ends


def _as_bytes(built: Any) -> bytes:
    try:
        return bytes(built.as_bytes(linesep="\r\n"))
    except TypeError:  # the standard library's own class, from a message() that somebody overrode
        return bytes(built.as_bytes(policy=built.policy.clone(linesep="\r\n")))


@lru_cache(maxsize=4096)
def envelope_address(address: str) -> str:
    """
    Return the addr-spec of *address* as SMTP without SMTPUTF8 takes it: ``a@xn--bcher-kva.example``.

    As Django does it, which for a local part beyond ASCII is an encoded word on 5.2 (``sanitize_address``) and refused
    on 6.x (``EmailBackend.prep_address``), since RFC 6531 has no such encoding.

    Raises:
        ValueError: for what is not an address.
    """
    bare = addr_spec(address)
    if bare.isascii():
        return bare
    local, _, domain = bare.rpartition("@")
    if not local.isascii():
        if django.VERSION >= (6, 0):
            raise ValueError("the part before the @ is not ASCII, which needs SMTPUTF8")
        local = Header(local, "utf-8").encode()
    return Address(username=local, domain=domain.encode("idna").decode("ascii")).addr_spec


def envelope_sender(message: Email) -> str:
    """Return the address for MAIL FROM: Anymail's ``envelope_sender`` or the From; empty for ``<>``, as for bounces."""
    return sender_of(getattr(message, "envelope_sender", None), message.from_email)


def sender_of(asked: object, from_email: object) -> str:
    """Return the same of the two fields."""
    if is_set(asked):
        return "" if str(asked).strip() == "<>" else envelope_address(str(asked))
    return envelope_address(str(from_email))


def require_expressible(message: Email, mailer: str, fields: Iterable[str], *, expresses: Collection[str] = ()) -> None:
    """Raise CannotExpress when one of *fields* is set on *message*. A mail is never sent without what it asks for."""
    found = [field for field in fields if field not in expresses and _asks_for(message, field)]
    if found:
        names = ", ".join(found)
        raise CannotExpress(f"mailer {mailer!r} cannot express {names}: use an Anymail backend, or leave it out")


def _asks_for(message: Email, field: str) -> bool:
    """Whether *message* needs *field*. An empty one of the merge fields still asks for a mail of its own to each."""
    value = getattr(message, field, None)
    return is_set(value) or (field in _BATCH_FIELDS and isinstance(value, dict) and len(message.to) > 1)


def is_set(value: object) -> bool:
    """Whether a field holds something. Anymail's mark for "not given" is a class, and true."""
    return bool(value) and getattr(value, "__qualname__", "") != "UNSET"


def bare(address: object) -> str:
    """Return the bare form of an address that was valid when the mail was accepted; what is none stays as it is."""
    try:
        return addr_spec(str(address))
    except ValueError:
        return str(address)
