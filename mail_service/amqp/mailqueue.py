"""Put copies of mails into work queues and delay levels, confirmed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import eventlet
from eventlet.semaphore import Semaphore
from kombu import Connection

from mail_service import clock, sizes, topology
from mail_service.amqp.publisher import Publisher, PublishFailed, Unroutable
from mail_service.delivery.backoff import spread
from mail_service.envelope import CONTENT_TYPE, Envelope
from mail_service.ledger.records import Mail

#: RabbitMQ (3.10 and 4.0) writes a new quorum queue's name to the disk about a second after its declaration. Killed
#: before that, it has the messages and does not find them; so a new delay level gets none until then, seconds.
NEWBORN_S = 2


class MailQueue:
    """All methods raise PublishFailed when the broker did not confirm, TooLarge when it never will."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        #: to publish to an exchange that is not there closes the channel, which all workers share
        self._declared: set[str] = set()
        #: by name, so that nobody uses one that somebody else has only just declared
        self._declaring: dict[str, Semaphore] = {}

    def put(self, envelope: Envelope, mail: Mail | None = None, *, replay: bool = False) -> None:
        """A copy that is attempted as soon as a worker is free; *mail* is what is known of one that was here before."""
        headers = copy_headers(envelope, mail) | ({topology.REPLAY: True} if replay else {})
        new, again = topology.queue_names(envelope.lane)
        queue = new if mail is None else again
        body = envelope.body()
        where: dict[str, Any] = {
            "routing_key": queue,
            "headers": headers,
            "message_id": envelope.id,
            "room": sizes.ROOM_TO_GROW if mail is None else 0,
        }
        try:
            self._publish(body, **where)
        except Unroutable:
            needed = [topology.parked_queue(), topology.work_queue(queue)]
            self._publisher.declare(lambda connection: topology.declare(connection, needed))
            self._publish(body, **where)

    def put_later(
        self, envelope: Envelope, mail: Mail, delay_ms: int, *, more: Mapping[str, Any] | None = None
    ) -> None:
        """A copy that comes back to its lane after *delay_ms*, never earlier; *more* are headers that only it has."""
        queue = topology.again_queue_name(envelope.lane)
        headers = copy_headers(envelope, mail) | dict(more or {})
        self.delay(envelope.body(), queue=queue, delay_ms=delay_ms, headers=headers, message_id=envelope.id)

    def delay(
        self, body: bytes, *, queue: str, delay_ms: int, headers: Mapping[str, Any], message_id: str | None = None
    ) -> None:
        """Any message that comes back to *queue* after *delay_ms*."""
        if delay_ms <= 0:
            self._publish(body, routing_key=queue, headers=headers, message_id=message_id)
            return
        level = topology.level_for(delay_ms)
        due = {topology.DUE: clock.now_ms() + delay_ms} if level < delay_ms else {}
        self._declare_level(level)
        try:
            self._publish(
                body,
                exchange=topology.delay_name(level),
                routing_key=queue,
                headers={**headers, **due},
                message_id=message_id,
            )
        except PublishFailed:
            # somebody may have deleted it: looked at again before its next use
            self._declared.discard(topology.delay_name(level))
            raise

    def park(self, body: bytes, *, headers: Mapping[str, Any], message_id: str | None = None) -> None:
        """A message that cannot even be stored."""
        self._publish(body, routing_key=topology.PARKED, headers=headers, message_id=message_id)

    def are_declared(self, levels: Iterable[int], queues: Iterable[str] = ()) -> None:
        """Somebody has declared these levels, and these queues, a while before their first use."""
        self._declared.update(map(topology.delay_name, levels))
        self._declared.update(queues)

    def put_aside(self, body: bytes, *, queue: str, headers: Mapping[str, Any], message_id: str | None = None) -> None:
        """Any message, into a *queue* where it waits for its turn; declared here where it is not there."""
        self.declare_turn(queue)
        try:
            self._publish(body, routing_key=queue, headers=headers, message_id=message_id)
        except Unroutable:
            # somebody has deleted it
            self._declared.discard(queue)
            self.declare_turn(queue)
            self._publish(body, routing_key=queue, headers=headers, message_id=message_id)

    def is_ready(self, queue: str) -> bool:
        """Whether a queue is known to be there, and not only just."""
        return queue in self._declared

    def declare_turn(self, queue: str) -> None:
        """Declare a queue where mail waits for its turn."""
        self._declare_once(queue, lambda connection: topology.declare(connection, [topology.work_queue(queue)]))

    def _declare_level(self, level: int) -> None:
        self._declare_once(topology.delay_name(level), lambda connection: topology.declare_delays(connection, [level]))

    def _declare_once(self, name: str, declare: Callable[[Connection], None]) -> None:
        if name in self._declared:
            return
        # whoever waits for another one's declaration has the same time as who declares
        with self._publisher.time_limit(), self._declaring.setdefault(name, Semaphore()):
            if name in self._declared:
                return
            newborn = not self._publisher.declare(lambda connection: topology.is_there(connection, name))
            self._publisher.declare(declare)
            if newborn:
                eventlet.sleep(NEWBORN_S)
            self._declared.add(name)

    def _publish(self, body: bytes, *, message_id: str | None, exchange: str = "", **where: Any) -> None:
        properties: dict[str, Any] = {"content_type": CONTENT_TYPE, "content_encoding": "utf-8"}
        if message_id:
            properties["message_id"] = _short(message_id)
        self._publisher.publish(body, exchange=exchange, **where, **properties)


def _short(text: str) -> str:
    """As much of *text* as a short string of AMQP holds: 255 bytes."""
    return text.encode("utf-8", "replace")[:255].decode("utf-8", "ignore")


def jittered(delay_ms: int) -> int:
    """What failed together should not come back together."""
    return spread(delay_ms, random.random())  # noqa: S311 - no secret hangs on it


def copy_headers(envelope: Envelope, mail: Mail | None) -> dict[str, Any]:
    """The headers of a copy of *mail*."""
    headers = envelope.headers()
    if mail is not None:
        headers |= {topology.ATTEMPTS: mail.attempts, topology.GENERATION: mail.generation}
        headers |= {topology.DEATHS: mail.deaths} if mail.deaths else {}
    return headers
