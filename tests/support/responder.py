"""The service's place in nameko's RPC protocol, without nameko: answers requests as a test says, on a real broker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import kombu
from amqp.exceptions import AMQPError

RPC_EXCHANGE = kombu.Exchange("nameko-rpc", type="topic", durable=True)
RPC_QUEUE = kombu.Queue("rpc-mail_service", RPC_EXCHANGE, routing_key="mail_service.*", durable=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A call as it arrived."""

    method: str
    args: list[Any]
    kwargs: dict[str, Any]
    properties: dict[str, Any]
    headers: dict[str, Any]


@dataclass(slots=True)
class Later:
    """An answer that the test gives itself, by ``Responder.reply``."""

    requests: list[Request] = field(default_factory=list)


class RemoteFault(Exception):
    """Answered as nameko answers an exception of class *exc_type*."""

    def __init__(self, exc_type: str, value: str) -> None:
        super().__init__(value)
        self.exc_type = exc_type


Answer = Callable[..., Any] | Later


class Responder:
    """Consumes the service's RPC queue in a thread, also after the broker was away; one answer for each method."""

    def __init__(self, amqp_uri: str, **answers: Answer) -> None:
        self.requests: list[Request] = []
        self._amqp_uri = amqp_uri
        self._answers = answers
        self._stopped = threading.Event()
        self._consuming = threading.Event()
        self._thread = threading.Thread(target=self._run, name="responder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._consuming.wait(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(30)

    def reply(self, request: Request, result: Any = None, *, times: int = 1) -> None:
        """Answer a request whose answer was to come later."""
        with kombu.Connection(self._amqp_uri, connect_timeout=10) as connection:
            for _ in range(times):
                self._publish(connection, request, {"result": result, "error": None})

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with kombu.Connection(self._amqp_uri, connect_timeout=5) as connection:
                    self._consume(connection)
            except (OSError, AMQPError):
                self._stopped.wait(0.1)

    def _consume(self, connection: kombu.Connection) -> None:
        consumer = connection.Consumer([RPC_QUEUE], on_message=lambda message: self._on_request(connection, message))
        with consumer:
            self._consuming.set()
            while not self._stopped.is_set():
                try:
                    connection.drain_events(timeout=0.1)
                except TimeoutError:
                    continue

    def _on_request(self, connection: kombu.Connection, message: Any) -> None:
        body = message.decode()
        request = Request(
            method=message.delivery_info["routing_key"].rpartition(".")[2],
            args=body["args"],
            kwargs=body["kwargs"],
            properties=message.properties,
            headers=message.headers,
        )
        self.requests.append(request)
        message.ack()
        answer = self._answers[request.method]
        if isinstance(answer, Later):
            answer.requests.append(request)
        else:
            self._publish(connection, request, _outcome(answer, request))

    def _publish(self, connection: kombu.Connection, request: Request, payload: dict[str, Any]) -> None:
        with connection.Producer(auto_declare=False) as producer:
            producer.publish(
                payload,
                exchange=RPC_EXCHANGE.name,
                routing_key=request.properties["reply_to"],
                correlation_id=request.properties["correlation_id"],
                serializer="json",
            )


def _outcome(answer: Callable[..., Any], request: Request) -> dict[str, Any]:
    try:
        return {"result": answer(*request.args, **request.kwargs), "error": None}
    except RemoteFault as fault:
        facts = {"exc_type": fault.exc_type, "exc_path": f"x.{fault.exc_type}", "exc_args": list(fault.args)}
        return {"result": None, "error": facts | {"value": str(fault)}}
