"""What a provider's table consists of, besides its rows: where in its answers the words stand that the rows name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mail_service.diagnosis.rows import AnswerRow

#: instead of the name of a field: the items are those of an object, and its keys are the addresses
AS_KEY: Final = "@key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fates:
    """Where a successful answer tells about single recipients."""

    #: to an item for each: ``warnings.*.recipients.*``
    items: str
    #: in an item, to its address; ``AS_KEY``; or empty when the items follow the order of the mail's ``to``
    address: str = ""
    #: in an item, to its codes; empty when the item itself is one
    codes: tuple[str, ...] = ("",)
    #: the first that fits decides; without one, Anymail's status does
    rows: tuple[AnswerRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One ESP's view of what went wrong."""

    #: Anymail's names of it, ``esp_name``
    names: tuple[str, ...]
    #: paths to codes in an answer's JSON: ``errors.*.code``
    codes: tuple[str, ...] = ()
    #: a regular expression whose group is a code, for APIs that write them into sentences
    code_pattern: str = ""
    #: before those of ``http``, which are for all; the first that fits decides
    rows: tuple[AnswerRow, ...]
    fates: Fates | None = None
