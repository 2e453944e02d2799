"""Mails, changes and attempts for ledger tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mail_service import clock
from mail_service.envelope import seal
from mail_service.ledger.records import Attempt, Change, Copy, Mail, recipient
from mail_service.outcome import Status
from tests.support.messages import a_message


def a_mail(**changes: Any) -> Mail:
    """A mail to ann that was just accepted."""
    moment = clock.now_iso()
    facts: dict[str, Any] = {
        "id": "mail",
        "status": Status.QUEUED,
        "mailer": "default",
        "digest": "d" * 64,
        "recipients": {"Ann@example.org": recipient(Status.QUEUED)},
        "submitted_at": moment,
        "updated_at": moment,
    }
    return Mail(**facts | changes)


def a_copy(
    *, redelivered: bool = False, replay: bool = False, slots: Mapping[str, int] | None = None, **changes: Any
) -> Copy:
    return Copy(mail=a_mail(**changes), redelivered=redelivered, replay=replay, slots=slots or {})


def in_status(status: str, **changes: Any) -> Mail:
    """The mail after an attempt that left it in *status*."""
    recipients = {"Ann@example.org": recipient(Status(status))}
    return a_mail(**{"status": Status(status), "attempts": 1, "generation": 1, "recipients": recipients} | changes)


def a_change(mail: Mail, *, diagnosis: str | None = "transient", content: bytes | None = None) -> Change:
    """What an attempt made of *mail*; None is a change without one."""
    attempt = Attempt(
        at=clock.now_iso(),
        mailer=mail.mailer,
        diagnosis=diagnosis or "",
        text="450 later",
        milliseconds=12,
        recipients=mail.recipients,
    )
    kept = None if mail.status == Status.SENT else content or seal(a_message(), {}, door="submit").body()
    return Change(mail=mail, attempts=[attempt] if diagnosis else [], content=kept)
