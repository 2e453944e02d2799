"""
Names and arguments of every queue, exchange and header, and how to declare them. Kombu only: clients use it too.

    door ──▶ mail.send.v1.<lane> ──▶ worker ──▶ ack
                           │ returned 100 times
                           └──▶ mail.parked.v1 ──▶ error log
    worker ──▶ mail.delay.v1.<ms> (exchange and queue)
                  │ expired, by its routing key
                  └──▶ mail.again.v1.<lane> ──▶ worker, in turns with the former
    worker ──▶ mail.turn.v1.<lane>.… ──▶ worker, when its turn has come (``limits``)

All queues are durable quorum queues, and dead-lettering between them is at-least-once: a classic delay queue in front
of a quorum queue loses thousands of messages when the broker is killed while they expire. Delay queues are permanent
(an expiring one can vanish between its declaration and the publish), have one fixed TTL each (a TTL per message blocks
behind the head of the queue), and share one fanout exchange per level, which leaves the routing key alone: what expires
goes to the queue of that name, so any number of lanes share the levels. Measured on RabbitMQ 3.10 and 4.0.
"""

from __future__ import annotations

import bisect
import re
import zlib
from collections.abc import Iterable
from hashlib import sha256

from amqp.exceptions import NotFound, PreconditionFailed
from kombu import Connection, Exchange, Queue

from mail_service.errors import ConfigurationError

#: Arguments of a declared queue can never change: another set of arguments needs another version.
VERSION = "v1"

LANES = ("high", "normal", "bulk")
PARKED = f"mail.parked.{VERSION}"
EVENTS = f"mail.events.{VERSION}"
EVENT_TYPE = "send_email"

#: Each return to the queue counts, restarts included, so this is far above what restarts use up. The ledger stops a
#: mail that kills the process long before; this limit is for what never got as far as the ledger. Never -1 (RabbitMQ
#: 3.10 drops the message at its first return) and never unset (4.x drops it silently after 20).
DELIVERY_LIMIT = 100
NO_DELIVERY_LIMIT = 1_000_000

#: of nameko's queue of requests in a cluster; whoever asks waits for an answer, so that nothing of it may be dropped
WITH_REPLICAS = {"x-queue-type": "quorum", "x-delivery-limit": NO_DELIVERY_LIMIT}

#: Our own headers. The broker's ``x-death`` is no counter: RabbitMQ 4 ignores the one a client sends.
ATTEMPTS = "mail.attempts"
GENERATION = "mail.generation"
SUBMITTED = "mail.submitted_ms"
DUE = "mail.due_ms"
#: how often in a row the process ended while it attempted this mail
DEATHS = "mail.deaths"
STATE = "mail.state"
#: with ``mail.state``: how it ended, and why
STATUS = "mail.status"
ERROR = "mail.error"
REPLAY = "mail.replay"
#: stands in for a copy that the broker had delivered before, so that an attempt may have begun
REDELIVERED = "mail.redelivered"
#: of a copy whose mail is held: it need not be claimed to be held again
HELD = "mail.held"
#: the keys of the limits whose turn this copy has had
TURNS = "mail.turns"
#: a number made of the tenant, which is the same in every program; absent for mail of no tenant
TENANT = "mail.tenant"
#: ``mail.state``: nothing is left to do but to write down what happened
STATE_LOG = "log"

#: IEC 60063's E24 series: neighbours are at most 15.4 % apart, which with the jitter stays inside the promised 25 %.
_E24 = (10, 11, 12, 13, 15, 16, 18, 20, 22, 24, 27, 30, 33, 36, 39, 43, 47, 51, 56, 62, 68, 75, 82, 91)
_LONGEST_MS = 620_000_000
LEVELS_MS = tuple(
    level
    for exponent in range(1, 8)
    for level in (mantissa * 10**exponent for mantissa in _E24)
    if 100 <= level <= _LONGEST_MS
)


