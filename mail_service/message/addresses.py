"""
Which addresses are valid, and what their bare form is. An address is valid if Django's ``sanitize_address`` takes it.

Django 6.0 deprecated that function, and calling it costs about 28 µs, so what it does is done here with the same parser
of the standard library; a test holds the two against each other. Nothing here needs Django.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.header import Header
from email.headerregistry import Address
from email.headerregistry import parser as _parser  # type: ignore[attr-defined]  # Django takes it from there as well
from email.utils import formataddr, getaddresses
from functools import lru_cache

#: headers that Django parses as addresses when they are not plain ASCII (django.core.mail.message.ADDRESS_HEADERS)
ADDRESS_HEADERS = frozenset(
    {
        "from",
        "sender",
        "reply-to",
        "to",
        "cc",
        "bcc",
        "resent-from",
        "resent-sender",
        "resent-to",
        "resent-cc",
        "resent-bcc",
    }
)

#: characters; the parser's time grows with the square of the length, and a header line ends at 998 (RFC 5322, 2.1.1)
MAX_LENGTH = 2_000

#: without the question mark, so that there is no encoded word in it
_LOCAL = r"[A-Za-z0-9!#$%&'*+/=^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=^_`{|}~-]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_SPEC = rf"{_LOCAL}@{_LABEL}(?:\.{_LABEL})*"
_NAME = r"""(?:[A-Za-z0-9]+(?: [A-Za-z0-9]+)*|"[A-Za-z0-9 ,.'()&/-]{1,60}")"""
#: ``a@b.example`` and ``Name <a@b.example>`` in forms that no reading of RFC 5322 can doubt: nearly all real addresses
_PLAIN = re.compile(rf"({_SPEC})|{_NAME} <({_SPEC})>")


class BadAddress(ValueError):
    """Not an address. The text says why, without the address itself."""


def addr_spec(address: str) -> str:
    """
    Return the bare address of *address*, as typed: ``a@example.org`` of ``"A, B" <a@example.org>``.

    Raises:
        BadAddress: when Django's ``sanitize_address(address, "utf-8")`` would raise.
    """
    if (plain := _PLAIN.fullmatch(address)) is not None:
        return plain[1] or plain[2]
    spec, problem = _parse(address) if len(address) <= MAX_LENGTH else ("", f"longer than {MAX_LENGTH:,} characters")
    if problem:
        raise BadAddress(problem)
    return spec


def is_plain(address: str) -> bool:
    """Whether *address* is in one of the usual forms, which are read in no time."""
    return _PLAIN.fullmatch(address) is not None


def check_header(value: str) -> None:
    """Raise ``BadAddress`` when Django could not encode *value* in one of the ``ADDRESS_HEADERS``."""
    if value.isascii():
        return
    if len(value) > MAX_LENGTH * 10:
        raise BadAddress(f"longer than {MAX_LENGTH * 10:,} characters")
    try:
        mailboxes = getaddresses((value,))
    except RecursionError:  # comments in one another
        raise BadAddress("is nested too deeply") from None
    for name, address in mailboxes:
        local, at, domain = address.rpartition("@")
        if not at:
            raise BadAddress("contains something that is not an address")
        _encode(name, local, domain)


def unique(addresses: Iterable[str]) -> list[str]:
    """Return the bare form of each address, once each, in order."""
    return list(dict.fromkeys(map(addr_spec, addresses)))


@lru_cache(maxsize=4096)
def _parse(address: str) -> tuple[str, str]:
    """Return the bare address and an empty problem, or the other way round (an exception would not be cached)."""
    try:
        token, rest = _parser.get_mailbox(address)
        name, local, domain = token.display_name or "", token.local_part, token.domain or ""
        bare = str(token.addr_spec)
    except Exception:  # noqa: BLE001  # the parser raises whatever its code stumbles over, RecursionError included
        return "", "not an e-mail address"
    if rest:
        return "", "more than one e-mail address, or a name with a comma that is not in quotes"
    try:
        _encode(name, local, domain)
    except BadAddress as error:
        return "", str(error)
    return bare, ""


def _encode(name: str, local: str, domain: str) -> None:
    """Raise what Django's encoding of the parts would raise, as ``BadAddress``."""
    try:
        _refuse_line_breaks(name + local + domain)
        name = (Header(name) if name.isascii() else Header(name, "utf-8")).encode()
        local = local if local.isascii() else Header(local, "utf-8").encode()
        spec = Address(username=local, domain=domain.encode("idna").decode("ascii")).addr_spec
        formataddr((name, spec))
    except Exception as error:  # ValueError, UnicodeError, HeaderParseError, TypeError … of three modules
        raise BadAddress("not an e-mail address that can be encoded") from error


def _refuse_line_breaks(text: str) -> None:
    if "\n" in text or "\r" in text:
        raise BadAddress("contains a line break")
