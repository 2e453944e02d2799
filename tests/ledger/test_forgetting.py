"""A recipient is forgotten in every mail that is over, and in no other, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from mail_service.ledger import Ledger, tables
from mail_service.ledger.database import Database
from mail_service.ledger.errorlog import ErrorLog, Filter
from mail_service.ledger.forgetting import READ_SLICE, forget
from mail_service.ledger.records import RAW, Superseded, recipient
from mail_service.outcome import Status

from .building import a_change, a_copy, a_mail, in_status


def everything(database: Database) -> str:
    """Every value of every row."""

    def read(connection: sa.Connection) -> str:
        return "\n".join(
            str([bytes(value) if isinstance(value, memoryview) else value for value in row])
            for table in tables.metadata.sorted_tables
            for row in connection.execute(sa.select(table))
        ).lower()

    return str(database.read(read))


def finish(ledger: Ledger, status: str, **facts: Any) -> None:
    ledger.claim(a_copy(**{name: facts[name] for name in ("id",) if name in facts}))
    ledger.record(a_change(in_status(status, **facts)))


@pytest.mark.parametrize("status", ["sent", "failed", "expired", "discarded", "suppressed", "partly_sent"])
def test_nothing_of_a_recipient_is_left(status: str, database: Database, ledger: Ledger, error_log: ErrorLog) -> None:
    recipients = {
        "Ann@example.org": recipient(Status.FAILED, message_id="<ann-1>", detail="550 no ANN@example.org"),
        "bob@example.org": recipient(Status.SENT, message_id="<bob-1>", detail="250 ok, and ann@example.org too"),
    }
    finish(ledger, status, recipients=recipients, error="550 no <ann@EXAMPLE.org> here")

    assert forget(database, "ann@example.org") == 1

    left = everything(database)
    assert "ann" not in left
    found = ledger.find("mail")
    assert found is not None
    assert found.status == status
    assert found.recipients == {
        "forgotten-1@redacted.invalid": recipient(Status.FAILED, detail="[forgotten]"),
        "bob@example.org": recipient(Status.SENT, message_id="<bob-1>", detail="250 ok, and [forgotten] too"),
    }
    assert error_log.find(Filter(recipient="ann@example.org")) == []
    assert forget(database, "ann@example.org") == 0


@pytest.mark.parametrize("status", ["deferred", "held"])
def test_mail_on_its_way_is_left_alone(status: str, database: Database, ledger: Ledger) -> None:
    finish(ledger, status)
    ledger.accept(a_mail(id="queued"))
    before = everything(database)

    assert forget(database, "ann@example.org") == 0

    assert everything(database) == before


def test_mail_of_others_is_left_alone(database: Database, ledger: Ledger) -> None:
    finish(ledger, "failed", recipients={"joann@example.org": recipient(Status.FAILED, detail="550 joann@example.org")})
    before = everything(database)

    assert forget(database, "ann@example.org") == 0

    assert everything(database) == before


def test_several_are_forgotten_in_one_mail(database: Database, ledger: Ledger) -> None:
    people = ("ann@example.org", "ANN@example.org", "bob@example.org")
    finish(ledger, "failed", recipients={person: recipient(Status.FAILED) for person in people})

    forget(database, "ann@example.org")
    forget(database, "bob@example.org")

    found = ledger.find("mail")
    assert found is not None
    assert list(found.recipients) == [f"forgotten-{n}@redacted.invalid" for n in (1, 2, 3)]


def test_what_was_no_mail_is_found_by_its_bytes(database: Database, ledger: Ledger) -> None:
    for name, body in {"about": b'{"to": "Ann@Example.org"', "other": b'{"to": "bob@example.org"'}.items():
        mail = in_status("failed", id=name, door=RAW, recipients={})
        ledger.record(a_change(mail, content=body))

    assert forget(database, "ann@example.org") == 1

    assert "ann@" not in everything(database)
    assert "bob@" in everything(database)


def test_more_mail_than_one_slice(database: Database, ledger: Ledger) -> None:
    count = READ_SLICE + 5
    mails = [in_status("sent", id=f"{n:05}") for n in range(count)]

    def insert(connection: sa.Connection, batches: Any) -> list[None]:
        from mail_service.ledger.ledger import values_of

        connection.execute(sa.insert(tables.mail), [values_of(mail) for mail in mails])
        return [None] * len(batches)

    database.write(insert, None)

    assert forget(database, "ann@example.org") == count


def test_a_late_copy_brings_nothing_back(database: Database, ledger: Ledger) -> None:
    finish(ledger, "discarded")
    forget(database, "ann@example.org")

    claim = ledger.claim(a_copy())

    assert isinstance(claim, Superseded)
    assert not claim.wants_content
    ledger.accept(a_mail(), b"the content again")
    assert "again" not in everything(database)
