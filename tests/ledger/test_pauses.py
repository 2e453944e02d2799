"""Pauses in both databases: each change is heard of with the next claim."""

from __future__ import annotations

import pytest

from mail_service import clock
from mail_service.ledger import Ledger
from mail_service.ledger.database import Database
from mail_service.ledger.pauses import Criteria, Pause, PauseList

from .building import a_copy, a_mail


@pytest.fixture
def pauses(database: Database, ledger: Ledger) -> PauseList:
    return PauseList(database, ledger)


def a_pause(**about: str | None) -> Pause:
    return Pause(**{"since": clock.now_iso(), **about})  # type: ignore[arg-type]


def test_a_claim_hears_of_each_change(database: Database, ledger: Ledger, pauses: PauseList) -> None:
    other = PauseList(database, Ledger(database, attempt_timeout_s=1))
    heard = []

    for n in range(2):
        if n == 0:
            other.put(a_pause(mailer="a"))
        else:
            other.end(Criteria(mailer="a"))
        ledger.claim(a_copy(id=str(n)))
        heard.append(ledger.revision)
        assert pauses.revision == ledger.revision == pauses.all()[0]

    assert heard[0] < heard[1]


def test_a_pause_comes_back_as_it_was_put(pauses: PauseList) -> None:
    put = [a_pause(mailer="a", reason="why"), a_pause(tenant="t", priority="bulk", until=clock.now_iso())]
    for each in put:
        pauses.put(each)

    assert pauses.all()[1] == put


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        (Criteria(), []),
        (Criteria(mailer="a"), ["tenant t"]),
        (Criteria(mailer="a", tenant="t"), ["mailer a", "tenant t"]),
        (Criteria(tenant="t"), ["mailer a"]),
        (Criteria(priority="bulk"), ["mailer a", "mailer a, tenant t", "tenant t"]),
    ],
    ids=str,
)
def test_those_end_that_have_all_that_is_named(wanted: Criteria, left: list[str], pauses: PauseList) -> None:
    for about in ({"mailer": "a"}, {"mailer": "a", "tenant": "t"}, {"tenant": "t"}):
        pauses.put(a_pause(**about))

    pauses.end(wanted)

    assert [str(pause.criteria) for pause in pauses.all()[1]] == left


def test_what_is_overdue_is_ended_once(pauses: PauseList) -> None:
    over = a_pause(mailer="a", until=clock.iso(clock.later(-1)))
    pauses.put(over)
    pauses.put(a_pause(mailer="b", until=clock.iso(clock.later(60))))
    pauses.put(a_pause(mailer="c"))

    assert pauses.end_overdue() == [over]
    assert pauses.end_overdue() == []
    assert [pause.mailer for pause in pauses.all()[1]] == ["b", "c"]


def test_a_pause_gets_another_end(pauses: PauseList) -> None:
    pauses.put(a_pause(mailer="a"))
    until = clock.iso(clock.later(60))

    assert [pause.until for pause in pauses.end_later(Criteria(mailer="a"), until)] == [until]


@pytest.mark.parametrize(
    ("about", "is_meant"),
    [
        ({}, True),
        ({"mailer": "default"}, True),
        ({"mailer": "default", "tenant": "t", "priority": "bulk"}, True),
        ({"mailer": "default", "tenant": "u"}, False),
        ({"priority": "high"}, False),
    ],
)
def test_which_mail_is_meant(about: dict[str, str], is_meant: bool) -> None:
    assert a_pause(**about).has(a_mail(tenant="t", priority="bulk")) is is_meant
