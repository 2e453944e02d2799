"""``manage.py retry_deferred``, as django-mailer has it."""

from __future__ import annotations

from typing import Any

from mail_service.client import MailClient
from mail_service.django.management.asking import TIMEOUT_S, AskingCommand


class Command(AskingCommand):
    """The service retries by itself; this does not wait for it."""

    help = "Attempt all mail that waits (deferred or held) now, instead of when its schedule says."

    def ask(self, client: MailClient, options: dict[str, Any]) -> str:  # noqa: ARG002
        count = client.call("retry_now", timeout=TIMEOUT_S)
        return f"{count} message(s) retried"
