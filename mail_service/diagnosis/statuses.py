"""
What Anymail's status of a recipient means (``anymail_status.recipients``), and what the answer behind it adds.

Anymail has six words for what fourteen providers say, and some of their answers are more than one of them: Mailjet's
wrong sender is ``failed`` for every recipient, as is Unisender Go's mailbox that is full today.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from mail_service.diagnosis import http, rows
from mail_service.diagnosis.answer import Answer, found, provider_called, read, words
from mail_service.diagnosis.context import Context
from mail_service.diagnosis.provider import AS_KEY, Fates
from mail_service.outcome import Diagnosis, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRow:
    """One line of the table."""

    #: Anymail's word; empty for none at all and for one that Anymail does not have
    status: str
    kind: Kind
    #: who says so
    source: str


#: first match wins
ROWS: Final[tuple[StatusRow, ...]] = (
    StatusRow(status="sent", kind=Kind.ACCEPTED, source="anymail/message.py: the ESP has sent the message"),
    StatusRow(status="queued", kind=Kind.ACCEPTED, source="anymail/message.py: the ESP will try to send it"),
    StatusRow(
        status="unknown",
        kind=Kind.ACCEPTED,
        source='anymail/message.py: "anything else" in an answer of success, such as SparkPost\'s mixed results',
    ),
    StatusRow(status="invalid", kind=Kind.PERMANENT, source="anymail/message.py: the address is not valid"),
    StatusRow(
        status="rejected",
        kind=Kind.PERMANENT,
        source="anymail/message.py: the ESP will not send to it: it bounced or complained before",
    ),
    StatusRow(
        status="failed",
        kind=Kind.PERMANENT,
        source="anymail/message.py: the attempt to send failed for some other reason, where the answer says no more",
    ),
    StatusRow(status="", kind=Kind.ACCEPTED, source="the request was a success, and nothing was said against it"),
)

#: Anymail's words for a recipient who gets nothing
_REFUSED: Final = frozenset({"invalid", "rejected", "failed"})


def diagnose_status(status: str | None, provider: str = "The provider") -> Diagnosis:
    """Say what a recipient's status in a successful answer means; one that we do not know was taken."""
    row = rows.first(ROWS, lambda row: row.status in {status, ""}) or ROWS[-1]
    return Diagnosis(
        kind=row.kind,
        text=f"{provider} answered with the status “{status}”." if status else f"{provider} took the mail.",
        code=f"status {row.status}" if row.status else "",
        certainly_not_sent=row.kind is Kind.PERMANENT,
    )


def diagnose_recipient(
    address: str,
    status: str | None,
    anymail_status: Any,
    context: Context,
    *,
    esp_name: str = "",
    to: Sequence[str] = (),
) -> Diagnosis:
    """
    Say what a provider's answer means for one of its recipients.

    Args:
        status: Anymail's word for this recipient.
        anymail_status: What Anymail put on the message: all recipients' status, and the answer as ``esp_response``.
        esp_name: Anymail's name of the provider; else it is known by the backend's path in *context*.
        to: The addresses of the message's ``to`` in their order, which is that of the results of a batch.
    """
    provider = provider_called(esp_name, context)
    usual = diagnose_status(status, provider.names[0] if provider else "The provider")
    response = getattr(anymail_status, "esp_response", None)
    if response is None:
        return usual
    answer = read(response, provider)
    if status in _REFUSED:
        return _by_fate(answer, address, to, context, usual)
    if answer.status >= 400:
        # Anymail reads Postmark's errors itself, and calls those recipients unknown that they do not name
        others = getattr(anymail_status, "recipients", None) or {}
        return _unnamed(answer, {getattr(each, "status", None) for each in others.values()}, usual, context)
    return usual


def _unnamed(answer: Answer, statuses: set[Any], usual: Diagnosis, context: Context) -> Diagnosis:
    """A recipient whom an answer of failure does not speak about. Nobody got that mail."""
    if statuses & _REFUSED:
        text = "Not sent, since another recipient was refused; goes out without that one."
        return Diagnosis(kind=Kind.TRANSIENT, text=text, code=f"http {answer.status}", certainly_not_sent=True)
    return http.from_answer(answer, f"HTTP {answer.status}: {answer.text[:300]}", context) or usual


def _by_fate(answer: Answer, address: str, to: Sequence[str], context: Context, usual: Diagnosis) -> Diagnosis:
    """What the provider says about this recipient, or about the mail as a whole; else what Anymail made of it."""
    fates = answer.provider.fates if answer.provider else None
    if fates is None:
        return usual
    for item in _items(answer.body, fates, address, to):
        told = replace(answer, codes=tuple(words(item, fates.codes)), text=json.dumps(item, ensure_ascii=False))
        row = rows.first_for(told, fates.rows)
        if row:
            diagnosis = http.judged(told, row, usual.text, context)
            return replace(diagnosis, text=f"{usual.text} {told.text[:300]}")
    return usual


def _items(body: Any, fates: Fates, address: str, to: Sequence[str]) -> list[Any]:
    """The parts of *body* that speak about *address*; all of them when that cannot be told and there is but one."""
    items = list(found(body, fates.items))
    if fates.address == AS_KEY:
        named = (each for each in items if isinstance(each, Mapping))
        return [value for each in named for key, value in each.items() if _same(key, address)]
    if fates.address:
        return [item for item in items for each in words_of_address(item, fates.address) if _same(each, address)]
    if len(items) == 1:
        return items
    places = [place for place, each in enumerate(to) if _same(each, address)]
    return [items[place] for place in places if place < len(items) == len(to)]


def words_of_address(item: Any, path: str) -> list[str]:
    """The addresses at *path* of *item*."""
    return [each for each in found(item, path) if isinstance(each, str)]


def _same(one: Any, other: str) -> bool:
    return isinstance(one, str) and one.lower() == other.lower()
