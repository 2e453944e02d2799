"""Hazards 16 and 23 at once: neither the database nor the broker takes what came of an attempt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mail_service.ledger import Ledger, StoreDown
from mail_service.ledger.database import Database
from mail_service.ledger.records import Change, Copy, Granted, Mail, Outstanding, Superseded, recipient
from mail_service.outcome import Status

MAIL = Mail(
    id="1",
    status=Status.QUEUED,
    mailer="default",
    digest="d",
    recipients={"ann@example.org": recipient(Status.QUEUED)},
    submitted_at="2026-01-01T00:00:00.000000+00:00",
    updated_at="2026-01-01T00:00:00.000000+00:00",
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    database = Database(f"sqlite:///{tmp_path / 'mail.db'}")
    database.check()
    yield Ledger(database, attempt_timeout_s=120)
    database.close()


def _away(*_args: Any) -> NoReturn:
    raise StoreDown("away")


@pytest.mark.parametrize(("status", "claim"), [(Status.SENT, Superseded), (Status.DEFERRED, Outstanding)])
def test_what_came_of_an_attempt_is_not_forgotten(
    ledger: Ledger, status: Status, claim: type[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker gives the copy back: the mail is neither sent again nor taken to be in flight for ever."""
    assert isinstance(ledger.claim(Copy(mail=MAIL)), Granted)
    with monkeypatch.context() as outage:
        outage.setattr(ledger.database, "write", _away)
        with pytest.raises(StoreDown):
            ledger.record(Change(mail=replace(MAIL, status=status, attempts=1, generation=1)))
        with pytest.raises(StoreDown):
            ledger.claim(Copy(mail=MAIL, redelivered=True))

    again = ledger.claim(Copy(mail=MAIL, redelivered=True))

    assert isinstance(again, claim)
    found = ledger.find("1")
    assert found
    assert (found.status, found.attempts) == (status, 1)


def test_what_the_broker_carries_is_not_kept_here(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.claim(Copy(mail=MAIL))
    with monkeypatch.context() as outage:
        outage.setattr(ledger.database, "write", _away)
        with pytest.raises(StoreDown):
            ledger.record(Change(mail=replace(MAIL, status=Status.SENT, generation=1)))

    ledger.carried("1")

    ledger.claim(Copy(mail=MAIL, redelivered=True))
    found = ledger.find("1")
    assert found
    assert found.status == Status.QUEUED
