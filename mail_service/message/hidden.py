"""
Line breaks in disguise: in encoded words (RFC 2047) and in encoded parameters (RFC 2231).

Python's modern header classes, which Django 6 builds mails with, decode both when a header is set, and write what was
decoded. Before 3.11.10, 3.12.5 and 3.13 they do not look at what they write (CVE-2024-6923), so that an encoded line
break in a subject becomes a header of its own.
"""

from __future__ import annotations

import re
from email import _encoded_words  # type: ignore[attr-defined]  # the very decoder that the header classes use
from urllib.parse import unquote

#: what ends a line for Django (CR, LF) or for the ``str.splitlines`` inside Python's email package, and NUL
BREAK = re.compile("[\r\n\0\x0b\x0c\x1c\x1d\x1e]")

#: overlapping ones too, since parsers disagree about where one begins
_ENCODED_WORD = re.compile(r"(?=(=\?[^?]*\?[bBqQ]\?[^?]*\?=))")
_ENCODED_PARAMETER = re.compile(r"\*\s*=")
#: a word in a word: nobody decodes more often
_MOST_ROUNDS = 3


def has_break(text: str, rounds: int = _MOST_ROUNDS) -> bool:
    """Whether *text* has a line break or NUL, or somebody who decodes its encoded words would find one."""
    if BREAK.search(text):
        return True
    if not rounds or "=?" not in text:
        return False
    return any(has_break(_decoded(found[1]), rounds - 1) for found in _ENCODED_WORD.finditer(text))


def parameters_have_break(text: str) -> bool:
    """Whether one of the parameters in *text*, such as ``name*=utf-8''a%0D``, has one."""
    return _ENCODED_PARAMETER.search(text) is not None and BREAK.search(unquote(text, "latin-1")) is not None


def _decoded(word: str) -> str:
    try:
        return str(_encoded_words.decode(word)[0])
    except Exception:  # noqa: BLE001 - then it is no encoded word for the header classes either
        return ""
