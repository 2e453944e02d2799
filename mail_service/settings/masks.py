"""Makes configuration fit to print: what is secret by its key's name, or stands inside a URL, becomes ``***``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

MASK: Final = "***"

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NOT_A_LETTER = re.compile(r"[^a-z]+")
#: anywhere in the name, since they are also written together: ``dbpassword``, ``authtoken``
_SECRET_PARTS = ("password", "passwd", "passphrase", "secret", "token", "credential")
#: a whole word of the name only: ``pass`` is no part of ``bypass``, ``auth`` none of ``author``
_SECRET_WORDS = frozenset({"auth", "authorization", "authentication", "pass", "pwd", "cookie", "dsn", "signature"})
#: how a word ends: ``api_key``, ``accesskey``. ``keyfile`` is a path, and stays readable.
_SECRET_ENDINGS = ("key", "keys")

_NEXT_URL = re.compile(r"(?=\b[A-Za-z][\w+.-]{0,40}://)")
#: the last ``@`` ends the password, since SQLAlchemy and kombu both take one with an unescaped ``@`` or ``/`` in it
_USER_AND_PASSWORD = re.compile(r"(://[^\s:/]*):.*@", re.DOTALL)
#: an HTTP URL with a user alone carries a token: ``https://key@host``
_TOKEN_AS_USER = re.compile(r"(\bhttps?://)[^\s:/@]+@", re.IGNORECASE)
#: ``?password=x``, and libpq's ``host=x password=y``
_ASSIGNMENT = re.compile(r"(?<![\w.-])([\w.-]+)(=)('[^']*'|\"[^\"]*\"|[^\s&'\"]+)")


def is_secret_name(name: object) -> bool:
    """Whether the value of a key of this name is never shown: ``password``, ``api_key``, ``authToken``, ``X-Auth``."""
    lowered = _CAMEL.sub("_", str(name)).lower()
    if any(part in lowered for part in _SECRET_PARTS):
        return True
    return any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDINGS) for word in _NOT_A_LETTER.split(lowered))


def mask_text(text: str) -> str:
    """*text* without the passwords of the URLs in it and without the values of ``password=...`` and their like."""
    # most texts have neither, and log lines come here too
    if "://" in text:
        text = "".join(_mask_url(piece) for piece in _NEXT_URL.split(text))
    return _ASSIGNMENT.sub(_mask_assignment, text) if "=" in text else text


def mask(config: object) -> object:
    """
    A copy of *config* as plain dicts, lists and scalars, safe to print.

    The whole value of a key with a secret's name is masked, be it a mapping; ``None``, booleans and empty strings are
    kept, since whether a secret was given at all is what people look for.
    """
    match config:
        case Mapping():
            return {key: _mask_all(value) if is_secret_name(key) else mask(value) for key, value in config.items()}
        case list() | tuple() | set() | frozenset():
            return [mask(item) for item in config]
        case str():
            return mask_text(config)
        case _:
            return config


def _mask_all(value: object) -> object:
    return value if value is None or value == "" or isinstance(value, bool) else MASK


def _mask_url(piece: str) -> str:
    return _TOKEN_AS_USER.sub(rf"\1{MASK}@", _USER_AND_PASSWORD.sub(rf"\1:{MASK}@", piece))


def _mask_assignment(match: re.Match[str]) -> str:
    name, equals, _ = match.groups()
    return f"{name}{equals}{MASK}" if is_secret_name(name) else match.group()
