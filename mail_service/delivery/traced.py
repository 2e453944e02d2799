"""An attempt as a span of its mail's trace: in the place of a ``Handover``, where the service traces."""

from __future__ import annotations

from typing import Any

from mail_service.delivery.handover import Handed, HandsOver, Order, Turn
from mail_service.holds import Held
from mail_service.outcome import Kind
from mail_service.tracing import Tracing


class Traced:
    """Tells how each attempt went."""

    def __init__(self, handover: HandsOver, tracing: Tracing) -> None:
        self._handover = handover
        self._tracing = tracing

    def attempt(self, order: Order) -> Handed | Held | Turn:
        """See ``Handover.attempt``."""
        mail = order.mail
        facts: dict[str, Any] = {"mail_id": mail.id, "mailer": mail.mailer, "attempt": mail.attempts + 1}
        with self._tracing.attempting(order.envelope.trace, **facts) as tell:
            handed = self._handover.attempt(order)
            tell(*_outcome(handed))
            return handed


def _outcome(handed: Handed | Held | Turn) -> tuple[str, bool]:
    """The word for it in a trace, and whether it went well."""
    if isinstance(handed, Held | Turn):
        return "held", True
    found = {receipt.diagnosis.kind for receipt in handed.receipts}
    return " ".join(sorted(found)), found == {Kind.ACCEPTED}
