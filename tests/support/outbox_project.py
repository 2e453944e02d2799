"""
A Django project with an outbox: its settings, and its ``manage.py`` (``python -m tests.support.outbox_project check``).

``PROJECT`` in the environment has, as JSON, what goes into the settings. ``CRASH_AT`` ends a process as kill -9 does:

    claimed     rows are claimed, and nothing was handed over
    confirmed   RabbitMQ has confirmed, and no row is deleted yet
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

globals().update(json.loads(os.environ.get("PROJECT", "{}")))

INSTALLED_APPS = ["mail_service.django", "mail_service.django.outbox"]
DATABASE_ROUTERS = ["tests.support.outbox_project.Router"]
USE_TZ = True
SECRET_KEY = "for tests"
LOGGING_CONFIG = None


class Router:
    """The outbox lives in the database ``outbox``, and nothing else does."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "outbox" if model._meta.app_label == "mail_service_outbox" else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return db == "outbox" if app_label == "mail_service_outbox" else None


def _crash(*_args: Any, **_kwargs: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.support.outbox_project"
    import django

    django.setup()
    from django.core.management import execute_from_command_line

    from mail_service.client import MailClient
    from mail_service.django.outbox import claiming, handing

    claiming.MARGIN_S = 0.5
    match os.environ.get("CRASH_AT"):
        case "claimed":
            MailClient.submit_many = _crash  # type: ignore[method-assign,assignment]
        case "confirmed":
            handing.settle = _crash
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
