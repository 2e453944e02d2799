"""Runs retrying_service.py on either stack, and looks at what that leaves in the broker."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp
import pytest

from mail_service import topology
from mail_service.errors import NotFound
from mail_service.local.node import Node
from tests.support.amqp import connected
from tests.support.service import Service, configuration
from tests.support.waiting import eventually

from .stacks import fails_here

MODULE = "tests.hazards.retrying_service"
WORK = "hazard"
DECORATED = "hazard.decorated"


def stock(hazard: str, *values: object) -> Any:
    """The parameters of a test's run on the stock packages, where its assertion has to fail."""
    return pytest.param(*values, marks=fails_here(hazard))


class NotStarted(Exception):
    """The service under test did not get as far as the test: nothing that an expected failure may be."""


class Retrying(Service):
    """The service of retrying_service.py."""

    def __init__(self, stack: str, amqp_uri: str, folder: Path, **mail: Any) -> None:
        super().__init__(configuration(amqp_uri, folder, **mail), folder, module=MODULE)
        self.stack = stack
        self.amqp_uri = amqp_uri

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {"STACK": self.stack}

    def _answers(self) -> bool:
        return all(consumers(self.amqp_uri, queue) == 1 for queue in (WORK, DECORATED))

    def start(self, *, wait: bool = True) -> None:
        try:
            super().start(wait=wait)
        except AssertionError as error:
            raise NotStarted(self.log[-3000:]) from error

    def give(self, *bodies: Mapping[str, Any], queue: str = WORK) -> None:
        """Publish JSON messages."""
        publish(self.amqp_uri, queue, *(json.dumps(body).encode() for body in bodies))

    def attempts(self, message_id: str | None = None) -> list[float]:
        """When the message was attempted, seconds since the epoch; or any message."""
        path = self.folder / "attempts"
        lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
        return [line["at"] for line in lines if message_id in (None, line["id"])]


@contextlib.contextmanager
def begun(service: Service) -> Iterator[Service]:
    """A service that is not expected to answer, ended in whatever state it is."""
    service.start(wait=False)
    try:
        yield service
    finally:
        if service.is_alive:
            service.kill9()
        service.__exit__()


def publish(amqp_uri: str, routing_key: str, *bodies: bytes, exchange: str = "", **properties: Any) -> None:
    """Publish persistent messages and return when all are confirmed; none may be unroutable."""
    properties = {"content_type": "application/json", "content_encoding": "utf-8", **properties}
    with connected(amqp_uri) as connection:
        channel = connection.channel()
        waiting = set(range(1, len(bodies) + 1))
        returned: list[str] = []
        channel.confirm_select()

        def on_ack(tag: int, multiple: bool) -> None:
            waiting.difference_update({each for each in waiting if each <= tag} if multiple else {tag})

        channel.events["basic_ack"].add(on_ack)
        channel.events["basic_return"].add(lambda *_args: returned.append(routing_key))
        for body in bodies:
            message = amqp.Message(body, delivery_mode=2, **properties)
            amqp.Channel._basic_publish(channel, message, exchange, routing_key, mandatory=True)
        while waiting:
            connection.drain_events(timeout=20)
        assert not returned, f"no queue takes {routing_key}"


def consumers(amqp_uri: str, queue: str) -> int:
    """How many consume *queue*; -1 when it is not there."""
    with connected(amqp_uri) as connection:
        try:
            return int(connection.channel().queue_declare(queue, passive=True).consumer_count)
        except amqp.NotFound:
            return -1


def depth(amqp_uri: str, queue: str) -> int:
    """How many messages in *queue* are ready; -1 when it is not there."""
    with connected(amqp_uri) as connection:
        try:
            return int(connection.channel().queue_declare(queue, passive=True).message_count)
        except amqp.NotFound:
            return -1


def vhost_of(amqp_uri: str) -> str:
    return unquote(urlsplit(amqp_uri).path[1:]) or "/"


def queues(node: Node, amqp_uri: str) -> dict[str, str]:
    """Every queue of the virtual host with its arguments as text: ``x-queue-type=quorum x-message-ttl=100``."""
    listing = node.ctl("list_queues", "-p", vhost_of(amqp_uri), "name", "arguments", "--no-table-headers")
    lines = (line.partition("\t") for line in listing.splitlines())
    pairs = {name: re.findall(r'\{"(x-[\w-]+)","?([^"}]*)"?\}', arguments) for name, _, arguments in lines}
    return {name: " ".join(sorted(f"{key}={value}" for key, value in found)) for name, found in pairs.items()}


def declarations(node: Node) -> int:
    """How many ``queue.declare`` and ``connection.open`` the node has seen since it started."""
    text = node.ctl(
        "eval",
        "[{Opened, Declared} || {_, Opened, _, _, _, Declared, _, _} <- ets:tab2list(connection_churn_metrics)].",
    )
    return sum(map(int, re.findall(r"\d+", text)))


def take(amqp_uri: str, queue: str, *, until: float = 20) -> Any:
    """Wait for a message of *queue* and return it, acknowledged."""
    with connected(amqp_uri) as connection:
        channel = connection.channel()
        message = eventually(lambda: channel.basic_get(queue), until)
        channel.basic_ack(message.delivery_tag)
        return message


def set_clock(amqp_uri: str, milliseconds: int) -> None:
    """``take(amqp_uri, "clock")`` returns so much later."""
    with connected(amqp_uri) as connection:
        channel = connection.channel()
        channel.queue_declare("clock", durable=True, auto_delete=False)
        wait = {"x-message-ttl": milliseconds, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "clock"}
        channel.queue_declare("clock.wait", durable=True, auto_delete=False, arguments=wait)
    publish(amqp_uri, "clock.wait", b"")


def declare_levels(amqp_uri: str, levels_ms: Iterable[int]) -> None:
    """As the service does at its start: a level that is declared when it is first used costs two seconds, once."""
    with connected(amqp_uri) as connection:
        topology.declare_delays(connection, levels_ms)


def rows(service: Service, query: str) -> list[tuple[Any, ...]]:
    """What a *query* of the service's SQLite finds."""
    with closing(sqlite3.connect(f"file:{service.folder / 'mail.db'}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def final_record(service: Service, mail_id: str, timeout_s: float = 15) -> dict[str, Any]:
    """Wait until the mail is final; a mail from a client is known when a worker has taken it."""

    def record() -> dict[str, Any] | None:
        with contextlib.suppress(NotFound):
            found = service.rpc.status(mail_id)
            return None if found["status"] in ("queued", "deferred", "held") else found
        return None

    return eventually(record, timeout_s) or {}
