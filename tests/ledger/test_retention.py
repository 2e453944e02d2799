"""Passes that delete what is old: by one process of many, in slices, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from mail_service import clock
from mail_service.ledger import Ledger, tables
from mail_service.ledger.chores import Chore
from mail_service.ledger.database import Database
from mail_service.ledger.records import Granted, Suppression
from mail_service.ledger.suppressions import Suppressions
from mail_service.outcome import FINAL, Status
from mail_service.retention import LEASE_S, Lost, Passes
from mail_service.settings import Retention

from .building import a_change, a_copy, in_status

DAY = 86_400


@pytest.fixture
def other(url: str, database: Database) -> Any:
    """The database as another process has it."""
    database.check()
    other = Database(url)
    yield other
    other.close()


def passes(database: Database, sleep: Callable[[float], None] = lambda _seconds: None, **settings: Any) -> Passes:
    return Passes(Retention(**{"every": 3600.0, **settings}), database, sleep)


def as_another(monkeypatch: pytest.MonkeyPatch, name: str = "another/1/1") -> Any:
    @contextmanager
    def process() -> Any:
        with monkeypatch.context() as patch:
            patch.setattr("mail_service.ledger.owner.this_process", lambda: name)
            yield

    return process()


def old(days: float) -> str:
    return clock.iso(clock.later(-days * DAY))


def ids(database: Database, *where: Any) -> set[str]:
    query = sa.select(tables.mail.c.id).where(*where)
    return set(database.read(lambda connection: connection.execute(query).scalars().all()))


def test_each_status_is_kept_for_its_own_time_and_what_is_not_named_for_ever(
    ledger: Ledger, database: Database
) -> None:
    for status in Status:
        for days in (1, 20, 100):
            ledger.record(a_change(in_status(status, id=f"{status} {days}", updated_at=old(days))))

    swept = passes(database, records={"sent": 10.0, "failed": 50.0}).make_one()

    assert swept is not None
    assert swept.mails == 3
    left = {f"{status} {days}" for status in Status for days in (1, 20, 100)}
    assert ids(database) == left - {"sent 20", "sent 100", "failed 100"}


def test_content_is_dropped_before_the_record_and_never_while_a_mail_is_on_its_way(
    ledger: Ledger, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mail_service.ledger.purging.CONTENT_SLICE", 2)
    monkeypatch.setattr("mail_service.ledger.purging.READ_SLICE", 3)
    for status in Status:
        ledger.record(a_change(in_status(status, id=f"{status} new", updated_at=old(1))))
        for number in range(7):
            ledger.record(a_change(in_status(status, id=f"{status} {number}", updated_at=old(20))))

    swept = passes(database, content_days=10.0).make_one()

    over = {str(status) for status in FINAL} - {"sent"}
    assert swept is not None
    assert (swept.mails, swept.contents) == (0, 7 * len(over))
    assert ids(database, tables.mail.c.content.is_(None)) == {
        *(f"{status} {number}" for status in over for number in range(7)),
        *(f"sent {number}" for number in range(7)),
        "sent new",
    }


def test_entries_whose_time_is_over_leave_the_list(database: Database) -> None:
    listed = Suppressions(database)
    entry = {"since": old(9), "reason": "bounced"}
    listed.put([Suppression(address=f"{n}@example.org", until=old(1), **entry) for n in range(250)])
    listed.put([Suppression(address="ann@example.org", until=old(-1), **entry)])
    listed.put([Suppression(address="bob@example.org", **entry)])

    swept = passes(database, records={"sent": 1.0}).make_one()

    assert swept is not None
    assert swept.suppressions == 250
    assert [each.address for each in listed.page(10, None)] == ["ann@example.org", "bob@example.org"]


def test_one_process_of_two_makes_the_pass(
    database: Database, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = passes(database, records={"sent": 1.0})
    with as_another(monkeypatch):
        second = passes(other, records={"sent": 1.0})

    made = [first.make_one(), second.make_one(), first.make_one()]

    assert [swept is not None for swept in made] == [True, False, False]


def test_a_pass_that_is_being_made_is_nobody_elses_and_is_taken_over_from_one_that_died(
    database: Database, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Chore(database, "retention", every_s=3600, lease_s=LEASE_S)
    with as_another(monkeypatch):
        living = Chore(other, "retention", every_s=3600, lease_s=LEASE_S)

    assert dead.take()
    assert not living.take()
    # as its lease is once it is over
    Chore(database, "retention", every_s=3600, lease_s=0.0).keep()
    assert living.take()
    assert not dead.keep()


def test_a_pass_that_was_taken_over_ends(ledger: Ledger, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.record(a_change(in_status("sent", updated_at=old(20))))

    def stolen(_seconds: float) -> None:
        thief = sa.update(tables.chore).values(owner="another/1/1")
        database.write(lambda connection, items: [connection.execute(thief) for _ in items], None)

    pass_ = passes(database, stolen, records={"sent": 10.0})
    monkeypatch.setattr("mail_service.retention.LEASE_S", 0.0)

    with pytest.raises(Lost):
        pass_.make_one()


def test_a_claim_is_answered_between_the_slices_of_a_pass(
    ledger: Ledger, database: Database, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mail_service.ledger.purging.WRITE_SLICE", 1)
    for number in range(3):
        ledger.record(a_change(in_status("sent", id=f"old {number}", updated_at=old(20))))
    elsewhere = Ledger(other, attempt_timeout_s=120)
    claims: list[Any] = []

    def meanwhile(_seconds: float) -> None:
        claims.append(elsewhere.claim(a_copy(id=f"new {len(claims)}")))

    passes(database, meanwhile, records={"sent": 10.0}).make_one()

    assert len(claims) >= 3
    assert {type(claim) for claim in claims} == {Granted}


def test_a_row_that_is_locked_is_passed_over(postgresql_url: str) -> None:
    """Where rows are locked at all: SQLite locks the whole file, for a slice."""
    database = Database(postgresql_url)
    ledger = Ledger(database, attempt_timeout_s=120)
    for number in range(3):
        ledger.record(a_change(in_status("failed", id=f"old {number}", updated_at=old(20))))
    engine = sa.create_engine(postgresql_url)

    with engine.begin() as replaying:
        replaying.execute(sa.select(tables.mail).where(tables.mail.c.id == "old 1").with_for_update())
        swept = passes(database, records={"failed": 10.0}).make_one()

    assert swept is not None
    assert swept.mails == 2
    assert ids(database) == {"old 1"}
    engine.dispose()
    database.close()
