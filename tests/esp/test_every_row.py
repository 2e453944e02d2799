"""No row stands in a table without a test that would fail if it were not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from mail_service.diagnosis import PROVIDERS, errors, http, smtp, statuses
from mail_service.diagnosis import diagnose as diagnosed
from mail_service.local.http_server import Rule
from mail_service.outcome import Diagnosis

from . import answers, faults, recipients, replies
from .asking import A, B, a_mailer, failure
from .sending import Servers, refused
from .test_recipients import asked

#: what a case came to, when it is judged again
Judge = Callable[[], Diagnosis]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Somebody's ``rows``, and the cases that speak about them."""

    name: str
    owner: Any
    attribute: str
    cases: tuple[Any, ...]

    @property
    def rows(self) -> Sequence[Any]:
        return getattr(self.owner, self.attribute)  # type: ignore[no-any-return]


def _tables() -> Iterator[Table]:
    yield Table(name="http", owner=http, attribute="ROWS", cases=answers.CASES)
    yield Table(name="smtp", owner=smtp, attribute="ROWS", cases=replies.CASES)
    yield Table(name="errors", owner=errors, attribute="ROWS", cases=faults.CASES)
    yield Table(name="statuses", owner=statuses, attribute="ROWS", cases=recipients.CASES)
    for name, provider in PROVIDERS.items():
        own = tuple(case for case in answers.CASES if case.esp == name)
        yield Table(name=name, owner=provider, attribute="rows", cases=own)
        if provider.fates:
            about_recipients = tuple(case for case in recipients.CASES if case.esp == name)
            yield Table(name=f"{name}, recipients", owner=provider.fates, attribute="rows", cases=about_recipients)


TABLES = tuple(_tables())
ROWS = [
    pytest.param(table, number, id=f"{table.name} {number}") for table in TABLES for number in range(len(table.rows))
]


@pytest.fixture(scope="module")
def _judges() -> dict[Any, list[Judge]]:
    return {}


@pytest.fixture
def judges(_judges: dict[Any, list[Judge]], servers: Servers) -> Callable[[Any], list[Judge]]:
    """Lets a case happen, once for all tests, and gives what judges it, as often as one likes."""

    def of(case: Any) -> list[Judge]:
        if case not in _judges:
            _judges[case] = _let_happen(case, servers)
        return _judges[case]

    return of


def _let_happen(case: Any, servers: Servers) -> list[Judge]:
    if isinstance(case, recipients.Case):
        judge = asked(servers.http, case)
        return [lambda: judge(A), lambda: judge(B)]
    if isinstance(case, answers.Case):
        servers.http.script(Rule(status=case.status, headers=case.headers, body=case.body))
        error, context = failure(a_mailer(case.esp, servers.http.url))
    elif isinstance(case, replies.Case):
        error, context = refused(case, servers)
    else:
        error, context = case.happen(servers)
    return [lambda: diagnosed(error, context)]


@pytest.mark.parametrize(("table", "number"), ROWS)
def test_without_this_row_something_would_be_judged_otherwise(
    table: Table, number: int, judges: Callable[[Any], list[Judge]]
) -> None:
    every = [judge for case in table.cases for judge in judges(case)]
    before = [judge() for judge in every]
    rows = table.rows

    # frozen dataclasses, and constants of modules
    object.__setattr__(table.owner, table.attribute, (*rows[:number], *rows[number + 1 :]))
    try:
        after = [judge() for judge in every]
    finally:
        object.__setattr__(table.owner, table.attribute, rows)

    assert before != after, f"no case needs this row: {rows[number]}"


def test_every_row_says_who_says_so() -> None:
    for table in TABLES:
        assert all(len(row.source) > 10 for row in table.rows), table.name
