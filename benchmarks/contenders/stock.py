"""
The smallest service of nameko and nameko-amqp-retry that keeps its SMTP connections: no ledger, no error log, classic
queues, and the losses that `tests/hazards` shows.
"""

from __future__ import annotations

import smtplib
import sys
from typing import Any

import django
import yaml
from django.core.mail import get_connection
from kombu import Connection, Queue
from nameko.standalone.events import event_dispatcher, get_event_exchange
from nameko_amqp_retry import entrypoint_retry
from nameko_amqp_retry.events import event_handler

from benchmarks.messages import as_email

from .place import OneByOne, Place

SOURCE, EVENT = "bench", "send"
_idle: list[Any] = []


class StockMailer:
    """Sends what comes by event."""

    name = "stock_mailer"

    @event_handler(SOURCE, EVENT)
    @entrypoint_retry(retry_for=(smtplib.SMTPException, OSError), schedule=(2000,), limit=20)
    def send(self, message: dict[str, Any]) -> None:
        """Send one mail over a connection that nobody uses."""
        connection = _idle.pop() if _idle else get_connection()
        try:
            connection.open()
            as_email(message, connection).send()
        except smtplib.SMTPResponseException:
            # smtplib has sent RSET, so the connection is good
            _idle.append(connection)
            raise
        except BaseException:
            connection.close()
            raise
        _idle.append(connection)


def prepare(place: Place) -> None:
    """Leave an empty queue, as the service would declare it, and the configuration."""
    queue = Queue(
        f"evt-{SOURCE}-{EVENT}--{StockMailer.name}.send",
        exchange=get_event_exchange(SOURCE, {}),
        routing_key=EVENT,
        durable=True,
    )
    with Connection(place.amqp_uri) as connection:
        queue(connection.channel()).declare()
    config = {
        "AMQP_URI": place.amqp_uri,
        "max_workers": 10,
        "LOGGING": {"version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING"}},
    }
    (place.folder / "stock.yaml").write_text(yaml.safe_dump(config))


class Client(OneByOne):
    """Dispatches events, with confirms."""

    def __init__(self, place: Place) -> None:
        self._dispatch = event_dispatcher({"AMQP_URI": place.amqp_uri})

    def one(self, message: dict[str, Any]) -> None:
        self._dispatch(SOURCE, EVENT, message)


def workers(place: Place) -> list[list[str]]:
    """Give the commands that deliver."""
    command = [sys.executable, "-m", "nameko", "run", "--config", str(place.folder / "stock.yaml"), __name__]
    return [command] * place.processes


django.setup()
