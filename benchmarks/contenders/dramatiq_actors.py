"""A dramatiq actor over RabbitMQ, with publisher confirms."""

from __future__ import annotations

import smtplib
import sys
from typing import Any

import django
import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.messages import as_email

from .place import OneByOne, Place

QUEUE = "bench-dramatiq"
django.setup()
# pika takes the second slash for the name of a virtual host, and kombu for the default one
_URL = Place.here().amqp_uri.removesuffix("//") + "/%2F"
dramatiq.set_broker(RabbitmqBroker(url=_URL, confirm_delivery=True))


@dramatiq.actor(queue_name=QUEUE, max_retries=20)
def send(message: dict[str, Any]) -> None:
    """Send one mail."""
    try:
        as_email(message).send()
    except (smtplib.SMTPException, OSError) as exc:
        raise dramatiq.errors.Retry(str(exc), delay=2000) from exc


def prepare(_place: Place) -> None:
    """Leave an empty queue."""
    send.broker.declare_queue(QUEUE, ensure=True)


class Client(OneByOne):
    """Hands messages in."""

    def one(self, message: dict[str, Any]) -> None:
        send.send(message)


def workers(place: Place) -> list[list[str]]:
    """Give the commands that deliver."""
    return [[sys.executable, "-m", "dramatiq", __name__, "--processes", str(place.processes), "--threads", "8"]]
