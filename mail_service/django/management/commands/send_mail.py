"""``manage.py send_mail``, as django-mailer has it: one pass, for cron."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.management import call_command

from mail_service.client import MailClient
from mail_service.django.management.asking import AskingCommand
from mail_service.django.settings import OUTBOX_APP


class Command(AskingCommand):
    """Hands over what is in the outbox, if there is one; the rest the service has already, and sends when it comes."""

    help = (
        "For those who come from django-mailer: hands the mails in the outbox over, where there is one. The mail "
        "service sends everything else by itself. Ends with status 1 when mails are left or the service is not running."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        if apps.is_installed(OUTBOX_APP):
            call_command("send_outbox", once=True, stdout=self.stdout, stderr=self.stderr)
        super().handle(*args, **options)

    def ask(self, client: MailClient, options: dict[str, Any]) -> str:  # noqa: ARG002
        return (
            "Nothing else to do: the mail service is running and sends each mail as it comes. To try again now what "
            "waits for its next attempt, use retry_deferred."
        )
