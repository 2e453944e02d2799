"""
Fetch a mail's large attachments before it is handed over, or say why it cannot be: in the place of a ``Handover``.

Hooks and all mailers of the attempt then have the message as it was handed in.
"""

from __future__ import annotations

import time
from dataclasses import replace

from mail_service import clock
from mail_service.blobs import BlobMissing, StoreAway
from mail_service.delivery.deadline import Deadline
from mail_service.delivery.handover import Handed, HandsOver, Order, Round, Turn, receipts_for
from mail_service.diagnosis import DeadlineExceeded
from mail_service.errors import InvalidMessage
from mail_service.holds import Held
from mail_service.ledger.records import Mail
from mail_service.message import references
from mail_service.outcome import Diagnosis, Kind
from mail_service.storeroom import Storeroom


class Fetching:
    """Hands over complete messages."""

    def __init__(self, handover: HandsOver, storeroom: Storeroom, *, deadline: Deadline) -> None:
        self._handover = handover
        self._storeroom = storeroom
        self._deadline = deadline

    def attempt(self, order: Order) -> Handed | Held | Turn:
        """See ``Handover.attempt``. Whatever happens to a blob ends in receipts."""
        if not references.has_any(order.canonical):
            return self._handover.attempt(order)
        end = self._deadline.end(order.within_s)
        try:
            complete = self._deadline.run(lambda: self._storeroom.fetch(order.canonical), order.within_s)
        except (BlobMissing, InvalidMessage, StoreAway, DeadlineExceeded) as exc:
            return _without_content(order.mail, exc)
        left_s = max(end - time.monotonic(), 0.0)
        return self._handover.attempt(replace(order, canonical=complete, within_s=left_s))


def _without_content(mail: Mail, exc: Exception) -> Handed:
    """What is not in the store will not be there later; a store that is away, or slow, may be."""
    is_away = isinstance(exc, StoreAway | DeadlineExceeded)
    text = f"the attachments could not be fetched: {exc}" if is_away else str(exc)
    kind = Kind.TRANSIENT if is_away else Kind.PERMANENT
    diagnosis = Diagnosis(kind=kind, text=text, code="blobs", certainly_not_sent=True)
    receipts = receipts_for(mail.open_recipients, diagnosis)
    round_ = Round(mailer=mail.mailer, receipts=receipts, at=clock.now_iso(), seconds=0.0)
    return Handed(rounds=[round_], receipts=receipts)
