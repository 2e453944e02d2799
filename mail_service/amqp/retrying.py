"""
The entrypoint that consumes, retries and gives up: nameko-amqp-retry's, on a protocol that loses nothing.

    handler returned            acknowledge
    handler raised a Backoff    publish to a delay level, confirmed, then acknowledge
    … that has Expired          store in the error log, committed, then acknowledge
    any other exception         the same
    undecodable                 the same, with the raw body
    store away                  publish to a delay level with mail.state = log; only the store step runs again
    broker away too             leave it with the broker

Whatever happens, ``handle_result`` never raises: in nameko an exception there kills the container and then, since the
message is requeued, the next one. Use it for queues of your own as you use ``nameko_amqp_retry.messaging.consume``.
"""

from __future__ import annotations

import logging
import traceback
from typing import Any

import eventlet
from kombu import Connection
from kombu.message import Message
from nameko.exceptions import ContainerBeingKilled
from nameko_amqp_retry import Backoff
from nameko_amqp_retry import BackoffPublisher as StockBackoffPublisher
from nameko_amqp_retry.messaging import Consumer as StockConsumer

from mail_service import topology
from mail_service.amqp.consuming import Provider, QueueConsumer
from mail_service.amqp.mailqueue import jittered
from mail_service.amqp.publisher import PublishFailed
from mail_service.delivery.backoff import RETRY_EXCHANGE, CountedMessage
from mail_service.delivery.copies import number
from mail_service.errors import MailServiceError
from mail_service.ledger import StoreDown
from mail_service.ledger.patient import Stopping
from mail_service.wiring import Runtime, runtime_of

_log = logging.getLogger(__name__)

#: of a delay that a user's Backoff asks for: a year, after which dates begin to overflow
LONGEST_MS = 365 * 86_400_000
#: until a message whose outcome could not be stored comes back, milliseconds
STORE_AGAIN_MS = 5000
#: before a message is given back to a broker that does not take its successor, seconds
GIVE_BACK_S = 2
#: of a text in a header, characters; longer header blocks break the connection
LONGEST_TEXT = 500


class BackoffPublisher(StockBackoffPublisher):
    """Republishes to a fixed delay level, and counts attempts in a header of ours."""

    def delay_ms(self, backoff: Backoff, headers: dict[str, Any], attempts: int) -> int:
        """Milliseconds until the next attempt, jitter included. Raises Backoff.Expired."""
        delay_ms = int(backoff.next(CountedMessage(headers, attempts), RETRY_EXCHANGE))
        return jittered(min(max(delay_ms, 0), LONGEST_MS))

    def republish(self, backoff_exc: Backoff, message: Message, target_queue: str) -> None:
        """Confirmed when it returns. Raises Backoff.Expired or PublishFailed."""
        headers = kept_headers(message)
        attempts = number(headers.get(topology.ATTEMPTS))
        delay_ms = self.delay_ms(backoff_exc, headers, attempts)
        runtime_of(self.container).queue.delay(
            raw_body(message),
            queue=target_queue,
            delay_ms=delay_ms,
            headers={**headers, topology.ATTEMPTS: attempts + 1},
            message_id=message.properties.get("message_id"),
        )


def kept_headers(message: Message) -> dict[str, Any]:
    """The headers that a copy keeps: not the broker's, and none that no longer describe the body or choose a route."""
    dropped = ("compression", "expiration", "CC", "BCC")
    return {
        name: value
        for name, value in (message.headers or {}).items()
        if not name.startswith("x-") and name not in dropped
    }


def raw_body(message: Message) -> bytes:
    """The body's bytes, whatever the sender said about them."""
    # of an empty one py-amqp makes an empty text
    return bytes(message.body or b"")


