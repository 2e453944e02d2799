"""``manage.py runmailer``, as django-mailer has it: says what replaces it."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    """Always ends with status 1: who supervises it has to start the service instead."""

    help = "For those who come from django-mailer: explains what to run instead."
    requires_system_checks = ()

    def handle(self, *_args: Any, **_options: Any) -> None:
        raise CommandError(
            "There is no mailer to run inside Django: the mail service, a process of its own, sends the mail. Have "
            "your supervisor start `mail-service run --config config.yaml` instead."
        )