def level_for(delay_ms: float) -> int:
    """
    The shortest delay level, in milliseconds, that is not shorter than *delay_ms*; the longest (7.2 days) for more.

    100, 110, 120, 130, 150, … 1 000, 1 100, …: a delay grows by at most 15.4 %. Whoever waits longer than the longest
    level comes back early, sees ``mail.due_ms`` and waits again.
    """
    level: int = LEVELS_MS[min(bisect.bisect_left(LEVELS_MS, delay_ms), len(LEVELS_MS) - 1)]
    return level


#: milliseconds; what is held need not come back to the millisecond, and each level is a queue
_HOLD_STEPS_MS = (510, 1_000, 2_000, 3_000, 5_100, 10_000, 20_000)


def hold_levels(probe_s: float) -> list[int]:
    """
    The delay levels for held mail, in milliseconds: a few up to *probe_s*, and a few above it for a large backlog.
    """
    probe_ms = LEVELS_MS[max(bisect.bisect_right(LEVELS_MS, probe_s * 1000) - 1, 0)]
    above = (level_for(probe_ms * factor) for factor in (2, 4, 10))
    return sorted({*(step for step in _HOLD_STEPS_MS if step < probe_ms), probe_ms, *above})


def are_empty(connection: Connection, queues: Iterable[str]) -> bool:
    """Whether no message waits in any of *queues*; one that does not exist is empty."""
    return not any(count(connection, queue) for queue in queues)


def count(connection: Connection, queue: str) -> int:
    """How many messages wait in *queue*; none where there is no such queue."""
    try:
        with connection.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).message_count)
    except NotFound:
        return 0


def lane_queue_name(lane: str) -> str:
    """The work queue of priority *lane*."""
    return f"mail.send.{VERSION}.{lane}"


def again_queue_name(lane: str) -> str:
    """Where mail of priority *lane* comes back to that has waited, so that new mail can pass a storm of retries."""
    return f"mail.again.{VERSION}.{lane}"


def queue_names(lane: str) -> tuple[str, str]:
    """The two queues from which mail of priority *lane* is taken, but for turns."""
    return lane_queue_name(lane), again_queue_name(lane)


#: Parts of the tenants that share a queue where mail waits for its turn: two tenants meet in one of 32 cases. Each is a
#: queue, declared when it is first needed.
TENANT_PARTS = 32


def tenant_number(tenant: str) -> int:
    """What stands for *tenant* in a header: 32 bits, and nothing that a name could be read from."""
    return zlib.crc32(tenant.encode("utf-8", "surrogatepass"))


def part_of(number: object) -> int:
    """The part of a tenant with this number (1 to `TENANT_PARTS`), 0 for mail of no tenant and for anything else."""
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        return 0
    return number % TENANT_PARTS + 1


_READABLE = re.compile(r"(?:mailer|domain|lane):[A-Za-z0-9._-]{1,60}")


def turn_queue_name(lane: str, key: str, part: int) -> str:
    """
    Where mail of priority *lane* waits for its turn with *key*, such as ``mailer:default``; one queue for each *part*.

    Keys that are no short names, and those of tenants, who may be called by an address, stand there as a hash.
    """
    word = key if _READABLE.fullmatch(key) else sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"mail.turn.{VERSION}.{lane}.{word}.{part}"


def delay_name(level_ms: int) -> str:
    """The name of a delay level's exchange and of its queue."""
    return f"mail.delay.{VERSION}.{level_ms}"


def _quorum(name: str, **arguments: object) -> Queue:
    return Queue(name, durable=True, queue_arguments={"x-queue-type": "quorum", **arguments}, no_declare=False)


_AT_LEAST_ONCE = {
    "x-dead-letter-exchange": "",
    "x-dead-letter-strategy": "at-least-once",
    # at-least-once dead-lettering demands it: a full target pushes back instead of dropping its head
    "x-overflow": "reject-publish",
}


