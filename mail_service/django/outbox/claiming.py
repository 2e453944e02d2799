"""
Rows that one process hands over and no other meanwhile.

On PostgreSQL they are locked (``SKIP LOCKED``) in a transaction that lasts as long as the hand-over: a process that
dies leaves nothing behind. On SQLite such a transaction would keep everybody else from writing. MySQL and MariaDB lock
also rows that they only look at (seen on MariaDB 10.11: processes that delete their own rows deadlock). There the rows
get a claim instead, in a statement of its own, which is void after a time.

Neither is needed to be right, only to save work: a mail that two processes hand over has the same id.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, transaction
from django.db.models import Q

from mail_service import clock
from mail_service.django.outbox.models import OutboxMail

#: seconds, beyond the client's own time limit, that a process may need for the rows it has claimed
MARGIN_S = 20.0
#: of the messages of one batch, but for a single larger one
_MOST_BYTES = 16_000_000


def waiting(database: str) -> Any:
    """The rows to be handed over."""
    return OutboxMail.objects.using(database).filter(refused_at=None)


@contextmanager
def claimed(entry: str, *, database: str, limit: int, timeout_s: float) -> Iterator[list[OutboxMail]]:
    """
    The next rows of *entry*, in order: at most *limit*, and 16 MB. What is still in the table afterwards is free again.

    Args:
        timeout_s: That handing them over may take.
    """
    rows = waiting(database).filter(entry=entry)
    connection = connections[database]
    has_locks = connection.features.has_select_for_update_skip_locked and connection.vendor != "mysql"
    take = _locked if has_locks else _leased
    with take(rows, database, limit, int((timeout_s + MARGIN_S) * 1000)) as taken:
        yield taken


@contextmanager
def _locked(rows: Any, database: str, limit: int, longest_ms: int) -> Iterator[list[OutboxMail]]:
    with transaction.atomic(using=database):
        if connections[database].vendor == "postgresql":
            # a machine that vanishes closes no connection, and would keep its rows locked for hours
            with connections[database].cursor() as cursor:
                cursor.execute(f"SET LOCAL idle_in_transaction_session_timeout = {longest_ms:d}")
        numbers = _next(rows.select_for_update(skip_locked=True), limit)
        yield list(rows.filter(number__in=numbers).order_by("number"))


@contextmanager
def _leased(rows: Any, database: str, limit: int, longest_ms: int) -> Iterator[list[OutboxMail]]:
    me = uuid.uuid4().hex
    now = clock.now_ms()
    free = rows.filter(Q(claimed_until_ms=None) | Q(claimed_until_ms__lt=now))
    # the condition once more: of two processes that saw the same rows, the second updates none of them
    free.filter(number__in=_next(free, limit)).update(claimed_by=me, claimed_until_ms=now + longest_ms)
    mine = OutboxMail.objects.using(database).filter(claimed_by=me)
    try:
        yield list(mine.order_by("number"))
    finally:
        mine.update(claimed_by=None, claimed_until_ms=None)


def _next(rows: Any, limit: int) -> list[int]:
    numbers: list[int] = []
    total = 0
    for number, size in rows.order_by("number").values_list("number", "size")[:limit]:
        total += size
        if numbers and total > _MOST_BYTES:
            break
        numbers.append(number)
    return numbers
