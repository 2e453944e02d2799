"""django-post_office on SQLite, as its documentation says how to make it fast: large batches, threads, few logs."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management import call_command
from post_office import mail

from .place import Place


def prepare(_place: Place) -> None:
    """Leave an empty, migrated database."""
    call_command("migrate", verbosity=0)


class Client:
    """Writes rows."""

    def __init__(self, _place: Place) -> None: ...

    def one(self, message: dict[str, Any]) -> None:
        mail.send(**_as_row(message))

    def many(self, messages: list[dict[str, Any]]) -> None:
        mail.send_many([_as_row(message) for message in messages])


def _as_row(message: dict[str, Any]) -> dict[str, Any]:
    return {
        "sender": message["from_email"],
        "recipients": message["to"],
        "subject": message["subject"],
        "message": message["body"],
        "html_message": message["html"],
    }


def workers(place: Place) -> list[list[str]]:
    """Give the commands that deliver."""
    options = ["-p", str(place.processes), "-L", str(place.folder / "post_office.lock")]
    return [[sys.executable, "-m", "django", "send_queued_mail", *options]]
