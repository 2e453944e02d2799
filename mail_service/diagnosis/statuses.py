"""What Anymail's status of a recipient means (``anymail_status.recipients``)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mail_service.outcome import Diagnosis, Kind

#: From anymail/message.py, ANYMAIL_STATUSES: ``unknown`` is "anything else" that a provider answers with success.
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "sent": Kind.ACCEPTED,
        "queued": Kind.ACCEPTED,
        "unknown": Kind.ACCEPTED,
        "invalid": Kind.PERMANENT,
        "rejected": Kind.PERMANENT,
        "failed": Kind.PERMANENT,
    }
)


def diagnose_status(status: str | None, provider: str = "The provider") -> Diagnosis:
    """Say what a recipient's status in a successful answer means; one that we do not know was taken."""
    kind = KINDS.get(str(status), Kind.ACCEPTED)
    return Diagnosis(
        kind=kind,
        text=f"{provider} answered with the status “{status}”." if status else f"{provider} took the mail.",
        code=f"status {status}" if status in KINDS else "",
        certainly_not_sent=kind is Kind.PERMANENT,
    )
