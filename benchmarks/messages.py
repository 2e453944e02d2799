"""The mail that all contenders send: about 2 kB of text and html."""

from __future__ import annotations

from typing import Any

import django
from django.core.mail import EmailMultiAlternatives


def a_message(name: object) -> dict[str, Any]:
    """Give the message to *name*, as our own clients take it."""
    text = f"Hello {name},\n" + "This is a line of text in an ordinary mail.\n" * 15
    return {
        "subject": f"Benchmark {name}",
        "body": text,
        "html": f"<p>{text}</p>",
        "from_email": "sender@example.org",
        "to": [f"{name}@example.org"],
    }


def as_email(message: dict[str, Any], connection: Any = None) -> EmailMultiAlternatives:
    """Give the same as Django's message."""
    email = EmailMultiAlternatives(
        message["subject"], message["body"], message["from_email"], message["to"], connection=connection
    )
    email.attach_alternative(message["html"], "text/html")
    return email


def as_bytes(message: dict[str, Any]) -> bytes:
    """Give the same as it goes to an SMTP server."""
    built = as_email(message).message()
    # Django 6's messages are Python's own, which end their lines by policy
    content: bytes = built.as_bytes(linesep="\r\n") if django.VERSION < (6, 0) else built.as_bytes()
    return content
