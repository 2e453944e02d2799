"""
Look at what waits, and whether the parts answer: for the gauges of ``/metrics``, and for ``/ready``.

The figures are those of the whole system: the queues are RabbitMQ's, the mails the database's, whoever asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from kombu import Connection

from mail_service import clock, topology
from mail_service.amqp.publisher import Publisher, PublishFailed
from mail_service.ledger import StoreDown, tables
from mail_service.ledger.database import Database
from mail_service.ledger.holdings import Hold, Reason
from mail_service.ledger.pauses import HELD_BY_A_PAUSE
from mail_service.limits.keys import HELD_BY_A_LIMIT
from mail_service.outcome import WAITING, Status
from mail_service.settings.mailers import key_of

#: the queues that are looked at, by what they are called in a label
QUEUES: Final = {lane: topology.queue_names(lane) for lane in topology.LANES} | {
    "events": (topology.EVENTS,),
    "parked": (topology.PARKED,),
}
#: the reason of a mail that is held alone: neither its mailer is held nor a sender's mail through it
ALONE: Final = "mail"
#: the reason of a mail that somebody has paused
PAUSED: Final = "paused"
#: the reason of a mail that waits for its turn
LIMIT: Final = "limit"
REASONS: Final = (*map(str, Reason), PAUSED, LIMIT, ALONE)
#: what the ``error`` of a held mail begins with, by the reason that it stands for
_BEGINNINGS: Final = {HELD_BY_A_PAUSE: PAUSED, HELD_BY_A_LIMIT: LIMIT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Queues:
    """What RabbitMQ says: messages that are ready, and consumers of all processes."""

    messages: Mapping[str, int] = field(default_factory=dict)
    consumers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What the database knows of mails that are not final. It hears of one a moment after it was accepted."""

    #: by lane and status
    mails: Mapping[tuple[str, str], int] = field(default_factory=dict)
    #: by reason
    held: Mapping[str, int] = field(default_factory=dict)
    #: seconds since the oldest was accepted, by lane; one that waits for its ``send_at`` does not count
    oldest_s: Mapping[str, float] = field(default_factory=dict)


def ask_broker(publisher: Publisher) -> Queues | None:
    """How full the queues are, or None when the broker does not answer."""
    try:
        found = publisher.declare(_declared)
    except PublishFailed:
        return None
    messages = {name: sum(each.message_count for each in queues) for name, queues in found.items()}
    # both of a lane have one for each process
    consumers = {name: min(each.consumer_count for each in queues) for name, queues in found.items()}
    return Queues(messages=messages, consumers=consumers)


def _declared(connection: Connection) -> dict[str, list[Any]]:
    with connection.channel() as channel:
        return {
            name: [channel.queue_declare(queue, passive=True) for queue in queues] for name, queues in QUEUES.items()
        }


def ask_database(database: Database, holds: Callable[[], Sequence[Hold]]) -> Waiting | None:
    """What waits, or None when the database does not answer."""
    try:
        rows: Sequence[Any] = database.read(_count)
        oldest: Mapping[str, str] = database.read(_oldest)
        return _summed(rows, oldest, _reasons(holds()))
    except StoreDown:
        return None


def _reasons(holds: Sequence[Hold]) -> Mapping[str, str]:
    """By mailer. Where only some senders' mail is held, no mail says whether its sender is among them: most are."""
    by_senders = {hold.mailer: str(hold.reason) for hold in holds if hold.sender}
    return by_senders | {hold.mailer: str(hold.reason) for hold in holds if not hold.sender}


def _count(connection: sa.Connection) -> Sequence[Any]:
    mail = tables.mail.c
    said = sa.case(*((mail.error.startswith(words), reason) for words, reason in _BEGINNINGS.items()), else_="")
    groups = (mail.priority, mail.status, mail.mailer, mail.tenant, said)
    query = sa.select(*groups, sa.func.count()).where(mail.status.in_(sorted(WAITING))).group_by(*groups)
    return list(connection.execute(query))


def _oldest(connection: sa.Connection) -> Mapping[str, str]:
    """When the oldest mail of each lane was accepted, those left out that are not due for the first time."""
    mail = tables.mail.c
    is_early = sa.and_(mail.status == str(Status.QUEUED), mail.next_attempt_at > clock.now_iso())
    query = (
        sa.select(mail.priority, sa.func.min(mail.submitted_at))
        .where(mail.status.in_(sorted(WAITING)), sa.not_(sa.func.coalesce(is_early, sa.false())))
        .group_by(mail.priority)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def _summed(rows: Sequence[Any], oldest: Mapping[str, str], reasons: Mapping[str, str]) -> Waiting:
    mails: Counter[tuple[str, str]] = Counter({(lane, str(status)): 0 for lane in topology.LANES for status in WAITING})
    held: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
    for lane, status, mailer, tenant, said, count in rows:
        mails[lane, status] += count
        if status == Status.HELD and said:
            held[said] += count
        elif status == Status.HELD:
            own = reasons.get(key_of(mailer, tenant)) if tenant else None
            held[own or reasons.get(mailer, ALONE)] += count
    now = clock.now()
    ages = {lane: max(0.0, (now - clock.parse(moment)).total_seconds()) for lane, moment in oldest.items()}
    return Waiting(mails=mails, held=held, oldest_s=dict.fromkeys(topology.LANES, 0.0) | ages)