def work_queue(name: str) -> Queue:
    """A queue whose messages are parked, not lost, when they come back too often."""
    return _quorum(name, **_AT_LEAST_ONCE, **{"x-dead-letter-routing-key": PARKED, "x-delivery-limit": DELIVERY_LIMIT})


def lane_queue(lane: str) -> Queue:
    """The work queue of priority *lane*: high, normal or bulk."""
    return work_queue(lane_queue_name(lane))


def again_queue(lane: str) -> Queue:
    """The queue of what comes back to priority *lane*."""
    return work_queue(again_queue_name(lane))


def is_there(connection: Connection, name: str) -> bool:
    """Whether a queue of this name is declared."""
    try:
        with connection.channel() as channel:
            channel.queue_declare(name, passive=True)
    except NotFound:
        return False
    return True


def parked_queue() -> Queue:
    """What was returned too often; the service moves it to the error log without looking inside."""
    return _quorum(PARKED, **{"x-delivery-limit": NO_DELIVERY_LIMIT})


def event_queue() -> Queue:
    """One durable queue for the ``send_email`` events of all sources."""
    return work_queue(EVENTS)


def event_exchange(source: str) -> Exchange:
    """The exchange on which nameko's service *source* dispatches its events."""
    return Exchange(f"{source}.events", type="topic", durable=True)


def delay_exchange(level_ms: int) -> Exchange:
    """The fanout in front of a delay level; it keeps the routing key, which names the queue to return to."""
    return Exchange(delay_name(level_ms), type="fanout", durable=True)


def delay_queue(level_ms: int) -> Queue:
    """A delay level: a message rests for *level_ms* milliseconds and returns to where its routing key says."""
    name = delay_name(level_ms)
    arguments = {"x-queue-type": "quorum", "x-message-ttl": level_ms, **_AT_LEAST_ONCE}
    return Queue(name, exchange=delay_exchange(level_ms), durable=True, queue_arguments=arguments)


def declare_lane(connection: Connection, lane: str) -> None:
    """What a client needs before it can hand over its first mail. Raises ConfigurationError, naming the queue."""
    declare(connection, [parked_queue(), lane_queue(lane)])


def declare_delays(connection: Connection, levels_ms: Iterable[int]) -> None:
    """The delay levels *levels_ms*. Raises ConfigurationError, naming the queue."""
    declare(connection, [delay_queue(level) for level in sorted(set(levels_ms))])


def declare_events(connection: Connection, sources: Iterable[str]) -> None:
    """The event queue, bound to each source's exchange."""
    declare(connection, [parked_queue(), event_queue()])
    with connection.channel() as channel:
        for source in sources:
            exchange = event_exchange(source)
            exchange(channel).declare()
            event_queue()(channel).bind_to(exchange, routing_key=EVENT_TYPE)


def declare_all(connection: Connection, sources: Iterable[str], levels_ms: Iterable[int]) -> None:
    """
    Everything the service uses. Raises ConfigurationError, naming the first queue that exists with other arguments.
    """
    declare(connection, [parked_queue(), *map(lane_queue, LANES), *map(again_queue, LANES)])
    declare_delays(connection, levels_ms)
    declare_events(connection, sources)


def declare(connection: Connection, queues: Iterable[Queue]) -> None:
    """Declare *queues* with their exchanges. Raises ConfigurationError where one exists with other arguments."""
    for queue in queues:
        try:
            with connection.channel() as channel:
                queue(channel).declare()
        except PreconditionFailed as exc:
            raise other_arguments(queue, exc) from exc


def other_arguments(queue: Queue, exc: PreconditionFailed) -> ConfigurationError:
    """The error for a queue that exists with other arguments: they can never be changed."""
    return ConfigurationError(
        f"queue {queue.name!r} exists in this virtual host with other arguments than mail_service needs "
        f"({exc.reply_text}). Move its messages away and delete it, or use a virtual host of your own."
    )
