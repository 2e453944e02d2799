"""
Out of the outbox: rows to RabbitMQ, in order, and away once it has confirmed them.

A row is deleted only after its mail is confirmed. If the process ends before that, or the outcome is unknown, the same
row is handed over again, with the same id.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from mail_service.client import MailClient
from mail_service.django.backend import EmailBackend
from mail_service.django.outbox.claiming import claimed, waiting
from mail_service.django.outbox.models import OutboxMail
from mail_service.errors import ConfigurationError, InvalidMessage, MailServiceError

#: mails of a batch, which are confirmed and deleted together
BATCH = 500


@dataclass(slots=True, kw_only=True)
class Tally:
    """How far it got."""

    handed_over: int = 0
    refused: int = 0
    #: why the rest was not handed over, by entry; empty when nothing is left but what others have claimed
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def problem(self) -> str | None:
        """All of them as a sentence for people."""
        return "; ".join(f"{entry}: {text}" if entry else text for entry, text in self.problems.items()) or None


@dataclass(slots=True)
class _Verdict:
    """What became of a batch, by the rows' numbers."""

    confirmed: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    problem: str | None = None


def hand_over_all(
    database: str, *, batch: int = BATCH, is_over: Callable[[], bool] = lambda: False, tally: Tally | None = None
) -> Tally:
    """
    Hand over what waits in *database*, until nothing is left that can be, or *is_over* says so after a batch.

    What keeps one entry of ``MAILERS`` waiting (its broker is down) does not concern the others. Raises DatabaseError.

    Args:
        tally: To be added to, for who wants to know it even if the database fails in between.
    """
    tally = tally or Tally()
    # without order_by(), since the order would be part of what is distinct
    for entry in sorted(set(waiting(database).order_by().values_list("entry", flat=True).distinct())):
        while not is_over() and _hand_over_batch(entry, database, batch, tally):
            pass
    return tally


def _hand_over_batch(entry: str, database: str, limit: int, tally: Tally) -> bool:
    """Whether there may be more."""
    try:
        backend = _backend(entry)
        client = backend.client
    except ImproperlyConfigured as exc:
        tally.problems[entry] = str(exc)
        return False
    with claimed(entry, database=database, limit=limit, timeout_s=backend.settings.timeout_s) as rows:
        if not rows:
            return False
        verdict = _hand_over(client, rows)
        settle(verdict, database)
    tally.handed_over += len(verdict.confirmed)
    tally.refused += len(verdict.refused)
    if verdict.problem:
        tally.problems[entry] = verdict.problem
    return verdict.problem is None


def _backend(entry: str) -> EmailBackend:
    """The backend whose service is meant; the settings are those of today."""
    if not entry:
        return EmailBackend()
    mailers = getattr(mail, "mailers", None)
    backend = mailers[entry] if mailers is not None else None
    if not isinstance(backend, EmailBackend):
        raise ImproperlyConfigured(f"mails wait for MAILERS[{entry!r}], which does not use the mail service any more")
    return backend


def _hand_over(client: MailClient, rows: Sequence[OutboxMail]) -> _Verdict:
    verdict = _Verdict()
    mails = _readable(rows, verdict)
    try:
        answers = client.submit_many(mails.values())
    except (MailServiceError, ConfigurationError) as exc:
        verdict.problem = str(exc)
    except Exception as exc:  # noqa: BLE001  # whatever one mail brings about, the others are not held up by it
        if len(rows) == 1:
            verdict.refused[rows[0].number] = f"{type(exc).__name__}: {exc}"
        else:
            return _one_by_one(client, rows)
    else:
        for number, answer in zip(mails, answers, strict=True):
            _judge(number, answer, verdict)
    return verdict


def _one_by_one(client: MailClient, rows: Sequence[OutboxMail]) -> _Verdict:
    verdict = _Verdict()
    for row in rows:
        one = _hand_over(client, [row])
        verdict.confirmed += one.confirmed
        verdict.refused |= one.refused
        if one.problem:
            verdict.problem = one.problem
            break
    return verdict


def _readable(rows: Sequence[OutboxMail], verdict: _Verdict) -> dict[int, dict[str, Any]]:
    """What to hand over, by number; a row that somebody has damaged is refused."""
    found = {}
    for row in rows:
        try:
            found[row.number] = {**json.loads(row.message), "options": {**json.loads(row.options), "id": row.mail_id}}
        except (ValueError, TypeError, RecursionError) as exc:
            verdict.refused[row.number] = f"the row cannot be read: {type(exc).__name__}: {exc}"
    return found


def _judge(number: int, answer: dict[str, Any], verdict: _Verdict) -> None:
    error = answer.get("error")
    if error is None:
        verdict.confirmed.append(number)
    elif error["type"] == InvalidMessage.__name__:
        verdict.refused[number] = str(error["message"])
    else:
        verdict.problem = str(error["message"])


def settle(verdict: _Verdict, database: str) -> None:
    """Delete what is confirmed, and mark what is refused."""
    rows = OutboxMail.objects.using(database)
    if verdict.confirmed:
        rows.filter(number__in=verdict.confirmed).delete()
    for number, text in verdict.refused.items():
        rows.filter(number=number).update(refused_at=timezone.now(), error=text)
