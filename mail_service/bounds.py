"""How much one message may have of what costs time or memory: the settings ``mail.max_…`` but for ``max_size``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from operator import attrgetter
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is above one of them is refused; the error names the setting."""

    #: in to, cc and bcc together, and again in reply_to; a recipient takes about 100 bytes in each record of the mail
    max_recipients: int = 10_000
    #: attachments and alternatives together
    max_attachments: int = 1_000
    #: characters of all that a message itself puts into header fields, names included, addresses not: subject, headers,
    #: names and types of attachments. Python 3.12 folds about 30,000 in a second. Postfix cuts a single field of more
    #: than 102,400 bytes (postconf(5), header_size_limit).
    max_header_length: int = 65_536
    #: items of all lists and objects of the message together; Python takes some microseconds for each of them
    max_values: int = 200_000
    #: levels of lists and objects inside a field, and of MIME parts inside a part; never more than ``DEEPEST``
    max_nesting: int = 64


#: far below where Python's own JSON gives up
DEEPEST: Final = 64
DEFAULT: Final = Bounds()


def at_most(most: int, setting: str) -> str:
    """The end of a sentence about what there is too much of."""
    return f"at most {most:,} are allowed (mail.{setting})"


def of(settings: object) -> Bounds:
    """The bounds that *settings* has as attributes of the same names. Asked for with each mail."""
    return _bounds(*_values(settings))


_NAMES: Final = tuple(each.name for each in fields(Bounds))
_values = attrgetter(*_NAMES)


@lru_cache(maxsize=16)
def _bounds(*values: int) -> Bounds:
    return Bounds(**dict(zip(_NAMES, values, strict=True)))
