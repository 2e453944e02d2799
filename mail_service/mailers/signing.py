"""
DKIM signatures (RFC 6376) for mail that goes over SMTP, by the domain of its author.

A mail is signed once per attempt, for all its recipients, over the very bytes that are then sent: after everything that
changes them, such as ``redirect_to``, and before what SMTP itself adds and takes away again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from email.utils import getaddresses
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeAlias

from mail_service.errors import ConfigurationError
from mail_service.settings import DkimKey

#: takes a mail in pieces that each end with a line, and returns it with what is put in front
Sign: TypeAlias = Callable[[Sequence[bytes]], Sequence[bytes]]

#: both relaxed: many servers fold and trim what they pass on
_CANONICAL: Final = (b"relaxed", b"relaxed")
_SAMPLE: Final = b"From: a@example.org\r\nSubject: s\r\n\r\nText\r\n"
_PACKAGE: Final = "needs the package dkimpy: pip install 'mail-service[dkim]'"
_NO_KEY: Final = "is no private RSA key in PEM without a passphrase"


class _Bad(Exception):
    """A key cannot be used. The text says why, and has nothing of the key."""


@dataclass(frozen=True, slots=True)
class _Key:
    selector: bytes
    domain: bytes
    #: not in the repr
    pem: Any

    def __repr__(self) -> str:
        return f"_Key({self.selector!r}, {self.domain!r})"


def problems(keys: Mapping[str, DkimKey]) -> list[str]:
    """What is wrong with ``mail.dkim``, a sentence each, which names the key's file and shows nothing that is in it."""
    if keys and find_spec("dkim") is None:
        return [f"mail.dkim: {_PACKAGE}"]
    found = []
    for domain, key in keys.items():
        try:
            _read(domain, key)
        except _Bad as exc:
            found.append(f"mail.dkim.{domain}.keyfile: {key.keyfile} {exc}")
    return found


def signer(keys: Mapping[str, DkimKey]) -> Sign | None:
    """What signs mail; None where there is nothing to sign with. Raises ConfigurationError."""
    if not keys:
        return None
    if mistakes := problems(keys):
        raise ConfigurationError("\n".join(mistakes))
    read = {domain: _read(domain, key) for domain, key in keys.items()}

    def sign(pieces: Sequence[bytes]) -> Sequence[bytes]:
        key = read.get(author_domain(pieces))
        return pieces if key is None else [_signature(b"".join(pieces), key), *pieces]

    return sign


def author_domain(pieces: Sequence[bytes]) -> str:
    """The domain in From, in lower case and ASCII; empty where there is none."""
    head = b"".join(pieces) if b"\r\n\r\n" not in pieces[0] else pieces[0]
    field = BytesHeaderParser().parsebytes(head.partition(b"\r\n\r\n")[0] + b"\r\n\r\n").get("From", "")
    for _, address in getaddresses([str(field)]):
        _, at, domain = address.rpartition("@")
        return domain.lower() if at else ""
    return ""


def _read(domain: str, key: DkimKey) -> _Key:
    try:
        pem = Path(key.keyfile).read_bytes()
    except OSError as exc:
        raise _Bad(f"cannot be read: {exc.strerror}") from None
    found = _Key(key.selector.encode("ascii"), domain.encode("ascii"), pem)
    try:
        _signature(_SAMPLE, found)
    except Exception:  # noqa: BLE001 - of the parser of a broken key, whose words may have parts of it
        raise _Bad(_NO_KEY) from None
    return found


def _signature(content: bytes, key: _Key) -> bytes:
    import dkim  # noqa: PLC0415 - an optional package

    signature: bytes = dkim.sign(content, key.selector, key.domain, key.pem, canonicalize=_CANONICAL)
    return signature
