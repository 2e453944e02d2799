"""mail_service: quorum queues, confirms, the ledger and the error log on SQLite, all on."""

from __future__ import annotations

import sys
from typing import Any

import yaml
from kombu import Connection

from mail_service import topology
from mail_service.client import MailClient

from .place import Place

SMTP = "django.core.mail.backends.smtp.EmailBackend"


def prepare(place: Place) -> None:
    """Leave an empty queue, and the configuration."""
    with Connection(place.amqp_uri) as connection:
        topology.declare_lane(connection, "normal")
    options = {"host": "127.0.0.1", "port": place.smtp_port}
    config = {
        "AMQP_URI": place.amqp_uri,
        "max_workers": 50,
        "LOGGING": {"version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING"}},
        "mail": {
            "database": f"sqlite:///{place.folder / 'ours.db'}",
            "mailers": {"default": {"BACKEND": SMTP, "OPTIONS": options}},
            "schedules": {"storm": {"schedule": [2000], "limit": 20}},
            "backoff": {"submit": "storm"},
        },
    }
    (place.folder / "ours.yaml").write_text(yaml.safe_dump(config))


class Client:
    """Hands mail in."""

    def __init__(self, place: Place) -> None:
        self._client = MailClient(place.amqp_uri, timeout=60)

    def one(self, message: dict[str, Any]) -> None:
        """Return when it is accepted."""
        self._client.submit(message)

    def many(self, messages: list[dict[str, Any]]) -> None:
        """Return when all are accepted."""
        self._client.submit_many(messages)


def workers(place: Place) -> list[list[str]]:
    """Give the commands that deliver."""
    config = str(place.folder / "ours.yaml")
    return [[sys.executable, "-m", "mail_service.cli", "run", "--config", config, "--processes", str(place.processes)]]