class Consumer(Provider, StockConsumer):
    """Consumes a queue; its handler may raise any Backoff."""

    queue_consumer = QueueConsumer()
    backoff_publisher = BackoffPublisher()

    @property
    def runtime(self) -> Runtime:
        return runtime_of(self.container)

    def declare(self, connection: Connection) -> None:
        """What is published to when a message ends: an exchange that is not there would close everybody's channel."""
        self.runtime.announcer.declare(connection)

    def stop(self) -> None:
        """Take no more messages, and let what is in flight finish, for a while."""
        self.runtime.begin_stop()
        super().stop()

    def handle_delivery(self, message: Message) -> None:
        """Read the message and start a worker for it; never raises."""
        try:
            if self._is_kept(message):
                self._spawn(self._store_again, message)
                return
            arguments = self.arguments(message)
            context = self.unpack_message_headers(message)
        except Exception as exc:
            self._spawn(self._refuse, message, exc)
            return
        try:
            self.container.spawn_worker(
                self,
                arguments,
                {},
                context_data=_sound(context),
                handle_result=lambda worker_ctx, result, exc_info: self.handle_result(
                    message, worker_ctx, result, exc_info
                ),
            )
        except ContainerBeingKilled:
            self.queue_consumer.requeue_message(message)

    @staticmethod
    def _is_kept(message: Message) -> bool:
        """Whether `_keep` sent it. A lane's own copies that are only to be recorded carry the record, and no status."""
        headers = message.headers or {}
        return headers.get(topology.STATE) == topology.STATE_LOG and topology.STATUS in headers

    def arguments(self, message: Message) -> tuple[Any, ...]:
        """What the handler is called with. Raises for a body that cannot be used."""
        message.accept = {"application/json"}
        return (message.decode(),)

    def handle_result(
        self, message: Message, worker_ctx: Any, result: Any = None, exc_info: Any = None
    ) -> tuple[Any, Any]:
        """Settle the message; never raises."""
        exc = exc_info[1] if exc_info else None
        self.settle(message, worker_ctx, result, exc)
        return result, exc_info

    def settle(self, message: Message, worker_ctx: Any, result: Any, exc: BaseException | None) -> None:
        """End in exactly one of: acknowledged, republished, stored, left with the broker."""
        try:
            if isinstance(exc, Backoff):
                self.backoff_publisher.republish(exc, message, self.queue.name)
                exc = None
        except Exception as problem:
            # Backoff.Expired, a broker that does not confirm, or a mistake in a user's own Backoff
            exc = problem
        if exc is None:
            self.queue_consumer.ack_message(message)
        elif isinstance(exc, PublishFailed | StoreDown | Stopping):
            self.leave(message, exc)
        else:
            self.store(message, exc)

    def store(self, message: Message, exc: BaseException) -> None:
        """To the error log, with the raw body, then acknowledge."""
        if isinstance(exc, Backoff.Expired):
            self._store(message, "expired", str(exc))
        elif isinstance(exc, MailServiceError):
            self._store(message, "failed", str(exc))
        else:
            self._store(message, "failed", "".join(traceback.format_exception(exc))[-8000:])

    def log(self, body: bytes, status: str, text: str) -> None:
        """Make an error-log entry. Raises StoreDown."""
        self.runtime.unusable.raw(body, status=status, error=text)

    def _store(self, message: Message, status: str, text: str) -> None:
        try:
            self.log(raw_body(message), status, text)
        except StoreDown:
            self._keep(message, status, text)
        except Exception as problem:
            _log.critical("a message could not be stored (%s)", type(problem).__name__)
            self.leave(message, problem)
        else:
            self.queue_consumer.ack_message(message)

    def _keep(self, message: Message, status: str, text: str) -> None:
        """The store is away: the outcome travels with the message until the store is back."""
        short = text[-LONGEST_TEXT:].encode("utf-8", "replace").decode()
        headers = kept_headers(message) | {
            topology.STATE: topology.STATE_LOG,
            topology.ERROR: short,
            topology.STATUS: status,
        }
        try:
            self.runtime.queue.delay(
                raw_body(message),
                queue=self.queue.name,
                delay_ms=STORE_AGAIN_MS,
                headers=headers,
                message_id=message.properties.get("message_id"),
            )
        except Exception as problem:
            self.leave(message, problem)
        else:
            self.queue_consumer.ack_message(message)

    def _store_again(self, message: Message) -> None:
        status = message.headers.get(topology.STATUS)
        self._store(
            message, status if status == "expired" else "failed", str(message.headers.get(topology.ERROR) or "")
        )

    def _refuse(self, message: Message, exc: Exception) -> None:
        _log.warning("a message in %s cannot be used (%s)", self.queue.name, type(exc).__name__)
        self._store(message, "failed", f"the message cannot be used: {exc}"[:2000])

    def leave(self, message: Message, problem: BaseException) -> None:
        """The broker still has the message and gives it to somebody else; not at once, it may be in trouble itself."""
        if not isinstance(problem, Stopping):
            _log.warning("a message stays in %s (%s)", self.queue.name, type(problem).__name__)
            eventlet.sleep(GIVE_BACK_S)
        self.queue_consumer.requeue_message(message)

    def _spawn(self, function: Any, *arguments: Any) -> None:
        """Beside the worker pool: storing must be possible when all workers are busy."""
        self.container.spawn_managed_thread(lambda: function(*arguments), identifier=function.__name__)


def _sound(context: dict[str, Any]) -> dict[str, Any]:
    """nameko dies of a call id stack that is no list of strings."""
    stack = context.get("call_id_stack")
    if not (isinstance(stack, list) and all(isinstance(call_id, str) for call_id in stack)):
        context.pop("call_id_stack", None)
    return context


consume = Consumer.decorator
