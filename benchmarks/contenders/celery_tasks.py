"""A Celery task: late acknowledgements, rejected when its worker is lost, publisher confirms."""

from __future__ import annotations

import smtplib
import sys
from typing import Any

import django
from celery import Celery

from benchmarks.messages import as_email

from .place import OneByOne, Place

_PLACE = Place.here()

django.setup()
app = Celery("bench", broker=_PLACE.amqp_uri)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    task_default_queue="bench-celery",
    broker_transport_options={"confirm_publish": True},
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


@app.task(autoretry_for=(smtplib.SMTPException, OSError), retry_kwargs={"max_retries": 20, "countdown": 2})
def send(message: dict[str, Any]) -> None:
    """Send one mail."""
    as_email(message).send()


def prepare(_place: Place) -> None:
    """Leave an empty queue."""
    with app.connection_for_write() as connection:
        app.amqp.queues["bench-celery"](connection.channel()).declare()


class Client(OneByOne):
    """Hands tasks in."""

    def one(self, message: dict[str, Any]) -> None:
        send.delay(message)


def workers(place: Place) -> list[list[str]]:
    """Give the commands that deliver."""
    options = ["-l", "WARNING", "-n", "bench@localhost", "-P", "prefork", "-c", str(place.processes)]
    return [[sys.executable, "-m", "celery", "-A", __name__, "worker", *options]]
