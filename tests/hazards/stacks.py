"""
One test, two stacks: what fails on the stock packages has to pass on ours.

``@both("10: ...")`` runs a test with ``stack="stock"``, where its assertion has to fail, and with
``stack="ours"``.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import amqp
import kombu
import pytest
from kombu.message import Message

from tests.support.service import Service, configuration

Value = TypeVar("Value")

#: insist that the stock packages fail; some of it is a race, which they sometimes win
PROVE = bool(os.environ.get("PROVE"))

MODULE = "tests.hazards.stock_consumers"
RPC_EXCHANGE = kombu.Exchange("nameko-rpc", type="topic", durable=True)


def both(hazard: str) -> pytest.MarkDecorator:
    """Parametrise with the two stacks; *hazard* is number and name of what the stock packages do."""
    return pytest.mark.parametrize("stack", [pytest.param("stock", marks=fails_here(hazard)), "ours"])


def fails_here(hazard: str) -> pytest.MarkDecorator:
    """The mark of a run on the stock packages, where the assertion has to fail."""
    if PROVE:
        return pytest.mark.xfail(strict=True, raises=AssertionError, reason=f"hazard {hazard}")
    return pytest.mark.xfail(strict=False, reason=f"hazard {hazard}")


class NotStarted(Exception):
    """The service did not get as far as the test: that is no failure to be expected of the stock packages."""


class Real(Service):
    """The real service; killed at the end, since how it stops is the subject of few tests."""

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill it."""
        if self.is_alive:
            self.kill9()
        super().__exit__()

    def until(self, condition: Callable[[], Value], timeout_s: float = 15) -> Value:
        """As ``eventually``, but fails at once when the process has ended."""
        return while_alive(self, condition, timeout_s)


class Probe(Real):
    """
    The small service of stock_consumers.py, as a process.

    Args:
        environment: More variables for it.
        config: More keys for nameko, and under ``mail`` for ours.
        from_outside: Where we reach the broker ourselves, if elsewhere.
    """

    def __init__(
        self,
        stack: str,
        amqp_uri: str,
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        from_outside: str | None = None,
    ) -> None:
        own = dict(config or {})
        self.amqp_uri = from_outside or amqp_uri
        super().__init__(configuration(amqp_uri, folder, **own.pop("mail", {})) | own, folder, module=MODULE)
        self.notes_path = folder / "notes"
        self.notes_path.touch()
        self._more = {"STACK": stack, "NOTES": str(self.notes_path), **(environment or {})}

    def _environment(self) -> dict[str, str]:
        return super()._environment() | self._more

    def start(self, *, wait: bool = True) -> None:
        super().start(wait=False)
        try:
            if wait:
                self.until(lambda: consumers(self.amqp_uri, "probe"), 30)
        except AssertionError as error:
            self.close()
            raise NotStarted from error

    def noted(self, what: str, message_id: str | None = None) -> int:
        """How often *what* was noted, of one message or of all."""
        notes = [json.loads(line) for line in self.notes_path.read_text().splitlines()]
        return sum(note["what"] == what and message_id in (None, note["id"]) for note in notes)

    def stored(self) -> list[tuple[str, bytes]]:
        """Status and content of every entry of the error log; the stock packages have none."""
        return entries(self.folder / "mail.db")


def while_alive(service: Service, condition: Callable[[], Value], timeout_s: float = 15) -> Value:
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert service.is_alive, f"the process ended:\n{service.log[-3000:]}"
        assert time.monotonic() < deadline, f"not within {timeout_s} s:\n{service.log[-3000:]}"
        time.sleep(0.02)
    return answer


def entries(database: Path) -> list[tuple[str, bytes]]:
    """Status and content of every entry of the error log in an SQLite file."""
    return rows(database, "select status, content from mail where status not in ('sent', 'queued', 'deferred', 'held')")


def rows(database: Path, query: str, *values: object) -> list[Any]:
    """Ask an SQLite file that may not be there yet."""
    if not database.exists():
        return []
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.OperationalError as exc:
            if "no such table" in str(exc):
                return []
            raise


def put(
    amqp_uri: str,
    queue: str,
    body: object,
    *,
    exchange: str = "",
    headers: Mapping[str, Any] | None = None,
    ssl: Mapping[str, Any] | None = None,
    **properties: Any,
) -> None:
    """Publish *body*, bytes or what becomes JSON, with exactly these properties; returns when it is confirmed."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    if not isinstance(body, bytes):
        properties = {"content_type": "application/json", "content_encoding": "utf-8"} | properties
    properties = {name: value for name, value in properties.items() if value is not None}
    message = amqp.Message(content, application_headers=dict(headers or {}), delivery_mode=2, **properties)
    options = {"confirm_publish": True}
    with kombu.Connection(amqp_uri, connect_timeout=10, ssl=ssl, transport_options=options) as connection:
        connection.default_channel.basic_publish(message, exchange, queue, mandatory=True, timeout=10)


def consumers(amqp_uri: str, queue: str) -> int:
    """How many consume *queue*; 0 also when there is no such queue."""
    return _declared(amqp_uri, queue)[1]


def depth(amqp_uri: str, queue: str) -> int:
    """How many messages wait in *queue*, those at a consumer not counted."""
    return _declared(amqp_uri, queue)[0]


def _declared(amqp_uri: str, queue: str) -> tuple[int, int]:
    try:
        with kombu.Connection(amqp_uri, connect_timeout=10) as connection:
            found = connection.default_channel.queue_declare(queue, passive=True)
    except amqp.NotFound:
        return 0, 0
    return found.message_count, found.consumer_count


class Caller:
    """Calls by nameko's RPC protocol, as exactly or as carelessly as a test wants."""

    def __init__(self, amqp_uri: str) -> None:
        self._connection = kombu.Connection(amqp_uri, connect_timeout=10)
        self._amqp_uri = amqp_uri
        self.reply_to = str(uuid.uuid4())
        self._queue = kombu.Queue(f"reply-{self.reply_to}", RPC_EXCHANGE, self.reply_to, exclusive=True)
        self._replies: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        self._consumer = self._connection.Consumer([self._queue], on_message=self._on_reply)
        self._consumer.consume()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.release()

    def request(
        self, method: str, *args: Any, body: object = None, headers: Mapping[str, Any] | None = None, **more: Any
    ) -> str:
        """Send a request for ``service.method``; *body* instead of args, *more* are properties. Answers its id."""
        correlation_id = str(uuid.uuid4())
        properties = {"reply_to": self.reply_to, "correlation_id": correlation_id} | more
        payload = {"args": args, "kwargs": {}} if body is None else body
        put(self._amqp_uri, method, payload, exchange="nameko-rpc", headers=headers, **properties)
        return correlation_id

    def reply(self, correlation_id: str, service: Service, timeout_s: float = 10) -> dict[str, Any]:
        """The reply to a request; fails when none comes."""
        while_alive(service, lambda: self._drained(correlation_id), timeout_s)
        return self._replies[correlation_id]

    def order(self) -> list[str]:
        """The ids of all replies so far, in the order in which they came."""
        self._drained("")
        return list(self._replies)

    def _drained(self, correlation_id: str) -> bool:
        with suppress(TimeoutError):
            self._connection.drain_events(timeout=0.05)
        return correlation_id in self._replies

    def _on_reply(self, message: Message) -> None:
        message.ack()
        self._replies[str(message.properties["correlation_id"])] = message.decode()
