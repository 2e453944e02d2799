"""mail_service: quorum queues, confirms, the ledger and the error log on SQLite, all on."""

from __future__ import annotations

from typing import Any

from kombu import Connection

from benchmarks.servers import command, smtp_mailer
from mail_service import topology
from mail_service.client import MailClient

from .place import Place


def prepare(place: Place) -> None:
    """Leave an empty queue."""
    with Connection(place.amqp_uri) as connection:
        topology.declare_lane(connection, "normal")


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
    schedules = {"storm": {"schedule": [2000], "limit": 20}}
    return [
        command(
            place.amqp_uri,
            place.folder,
            {"default": smtp_mailer(place.smtp_port)},
            processes=place.processes,
            workers=50,
            schedules=schedules,
            backoff={"submit": "storm"},
        )
    ]
