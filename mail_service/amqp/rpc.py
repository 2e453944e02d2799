"""
nameko's rpc entrypoint, made safe for callers that are not nameko, and able to answer later.

Stock nameko dies of a request without ``reply_to`` or content type, and acknowledges one it cannot decode without an
answer. Here every request is answered if it says where to, and none ends the service.
"""

from __future__ import annotations

import inspect
import json
import logging
from dataclasses import dataclass, field
from typing import Any

import eventlet
from kombu.message import Message
from nameko.exceptions import BadRequest, ContainerBeingKilled, IncorrectSignature, MalformedRequest
from nameko.rpc import Rpc as NamekoRpc
from nameko.rpc import RpcConsumer as NamekoRpcConsumer

from mail_service import topology, tracing
from mail_service.amqp import connecting
from mail_service.amqp.consuming import Provider, QueueConsumer
from mail_service.amqp.publisher import PublishFailed, TooLarge
from mail_service.envelope import ReplyTo, is_address
from mail_service.errors import InvalidMessage, MailServiceError, Unavailable
from mail_service.ledger import StoreDown
from mail_service.tracing import Carrier
from mail_service.wiring import runtime_of

_log = logging.getLogger(__name__)

GIVE_BACK_S = 1


class ReplyLater:
    """Returned by a handler whose caller is answered by somebody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks."""

    reply_to: ReplyTo | None
    #: the broker delivered the request before: it may have been worked on
    redelivered: bool = False
    #: of the caller's own trace, if there is one
    trace: Carrier = field(default_factory=dict)


class RpcConsumer(Provider, NamekoRpcConsumer):
    """Reads requests and starts workers for them."""

    queue_consumer = QueueConsumer()

    def setup(self) -> None:
        """As nameko's; in a cluster the queue has replicas, since a classic one is gone for as long as its node is."""
        super().setup()
        if connecting.is_cluster(self.container.config) and self.queue is not None:
            self.queue.queue_arguments = topology.WITH_REPLICAS

    def unregister_provider(self, provider: Any) -> None:
        """
        Return when all methods have left.

        A stop in the middle of the start finds methods that had not registered: for nameko each of them is the last.
        """
        if self._unregistered_from_queue_consumer.ready():
            self._unregistering_providers.add(provider)
            return
        super().unregister_provider(provider)

    def handle_delivery(self, message: Message) -> None:
        """Start a worker, or answer what is wrong with the request; never raises."""
        try:
            provider = self.get_provider_for_method(message.delivery_info["routing_key"])
            arguments, keywords = _arguments(message)
            provider.check_signature(arguments, keywords)
            provider.start_worker(arguments, keywords, message)
        except ContainerBeingKilled:
            self.queue_consumer.requeue_message(message)
        except Exception as exc:
            self.container.spawn_managed_thread(lambda problem=exc: self.answer(message, None, problem))

    def answer(self, message: Message, result: Any, exc: BaseException | None) -> None:
        """Reply, confirmed, then acknowledge."""
        caller = caller_of(message)
        try:
            if caller.reply_to and not isinstance(result, ReplyLater):
                runtime_of(self.container).announcer.reply(caller.reply_to, result=_plain(result), error=_public(exc))
        finally:
            self.queue_consumer.ack_message(message)

    def give_back(self, message: Message) -> None:
        """What it asks for cannot be done now, and the broker keeps it until it can."""
        eventlet.sleep(GIVE_BACK_S)
        self.queue_consumer.requeue_message(message)


def _arguments(message: Message) -> tuple[list[Any], dict[str, Any]]:
    message.accept = {"application/json"}
    if not message.content_type:
        message.content_type = "application/json"
    try:
        body = message.decode()
    except Exception as exc:
        raise MalformedRequest(f"the request is not JSON ({type(exc).__name__})") from None
    if not isinstance(body, dict) or not isinstance(body.get("args"), list) or not isinstance(body.get("kwargs"), dict):
        raise MalformedRequest('the request has to be {"args": [...], "kwargs": {...}}')
    return body["args"], body["kwargs"]


def caller_of(message: Message) -> Caller:
    """Who sent *message*, and whether it may have been worked on already."""
    routing_key = message.properties.get("reply_to")
    correlation_id = message.properties.get("correlation_id") or ""
    reply_to = None
    if routing_key and is_address(routing_key) and is_address(correlation_id):
        reply_to = ReplyTo(routing_key=routing_key, correlation_id=correlation_id)
    return Caller(
        reply_to=reply_to,
        redelivered=bool(message.delivery_info.get("redelivered")),
        trace=tracing.found_in(message.headers),
    )


def _plain(result: Any) -> Any:
    try:
        json.dumps(result)
    except (TypeError, ValueError):
        return repr(result)
    return result


def _public(exc: BaseException | None) -> Exception | None:
    """The database's own words are not for callers."""
    if isinstance(exc, StoreDown):
        return Unavailable("the database cannot be reached now; try again later")
    if isinstance(exc, TooLarge):
        return InvalidMessage("message", str(exc))
    if isinstance(exc, PublishFailed):
        return Unavailable("the broker did not confirm; try again with the same id")
    return exc if isinstance(exc, Exception) or exc is None else RuntimeError(type(exc).__name__)


class Rpc(NamekoRpc):
    """An RPC method of the service. Its worker's context has the ``caller``."""

    rpc_consumer = RpcConsumer()

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("expected_exceptions", (MailServiceError, BadRequest))
        super().__init__(**kwargs)

    def check_signature(self, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Raise InvalidMessage, which names the argument, where nameko has an error of its own."""
        try:
            super().check_signature(args, kwargs)
        except IncorrectSignature as exc:
            known = inspect.signature(getattr(self.container.service_cls, self.method_name)).parameters
            unknown = next((name for name in kwargs if name not in known), None)
            if unknown is None:
                raise InvalidMessage("arguments", str(exc)) from exc
            raise InvalidMessage(unknown[:100], f"there is no such argument of {self.method_name}") from exc

    def start_worker(self, arguments: list[Any], keywords: dict[str, Any], message: Message) -> None:
        """Run the method in a worker."""

        def handle_result(_worker_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
            exc = exc_info[1] if exc_info else None
            unconfirmed = isinstance(exc, PublishFailed) and not isinstance(exc, TooLarge)
            if unconfirmed and caller_of(message).reply_to is None:
                self.rpc_consumer.give_back(message)
            else:
                self.rpc_consumer.answer(message, result, exc)
            return result, exc_info

        worker_ctx = self.container.spawn_worker(self, arguments, keywords, handle_result=handle_result)
        # the worker's greenlet has not begun yet: it starts when this one gives way
        worker_ctx.caller = caller_of(message)


rpc = Rpc.decorator
__all__ = ["Caller", "InvalidMessage", "ReplyLater", "Rpc", "caller_of", "rpc"]
