"""``manage.py send_mail``, as django-mailer has it: here it looks whether somebody sends."""

from __future__ import annotations

from typing import Any

from mail_service.client import MailClient
from mail_service.django.management.asking import AskingCommand


class Command(AskingCommand):
    """Nothing is to be drained: the service sends each mail when it comes. Status 1 when no service is running."""

    help = (
        "For those who come from django-mailer: sends nothing, since the mail service does that by itself, but ends "
        "with status 1 when the service is not running."
    )

    def ask(self, client: MailClient, options: dict[str, Any]) -> str:  # noqa: ARG002
        return (
            "Nothing to do: the mail service is running and sends each mail as it comes. To try again now what waits "
            "for its next attempt, use retry_deferred."
        )
