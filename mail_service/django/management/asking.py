"""What the commands that ask the running service have in common."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from mail_service.client import MailClient
from mail_service.django.backend import EmailBackend
from mail_service.django.checks import uses_our_backend
from mail_service.errors import MailServiceError

#: seconds to wait for an answer; deleting many entries takes its time
TIMEOUT_S = 60.0


class AskingCommand(BaseCommand):
    """A command whose ``ask`` gets the client and returns what to print. Ends with status 1 when there is no answer."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--using", metavar="ALIAS", help="The entry of MAILERS whose service is meant.")
        # crontabs written for django-mailer may still have it
        parser.add_argument("-c", "--cron", type=int, default=0, help="Ignored.")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            client = _backend(options["using"]).client
            if not client.is_running():
                raise CommandError(
                    "The mail service is not running on this broker: start it with `mail-service run`. "
                    "What is handed in meanwhile waits in RabbitMQ."
                )
            answer = self.ask(client, options)
        except (MailServiceError, ImproperlyConfigured) as exc:
            raise CommandError(str(exc)) from exc
        self.stdout.write(answer)

    def ask(self, client: MailClient, options: dict[str, Any]) -> str:
        """Do it, and say what was done."""
        raise NotImplementedError


def _backend(alias: str | None) -> EmailBackend:
    """The entry of MAILERS, by default the default one where that is ours; else what ``MAIL_SERVICE`` says."""
    entries = getattr(django_settings, "MAILERS", None) or {}
    if alias is None and not uses_our_backend(entries.get("default")):
        return EmailBackend()
    if alias is not None and not uses_our_backend(entries.get(alias)):
        raise CommandError(f"MAILERS has no entry {alias!r} that uses the mail service.")
    from django.core.mail import mailers  # noqa: PLC0415  # from Django 6.1 on, as MAILERS

    backend: EmailBackend = mailers[alias or "default"]
    return backend
