"""What became of a mail, in the words that a message carries afterwards: ours, and Anymail's where it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.mail import EmailMessage

#: Anymail's words. What the service still tries is not "sent" yet
_ANYMAIL = {
    "queued": "queued",
    "deferred": "queued",
    "held": "queued",
    "sent": "sent",
    "failed": "failed",
    "expired": "failed",
    "discarded": "failed",
    "suppressed": "rejected",
}


def note(email: EmailMessage, answer: Mapping[str, Any] | None) -> None:
    """Give *email* its ``mail_service_status``: the answer of ``submit``, the record, or the id and the error."""
    email.mail_service_status = answer


def note_record(email: EmailMessage, record: Mapping[str, Any]) -> None:
    """Give *email* the record, and Anymail's form of it."""
    note(email, record)
    if (status := _anymail_status(record)) is not None:
        email.anymail_status = status


def _anymail_status(record: Mapping[str, Any]) -> Any:
    try:
        from anymail.message import AnymailRecipientStatus, AnymailStatus  # noqa: PLC0415  # not everybody has it
    except ImportError:
        return None
    status = AnymailStatus()
    status.set_recipient_status(
        {
            address: AnymailRecipientStatus(state.get("message_id"), _ANYMAIL.get(state.get("status"), "unknown"))
            for address, state in record["recipients"].items()
        }
    )
    return status
