"""
Writes the tables of docs/failures.md from those of the code::

    python -m mail_service.diagnosis.page [FILE]

It replaces what stands between ``<!-- table: NAME -->`` and ``<!-- end -->``, and leaves everything else as it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, get_args

from mail_service.diagnosis import errors, http, smtp, statuses
from mail_service.diagnosis.context import Stage
from mail_service.diagnosis.providers import PROVIDERS
from mail_service.diagnosis.rows import AnswerRow
from mail_service.outcome import Diagnosis, Kind, Scope

PAGE: Final = Path(__file__).parents[2] / "docs" / "failures.md"

_SECTION: Final = re.compile(r"(?<=<!-- table: )(\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
_STAGES: Final[tuple[Stage, ...]] = get_args(Stage)


def written(page: str) -> str:
    """
    Return *page* with the tables as the code has them now.

    Raises:
        KeyError: for a table that there is not.
    """
    return _SECTION.sub(lambda found: f"{found[1]}{found[2]}\n{tables()[found[1]]}\n", page)


def tables() -> dict[str, str]:
    """Every table of the page, by its name there."""
    return {
        "smtp": _table(
            ("reply", "at", "means", "about", "source"),
            ((_reply(row), _at(row.stages), *_means(row.kind, row.scope, row.wait_s), row.source) for row in smtp.ROWS),
        ),
        "errors": _table(
            ("error", "at", "means", "about", "source"),
            ((_error(row), _at(row.stages), *_means(row.kind, row.scope), row.source) for row in errors.ROWS),
        ),
        "http": _answers(http.ROWS),
        "statuses": _table(
            ("status", "means", "source"),
            ((_code(row.status) if row.status else "any other", _code(row.kind), row.source) for row in statuses.ROWS),
        ),
        "providers": "\n".join(_providers()),
    }


def _providers() -> Iterable[str]:
    for provider in PROVIDERS.values():
        yield f"### {provider.names[0]}\n\n{_answers(provider.rows)}"
        if provider.fates:
            yield f"For single recipients, in an answer of success:\n\n{_answers(provider.fates.rows)}"


def _answers(rows: Iterable[AnswerRow]) -> str:
    return _table(
        ("answer", "means", "about", "source"),
        ((_answer(row), *_means(row.kind, row.scope, row.wait_s), row.source) for row in rows),
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _answer(row: AnswerRow) -> str:
    conditions = [_codes(row.statuses.split()), _codes(row.codes.split())]
    return (": ".join(filter(None, conditions)) or "any") + _saying(row.text)


def _reply(row: smtp.ReplyRow) -> str:
    # RFC 3463: the class is that of the reply itself
    enhanced = [f"x.{one}" if "." in one else f"x.{one}.x" for one in row.enhanced.split()]
    conditions = ["neither 4xx nor 5xx" if one == "odd" else _code(one) for one in row.codes.split()]
    return ", ".join(conditions) + (f" with {_codes(enhanced)}" if enhanced else "") + _saying(row.text)


def _error(row: errors.ErrorRow) -> str:
    names = _codes(sorted(row.names))
    return names + (f" made of {_codes(sorted(row.made_from))}" if row.made_from else "") + _saying(row.text)


def _saying(text: str) -> str:
    return f" saying {_code(text)}" if text else ""


def _at(stages: frozenset[Stage | None] | frozenset[Stage] | None) -> str:
    if stages is None or stages >= set(_STAGES):
        return "any"
    named = [_code(stage) for stage in _STAGES if stage in stages]
    return ", ".join([*named, "not known"] if None in stages else named)


def _means(kind: Kind, scope: Scope | None, wait_s: float | None = None) -> tuple[str, str]:
    wait = f", {wait_s / 60:g} min" if wait_s else ""
    about = "" if kind is Kind.ACCEPTED else str(Diagnosis(kind=kind, scope=scope).concerns)
    return f"{_code(kind)}{wait}", about


def _codes(words: Iterable[str]) -> str:
    return ", ".join(map(_code, words))


def _code(word: str) -> str:
    return f"`{word}`"


def main() -> None:
    """Write the page anew."""
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    page.write_text(written(page.read_text()))


if __name__ == "__main__":
    main()
