"""Into the outbox: rows in the caller's transaction. Only the backend calls this, with mails that it has checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db import router, transaction
from django.utils import timezone

from mail_service.django.outbox.models import OutboxMail

#: bytes of messages in one INSERT; MySQL's max_allowed_packet is 16 MB and more
_MOST_BYTES = 4_000_000

Mail = tuple[Mapping[str, Any], Mapping[str, Any]]


def store(mails: Sequence[Mail], *, entry: str | None = None) -> list[dict[str, Any]]:
    """
    Write *mails* to the outbox, all or none; returns for each ``{"id", "status": "queued", "outbox": True}``, in order.

    Args:
        mails: Message and options of each; the options are JSON-ready and have an ``id``.
        entry: Name of the entry of ``MAILERS`` they are sent with.

    Raises DatabaseError.
    """
    database = router.db_for_write(OutboxMail)
    with transaction.atomic(using=database):
        for rows in _groups([_row(message, options, entry or "") for message, options in mails]):
            OutboxMail.objects.using(database).bulk_create(rows)
    return [{"id": options["id"], "status": "queued", "outbox": True} for _, options in mails]


def _row(message: Mapping[str, Any], options: Mapping[str, Any], entry: str) -> OutboxMail:
    text = json.dumps(message, separators=(",", ":"))
    others = {name: value for name, value in options.items() if name != "id"}
    return OutboxMail(
        mail_id=options["id"],
        entry=entry,
        message=text,
        options=json.dumps(others, separators=(",", ":")),
        size=len(text),
        stored_at=timezone.now(),
    )


def _groups(rows: Sequence[OutboxMail]) -> Iterator[list[OutboxMail]]:
    """Groups of at most 4 MB, but for a single larger mail."""
    group: list[OutboxMail] = []
    size = 0
    for row in rows:
        if group and size + row.size > _MOST_BYTES:
            yield group
            group, size = [], 0
        group.append(row)
        size += row.size
    if group:
        yield group
