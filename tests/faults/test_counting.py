"""The count finds what is wrong, one mail at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mail_service.outcome import Status

from .counting import Known, Tally, count

SENT = Known(status=Status.SENT, unknown=0, has_content=False)
FAILED = Known(status=Status.FAILED, unknown=0, has_content=True)
WAITS = Known(status=Status.DEFERRED, unknown=0, has_content=True)
ONE = Tally(accepted=1)


@pytest.mark.parametrize(
    ("copies", "known", "expected"),
    [
        pytest.param(["<a>"], SENT, replace(ONE, delivered=1), id="delivered"),
        pytest.param([], FAILED, replace(ONE, logged=1), id="in the error log"),
        pytest.param([], None, replace(ONE, lost=1), id="nobody knows it"),
        pytest.param([], SENT, replace(ONE, lost=1), id="sent, says the ledger alone"),
        pytest.param([], WAITS, replace(ONE, lost=1), id="waits for ever"),
        pytest.param([], replace(FAILED, has_content=False), replace(ONE, lost=1), id="logged without its content"),
        pytest.param(["<a>"], WAITS, replace(ONE, delivered=1, lost=1), id="delivered, and the ledger does not know"),
        pytest.param(["<a>"], FAILED, replace(ONE, delivered=1, logged=1, lost=1), id="failed, and delivered"),
        pytest.param(
            ["<a>"], replace(FAILED, unknown=1), replace(ONE, delivered=1, logged=1), id="failed, perhaps delivered"
        ),
        pytest.param(
            ["<a>", "<a>"], replace(SENT, unknown=1), replace(ONE, delivered=1, doubled=1), id="doubled and marked"
        ),
        pytest.param(["<a>", "<a>"], SENT, replace(ONE, delivered=1, doubled=1, unmarked=1), id="doubled"),
        pytest.param(
            ["<a>"] * 3, replace(SENT, unknown=1), replace(ONE, delivered=1, doubled=1, unmarked=1), id="once too often"
        ),
        pytest.param(
            ["<a>", "<b>"],
            replace(SENT, unknown=1),
            replace(ONE, delivered=1, doubled=1, unmarked=1),
            id="as two mails",
        ),
    ],
)
def test_every_end_of_a_mail_is_counted(copies: list[str | None], known: Known | None, expected: Tally) -> None:
    tally = count(["mail"], [], {"mail": copies} if copies else {}, {"mail": known} if known else {})

    assert replace(tally, wrong=()) == expected
    assert tally.is_sound == (not expected.lost and not expected.unmarked)
    assert bool(tally.wrong) == (not tally.is_sound)


def test_a_mail_that_comes_though_its_caller_was_told_that_nobody_has_it_is_wrong() -> None:
    tally = count([], ["mail"], {"mail": ["<a>"]}, {"mail": SENT})

    assert tally == Tally(denied=1, wrong=("mail",))
    assert not tally.is_sound


def test_two_counts_add_up() -> None:
    tally = Tally(accepted=2, delivered=1, lost=1, wrong=("a",)) + Tally(accepted=3, delivered=3, doubled=1)

    assert tally == Tally(accepted=5, delivered=4, lost=1, doubled=1, wrong=("a",))
