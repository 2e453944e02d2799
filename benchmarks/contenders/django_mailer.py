"""django-mailer on SQLite, with one process: it has no more."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management import call_command

from benchmarks.messages import as_email

from .place import OneByOne, Place


def prepare(_place: Place) -> None:
    """Leave an empty, migrated database."""
    call_command("migrate", verbosity=0)


class Client(OneByOne):
    """Writes rows, by Django's own functions."""

    def one(self, message: dict[str, Any]) -> None:
        as_email(message).send()


def workers(_place: Place) -> list[list[str]]:
    """Give the commands that deliver."""
    return [[sys.executable, "-m", "django", "send_mail"]]
