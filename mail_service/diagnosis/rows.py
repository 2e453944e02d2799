"""What a line of a table is, for the tables of answers, and how a table is asked: the first line that fits decides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from mail_service.outcome import Kind, Scope

if TYPE_CHECKING:
    from mail_service.diagnosis.answer import Answer

Row = TypeVar("Row")

#: after one of these a mail may have been taken
_MAY_BE_SENT = frozenset({Kind.ACCEPTED, Kind.UNKNOWN})


def first(rows: Iterable[Row], fits: Callable[[Row], bool]) -> Row | None:
    """Return the first of *rows* that fits, or None."""
    return next((row for row in rows if fits(row)), None)


def first_for(answer: Answer, rows: Iterable[AnswerRow]) -> AnswerRow | None:
    """Return the first of *rows* that speaks about *answer*."""
    return first(rows, lambda row: row.fits(answer))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """One line of a table of answers over HTTP. All conditions that are given have to be met."""

    kind: Kind
    #: who says so
    source: str
    #: ``401 403``, ``5xx``; empty for any
    statuses: str = ""
    #: the provider's own words or numbers, one of which the answer has to name; several with a space between
    codes: str = ""
    #: a regular expression to be found in the answer's body
    text: str = ""
    #: whom it is about; None is the usual of its kind
    scope: Scope | None = None
    #: seconds, where the answer names none; a quota's rather than a rate's
    wait_s: float | None = None
    #: another request may have brought the mail
    may_be_sent: bool = False

    def fits(self, answer: Answer) -> bool:
        """Whether this row speaks about *answer*."""
        return (
            (not self.statuses or any(_status_fits(one, answer.status) for one in self.statuses.split()))
            and (not self.codes or self.code_of(answer) is not None)
            and (not self.text or re.search(self.text, answer.text, re.IGNORECASE) is not None)
        )

    def code_of(self, answer: Answer) -> str | None:
        """The provider's word by which *answer* is known, the only words of it that may be logged."""
        known = self.codes.split()
        return next((code for code in answer.codes if code in known), None)

    @property
    def certainly_not_sent(self) -> bool:
        """Whether nothing of the mail can have been accepted."""
        return self.kind not in _MAY_BE_SENT and not self.may_be_sent


def _status_fits(pattern: str, status: int) -> bool:
    return status // 100 == int(pattern[0]) if pattern.endswith("xx") else status == int(pattern)
