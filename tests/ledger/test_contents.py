"""What is kept of the content of a mail that is over, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from mail_service.envelope import Envelope, seal
from mail_service.ledger import Ledger, tables
from mail_service.ledger.contents import REDACTED, redacted
from mail_service.ledger.database import Database
from mail_service.ledger.errorlog import ErrorLog
from mail_service.ledger.waiting import WaitingMail

from .building import a_change, a_copy, a_mail, in_status

MESSAGE: dict[str, Any] = {
    "subject": "Your results",
    "body": "They are bad.",
    "html": "<p>They are bad.</p>",
    "from_email": "lab@example.org",
    "to": ["Ann@example.org"],
    "headers": {"X-Case": "17"},
    "tags": ["results"],
    "track_opens": True,
    "alternatives": [{"content": "bad", "mimetype": "text/x-amp-html"}],
    "attachments": [{"filename": "results.pdf", "content": "YmFk", "mimetype": "application/pdf"}, {"mime": "YmFk"}],
    "merge_data": {"ann@example.org": {"result": "bad", "count": 2}},
    "send_at": None,
}
CONTENT = seal(MESSAGE, {"tenant": "clinic"}, door="submit").body()


def stored(database: Database, mail_id: str = "mail") -> bytes | None:
    query = sa.select(tables.mail.c.content).where(tables.mail.c.id == mail_id)
    content = database.read(lambda connection: connection.execute(query).scalar_one())
    return None if content is None else bytes(content)


def a_ledger(database: Database, content: Any) -> Ledger:
    return Ledger(database, attempt_timeout_s=120, keeps=lambda _mailer, _tenant: content)


def test_what_is_redacted_has_kept_its_form_and_says_nothing() -> None:
    left = Envelope.parse(redacted(CONTENT) or b"")

    assert left.redacted
    assert left.options == {"tenant": "clinic"}
    assert left.message == {
        "subject": REDACTED,
        "body": REDACTED,
        "html": REDACTED,
        "from_email": "lab@example.org",
        "to": ["Ann@example.org"],
        "headers": {"X-Case": REDACTED},
        "tags": ["results"],
        "track_opens": True,
        "alternatives": [{"content": REDACTED, "mimetype": "text/x-amp-html"}],
        "attachments": [
            {"filename": REDACTED, "content": REDACTED, "mimetype": "application/pdf"},
            {"mime": REDACTED},
        ],
        "merge_data": {"ann@example.org": {"result": REDACTED, "count": REDACTED}},
        "send_at": None,
    }


def test_nothing_is_left_of_what_is_no_envelope() -> None:
    assert redacted(b"\xff\xfe") is None


@pytest.mark.parametrize(
    ("content", "status", "kept"),
    [
        ("keep", "failed", CONTENT),
        ("redact", "failed", redacted(CONTENT)),
        ("drop", "failed", None),
        ("drop", "expired", None),
        ("drop", "deferred", CONTENT),
        ("redact", "held", CONTENT),
    ],
)
def test_a_mail_that_is_over_keeps_what_is_wanted_and_one_on_its_way_all(
    database: Database, content: str, status: str, kept: bytes | None
) -> None:
    ledger = a_ledger(database, content)
    ledger.claim(a_copy())

    ledger.record(a_change(in_status(status), content=CONTENT))

    assert stored(database) == kept


@pytest.mark.parametrize(("content", "kept"), [("keep", CONTENT), ("redact", redacted(CONTENT)), ("drop", None)])
def test_a_cancelled_mail_keeps_what_is_wanted_whenever_its_content_comes(
    database: Database, content: Any, kept: bytes | None
) -> None:
    ledger = a_ledger(database, content)
    waiting = WaitingMail(database, keeps=lambda _mailer, _tenant: content)
    ledger.claim(a_copy())
    ledger.record(a_change(in_status("deferred"), content=CONTENT))
    ledger.accept(a_mail(id="unseen"))

    waiting.cancel("mail")
    waiting.cancel("unseen")
    ledger.accept(a_mail(id="unseen"), CONTENT)

    assert [stored(database), stored(database, "unseen")] == [kept, kept]


def test_the_error_log_shows_what_is_left(database: Database) -> None:
    ledger, error_log = a_ledger(database, "redact"), ErrorLog(database)
    ledger.claim(a_copy())
    ledger.record(a_change(in_status("failed"), content=CONTENT))

    entry = error_log.entry("mail")

    assert entry["message"]["subject"] == REDACTED
    assert entry["attempts"][0]["text"] == "450 later"
