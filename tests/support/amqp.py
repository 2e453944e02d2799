"""A plain kombu client: what the tests do to a broker from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import kombu
from kombu.simple import SimpleQueue

from mail_service.local.node import Node


@contextmanager
def connected(amqp_uri: str) -> Iterator[kombu.Connection]:
    """Connect, with confirms, and give up after ten seconds."""
    with kombu.Connection(amqp_uri, connect_timeout=10, transport_options={"confirm_publish": True}) as connection:
        yield connection


def quorum_queue(name: str) -> kombu.Queue:
    return kombu.Queue(name, durable=True, queue_arguments={"x-queue-type": "quorum"})


def put(amqp_uri: str, queue: kombu.Queue, *bodies: str) -> None:
    """Publish to *queue*, declared first, and return when the broker has confirmed each."""
    with connected(amqp_uri) as connection, connection.Producer() as producer:
        for body in bodies:
            producer.publish(
                body, exchange="", routing_key=queue.name, declare=[queue], delivery_mode=2, mandatory=True, timeout=10
            )


def take_all(amqp_uri: str, queue: kombu.Queue, count: int, *, timeout_s: float = 20) -> list[str]:
    """Take *count* messages from *queue*, acknowledged one by one."""
    with connected(amqp_uri) as connection:
        source = SimpleQueue(connection.default_channel, queue)
        taken = []
        for _ in range(count):
            message = source.get(timeout=timeout_s)
            message.ack()
            taken.append(str(message.payload))
        source.close()
        return taken


def is_on_disk(node: Node, queue: kombu.Queue) -> bool:
    """
    Tell whether a new quorum queue would survive ``kill9``.

    RabbitMQ writes a new queue's name to its directory about a second after it has confirmed the declaration and the
    first messages. A node that is killed before that has a queue nobody can use any more (seen on 3.10.8 and 4.0.5).
    """
    files = node.folder.glob("data/*/quorum/*/names.dets")
    return any(queue.name.encode() in file.read_bytes() for file in files)
