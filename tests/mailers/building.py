"""Builders, so that a test shows only what matters to it."""

from __future__ import annotations

from typing import Any

from django.core.mail import EmailMultiAlternatives

from mail_service.mailers import SMTP_BACKEND
from mail_service.outcome import Kind, Receipt
from mail_service.settings import MailerSettings

MESSAGE_ID = "<fixed@example.org>"


def an_email(*to: str, **attributes: Any) -> EmailMultiAlternatives:
    """A message as the service loads it: Message-ID and Date stand in its headers."""
    fields = {
        "subject": "Hello",
        "body": "How are you?",
        "from_email": "Sender <from@example.org>",
        "to": list(to),
        "headers": {"Message-ID": MESSAGE_ID, "Date": "Sun, 22 Nov 2026 10:00:00 +0000"},
    }
    given = {
        name: attributes.pop(name) for name in ("body", "cc", "bcc", "from_email", "subject") if name in attributes
    }
    fields["headers"] |= attributes.pop("headers", {})
    email = EmailMultiAlternatives(**fields | given)
    for name, value in attributes.items():
        setattr(email, name, value)
    return email


def settings_of(backend: str, /, **options: Any) -> MailerSettings:
    return MailerSettings(name="default", backend=backend, options=options)


def smtp_settings(port: int, **options: Any) -> MailerSettings:
    return settings_of(SMTP_BACKEND, host="127.0.0.1", port=port, **options)


def kinds(receipts: list[Receipt]) -> dict[str, Kind]:
    return {receipt.address: receipt.diagnosis.kind for receipt in receipts}
