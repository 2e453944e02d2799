"""What a program that knows only the contract does to the service: nameko's protocols, spoken with plain kombu."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import kombu
from amqp.exceptions import AMQPError
from kombu.exceptions import OperationalError

#: what a broker that goes away makes of a call; kombu wraps some of it
BROKEN = (OSError, AMQPError, OperationalError)
RPC_EXCHANGE = kombu.Exchange("nameko-rpc", type="topic", durable=True)


class RemoteError(Exception):
    """The service answered with an error; its ``exc_type`` is the name of the class."""

    def __init__(self, exc_type: str, value: str) -> None:
        super().__init__(f"{exc_type}: {value}")
        self.exc_type = exc_type
        self.value = value


class RpcTimeout(Exception):
    """No reply in time."""


class Rpc:
    """
    ``Rpc(uri).send({...}, id="a")``: a nameko RPC caller without nameko. For one thread.

    Any attribute is a method of the service; ``begin`` asks without waiting, ``wait`` waits for what was begun.
    """

    def __init__(self, amqp_uri: str, *, timeout_s: float = 20, service: str = "mail_service") -> None:
        self._timeout_s = timeout_s
        self._service = service
        self._replies: dict[str, dict[str, Any]] = {}
        self._connection = kombu.Connection(amqp_uri, connect_timeout=10, transport_options={"confirm_publish": True})
        self._connection.connect()
        self._key = str(uuid.uuid4())
        channel = self._connection.channel()
        self._queue = kombu.Queue(
            f"rpc.reply-outside-{self._key}", RPC_EXCHANGE, routing_key=self._key, exclusive=True, auto_delete=True
        )
        self._producer = kombu.Producer(channel, serializer="json")
        self._consumer = kombu.Consumer(channel, [self._queue], callbacks=[self._on_reply], no_ack=True)
        self._consumer.consume()

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *args, **kwargs: self.wait(self.begin(method, *args, **kwargs))

    def begin(self, method: str, *args: Any, **kwargs: Any) -> str:
        """Ask, and give the correlation id to ``wait`` for."""
        correlation_id = str(uuid.uuid4())
        self.publish(method, {"args": args, "kwargs": kwargs}, correlation_id=correlation_id, reply_to=self._key)
        return correlation_id

    def publish(self, method: str, body: Any, **properties: Any) -> None:
        """Put any body where requests go."""
        self._producer.publish(
            body,
            exchange=RPC_EXCHANGE,
            routing_key=f"{self._service}.{method}",
            headers=properties.pop("headers", {"nameko.call_id_stack": ["outside.1"]}),
            mandatory=True,
            **properties,
        )

    @property
    def reply_key(self) -> str:
        return self._key

    def wait(self, correlation_id: str, timeout_s: float | None = None) -> Any:
        """The result. Raises RemoteError, or RpcTimeout."""
        clock = threading.Event()
        timer = threading.Timer(self._timeout_s if timeout_s is None else timeout_s, clock.set)
        timer.daemon = True
        timer.start()
        try:
            while correlation_id not in self._replies:
                if clock.is_set():
                    raise RpcTimeout(correlation_id)
                self._drain(0.05)
        finally:
            timer.cancel()
        reply = self._replies.pop(correlation_id)
        if reply["error"]:
            raise RemoteError(reply["error"]["exc_type"], str(reply["error"]["value"]))
        return reply["result"]

    def has_answer(self, correlation_id: str) -> bool:
        """Whether the reply is here already."""
        self._drain(0)
        return correlation_id in self._replies

    def is_alive(self) -> bool:
        """Whether its connection still is one: the broker may have been restarted meanwhile."""
        try:
            self._drain(0)
        except BROKEN:
            return False
        return True

    def close(self) -> None:
        with contextlib.suppress(*BROKEN):
            self._connection.release()

    def _drain(self, timeout_s: float) -> None:
        try:
            self._connection.drain_events(timeout=timeout_s or 0.001)
        except (TimeoutError, socket.timeout):  # noqa: UP041  # kombu raises either
            return

    def _on_reply(self, body: dict[str, Any], message: kombu.Message) -> None:
        # a second reply to one request would be a defect: keep it apart, so that a test can see it
        correlation_id = message.properties.get("correlation_id", "")
        key = correlation_id if correlation_id not in self._replies else f"{correlation_id} again"
        self._replies[key] = body


class Events:
    """Listens to the service's own events in a thread: ``with Events(uri) as events: events.of("id")``."""

    def __init__(self, amqp_uri: str, source: str = "mail_service") -> None:
        self._uri = amqp_uri
        self._exchange = kombu.Exchange(f"{source}.events", type="topic", durable=True)
        self._stopped = threading.Event()
        self._ready = threading.Event()
        self._seen: list[tuple[str, dict[str, Any]]] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(10)

    def all(self) -> list[tuple[str, dict[str, Any]]]:
        return list(self._seen)

    def of(self, mail_id: str) -> list[tuple[str, dict[str, Any]]]:
        """Type and record of each event about a mail, in order."""
        return [(kind, record) for kind, record in self.all() if record.get("id") == mail_id]

    def types(self, mail_id: str) -> list[str]:
        return [kind for kind, _ in self.of(mail_id)]

    def is_listening(self) -> bool:
        return self._ready.is_set()

    def _listen(self) -> None:
        while not self._stopped.is_set():
            # the broker goes away in some tests: what it says meanwhile is not heard
            with contextlib.suppress(*BROKEN):
                self._listen_once()
            self._ready.clear()
            self._stopped.wait(0.2)

    def _listen_once(self) -> None:
        with kombu.Connection(self._uri, connect_timeout=10) as connection:
            queue = kombu.Queue(f"outside-{uuid.uuid4()}", self._exchange, routing_key="#", exclusive=True)
            with connection.Consumer([queue], callbacks=[self._on_event], no_ack=True):
                self._ready.set()
                while not self._stopped.is_set():
                    with contextlib.suppress(TimeoutError, socket.timeout):
                        connection.drain_events(timeout=0.05)

    def _on_event(self, body: dict[str, Any], message: kombu.Message) -> None:
        self._seen.append((message.delivery_info["routing_key"], body))


def dispatch(
    amqp_uri: str, source: str, payload: Any, *, kind: str = "send_email", timeout_s: float = 60, **properties: Any
) -> None:
    """
    Dispatch an event as nameko's service *source* would; bytes go out as they are, with *properties*.

    Raises when no queue takes it, or the broker says nothing for *timeout_s*.
    """
    exchange = kombu.Exchange(f"{source}.events", type="topic", durable=True)
    options = {"confirm_publish": True, "read_timeout": timeout_s, "write_timeout": timeout_s}
    with kombu.Connection(amqp_uri, connect_timeout=10, transport_options=options) as connection:
        # kombu would try for ever
        connection.connect()
        producer = connection.Producer(serializer="json")
        if isinstance(payload, bytes):
            properties.setdefault("content_type", "application/json")
            properties.setdefault("content_encoding", "utf-8")
        producer.publish(payload, exchange=exchange, routing_key=kind, delivery_mode=2, mandatory=True, **properties)


def as_json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode()
