"""An attempt as a span of its mail's trace: in the place of a ``Handover``, where the service traces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mail_service.delivery.handover import Handed, HandsOver, Turn
from mail_service.envelope import Envelope
from mail_service.holds import Held
from mail_service.ledger.records import Mail
from mail_service.outcome import Kind
from mail_service.tracing import Tracing


class Traced:
    """Tells how each attempt went."""

    def __init__(self, handover: HandsOver, tracing: Tracing) -> None:
        self._handover = handover
        self._tracing = tracing

    def attempt(
        self,
        envelope: Envelope,
        canonical: Mapping[str, Any],
        mail: Mail,
        within_s: float | None = None,
        **more: Any,
    ) -> Handed | Held | Turn:
        """See ``Handover.attempt``."""
        facts: dict[str, Any] = {"mail_id": mail.id, "mailer": mail.mailer, "attempt": mail.attempts + 1}
        with self._tracing.attempting(envelope.trace, **facts) as tell:
            handed = self._handover.attempt(envelope, canonical, mail, within_s, **more)
            tell(*_outcome(handed))
            return handed


def _outcome(handed: Handed | Held | Turn) -> tuple[str, bool]:
    """The word for it in a trace, and whether it went well."""
    if isinstance(handed, Held | Turn):
        return "held", True
    found = {receipt.diagnosis.kind for receipt in handed.receipts}
    return " ".join(sorted(found)), found == {Kind.ACCEPTED}
