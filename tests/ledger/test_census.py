"""What is said about mail that waits, from both databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mail_service import clock
from mail_service.ledger import Ledger, StoreDown
from mail_service.ledger.database import Database
from mail_service.ledger.holdings import Hold, Reason
from mail_service.ledger.pauses import Pause
from mail_service.limits.keys import HELD_BY_A_LIMIT
from mail_service.web.census import Waiting, ask_database

from .building import a_change, a_copy, a_mail, in_status

HOUR_S = 3600


def ago(seconds: float) -> str:
    return clock.iso(clock.later(-seconds))


def look(database: Database, *holds: Hold) -> Waiting:
    found = ask_database(database, lambda: holds)
    assert found is not None
    return found


def a_hold(mailer: str, reason: Reason, sender: str = "") -> Hold:
    return Hold(mailer=mailer, sender=sender, reason=reason, text="no", since=ago(5), until=ago(0))


def bring(ledger: Ledger, mail_id: str, status: str, **changes: Any) -> None:
    """A mail that was attempted and is in *status*."""
    ledger.claim(a_copy(id=mail_id, **changes))
    ledger.record(a_change(in_status(status, id=mail_id, **changes)))


def test_an_empty_ledger_has_zeros(database: Database) -> None:
    found = look(database)

    assert found.mails["high", "queued"] == 0
    assert set(found.held) == {"configuration", "throttled", "down", "paused", "limit", "mail"}
    assert found.oldest_s == {"high": 0, "normal": 0, "bulk": 0}


def test_mail_that_waits_is_counted_by_lane_and_status(database: Database, ledger: Ledger) -> None:
    ledger.accept(a_mail(id="new"))
    bring(ledger, "late", "deferred", priority="bulk")
    bring(ledger, "done", "sent")
    bring(ledger, "lost", "failed")

    counted = {key: count for key, count in look(database).mails.items() if count}

    assert counted == {("normal", "queued"): 1, ("bulk", "deferred"): 1}


@pytest.mark.parametrize(
    ("holds", "reason"),
    [
        pytest.param([], "mail", id="alone"),
        pytest.param([a_hold("default", Reason.THROTTLED)], "throttled", id="with its mailer"),
        pytest.param([a_hold("other", Reason.DOWN)], "mail", id="another mailer"),
        pytest.param([a_hold("default/acme", Reason.DOWN)], "down", id="with its tenant's mailer"),
        pytest.param(
            [a_hold("default", Reason.CONFIGURATION, sender="a@example.org")], "configuration", id="a sender's"
        ),
        pytest.param(
            [a_hold("default", Reason.DOWN), a_hold("default", Reason.CONFIGURATION, sender="a@example.org")],
            "down",
            id="the mailer before its senders",
        ),
    ],
)
def test_held_mail_is_counted_by_what_holds_it(
    database: Database, ledger: Ledger, holds: Sequence[Hold], reason: str
) -> None:
    bring(ledger, "held", "held", tenant="acme")

    assert {name for name, count in look(database, *holds).held.items() if count} == {reason}


def test_held_mail_that_somebody_paused_is_counted_as_that(database: Database, ledger: Ledger) -> None:
    pause = Pause(mailer="default", since=ago(5))
    ledger.claim(a_copy(id="held"))
    ledger.record(a_change(in_status("held", id="held", error=pause.text)))

    assert look(database, a_hold("default", Reason.DOWN)).held["paused"] == 1


def test_held_mail_that_is_over_a_limit_is_counted_as_that(database: Database, ledger: Ledger) -> None:
    ledger.claim(a_copy(id="held"))
    ledger.record(a_change(in_status("held", id="held", error=f"{HELD_BY_A_LIMIT} mailer default: 1 a day")))

    assert look(database, a_hold("default", Reason.DOWN)).held["limit"] == 1


def test_the_oldest_is_told_by_lane_without_what_waits_for_its_time(database: Database, ledger: Ledger) -> None:
    ledger.accept(a_mail(id="old", submitted_at=ago(HOUR_S)))
    ledger.accept(a_mail(id="young", submitted_at=ago(1)))
    later = clock.iso(clock.later(HOUR_S))
    ledger.accept(a_mail(id="timed", priority="bulk", submitted_at=ago(HOUR_S), next_attempt_at=later))

    found = look(database).oldest_s

    assert HOUR_S <= found["normal"] < 2 * HOUR_S
    assert found["bulk"] == 0


def test_a_database_that_is_away_is_no_answer(database: Database) -> None:
    def broken() -> Sequence[Hold]:
        raise StoreDown

    assert ask_database(database, broken) is None
