"""
Decide what comes after an attempt. Pure: receipts go in, the mail's next state comes out; no clock, no broker, no
database.

    every recipient accepted            sent
    some transient (or unknown)         deferred: another attempt for those alone
    nobody transient, some held         held: another look, no attempt used up
    the rest                            final: sent, partly_sent, failed, expired …
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from mail_service.ledger.records import Mail, recipient
from mail_service.outcome import Diagnosis, Kind, Receipt, Status

#: The error log shows one diagnosis per attempt: of several, the one that decides.
_WEIGHT = (Kind.ACCEPTED, Kind.PERMANENT, Kind.CONFIGURATION, Kind.THROTTLED, Kind.TRANSIENT, Kind.UNKNOWN)

#: After this many ends of the process during attempts of one mail, the mail is taken to be the cause.
MOST_DEATHS = 5


class Step(Enum):
    """What happens next."""

    FINAL = auto()
    RETRY = auto()
    HOLD = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A mail after an attempt, and what happens next."""

    mail: Mail
    step: Step
    #: the diagnosis that decided
    diagnosis: Diagnosis
    #: seconds the other side asked us to wait
    wait_s: float | None = None


def settle(mail: Mail, receipts: Sequence[Receipt], *, on_unknown: str = "retry") -> Settled:
    """
    What *receipts* make of *mail*.

    The mail's own ``status`` and ``next_attempt_at`` are only set for Step.FINAL: a retry may still turn out to be
    expired.
    """
    if on_unknown == "give_up":
        receipts = [_given_up(receipt) for receipt in receipts]
    states = {receipt.address: state_of(receipt, on_unknown) for receipt in receipts}
    deciding = deciding_of(receipts)
    statuses = {state["status"] for state in states.values()}
    step = Step.RETRY if Status.DEFERRED in statuses else Step.HOLD if Status.HELD in statuses else Step.FINAL
    recipients = {**mail.recipients, **states}
    error = None if deciding.kind == Kind.ACCEPTED else deciding.text or str(deciding.kind)
    attempts = mail.attempts + 1 if receipts and step != Step.HOLD else mail.attempts
    # one replace(): it costs as much as the rest of this
    if step == Step.FINAL:
        error = error or suppressed_text(recipients)
        mail = finished(mail, recipients=recipients, error=error, attempts=attempts)
    else:
        mail = replace(mail, recipients=recipients, error=error, attempts=attempts)
    waits = [receipt.diagnosis.wait_s for receipt in receipts if receipt.diagnosis.wait_s]
    return Settled(mail=mail, step=step, diagnosis=deciding, wait_s=max(waits, default=None))


def deciding_of(receipts: Sequence[Receipt]) -> Diagnosis:
    """Of several diagnoses, the one that decides what comes next."""
    return max(
        (receipt.diagnosis for receipt in receipts),
        key=lambda diagnosis: _WEIGHT.index(diagnosis.kind),
        default=Diagnosis(kind=Kind.ACCEPTED),
    )


_STATUS_OF = {
    Kind.ACCEPTED: Status.SENT,
    Kind.TRANSIENT: Status.DEFERRED,
    Kind.UNKNOWN: Status.DEFERRED,
    Kind.THROTTLED: Status.HELD,
    Kind.CONFIGURATION: Status.HELD,
    Kind.PERMANENT: Status.FAILED,
}


def _given_up(receipt: Receipt) -> Receipt:
    """Nobody tries again, so that the outcome is unknown has to stand wherever the failure is shown."""
    if receipt.diagnosis.kind != Kind.UNKNOWN:
        return receipt
    text = f"the outcome is unknown, it may have been accepted: {receipt.diagnosis.text}"
    return replace(receipt, diagnosis=replace(receipt.diagnosis, text=text))


def state_of(receipt: Receipt, on_unknown: str = "retry") -> Mapping[str, Any]:
    """What a receipt makes of its recipient, as a record has it."""
    kind, text = receipt.diagnosis.kind, receipt.diagnosis.text
    if kind == Kind.UNKNOWN and on_unknown == "give_up":
        return recipient(Status.FAILED, detail=text)
    return recipient(_STATUS_OF[kind], message_id=receipt.message_id, detail=text or None)


def suppressed_text(recipients: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What the record of a mail says whose *recipients*, or some of them, were not mailed, being suppressed."""
    details = [state["detail"] for state in recipients.values() if state["status"] == Status.SUPPRESSED]
    if not details:
        return None
    whom = "nobody was left to mail" if len(details) == len(recipients) else f"{len(details)} not mailed"
    return f"{whom}: {details[0]}"


def finished(mail: Mail, *, recipients: Mapping[str, Mapping[str, Any]], **more: Any) -> Mail:
    """*mail* with these *recipients*, the final status that they add up to, and what *more* is to be changed."""
    status = final_status([Status(state["status"]) for state in recipients.values()])
    return replace(mail, recipients=recipients, status=status, next_attempt_at=None, **more)


def final_status(statuses: Sequence[Status]) -> Status:
    """
    Of a mail whose recipients ended in *statuses*.

    All alike: that. Some sent: partly_sent. Else failed where anybody failed, then expired, discarded, suppressed.
    """
    kinds = set(statuses)
    if len(kinds) == 1:
        return kinds.pop()
    if Status.SENT in kinds:
        return Status.PARTLY_SENT
    return next(
        (status for status in (Status.FAILED, Status.EXPIRED, Status.DISCARDED) if status in kinds), Status.FAILED
    )


def expired(mail: Mail, reason: str) -> Mail:
    """*mail* at the end of its time: who still waits has expired."""
    return ended(mail, Status.EXPIRED, reason)


def ended(mail: Mail, status: Status, reason: str) -> Mail:
    """*mail*, with everybody who still waits ended in *status*."""
    recipients = {
        address: {**state, "status": str(status), "detail": state.get("detail") or reason}
        if not Status(state["status"]).is_final
        else state
        for address, state in mail.recipients.items()
    }
    if not recipients:
        return replace(mail, status=status, error=reason, next_attempt_at=None)
    error = reason if mail.error is None else f"{reason}; last: {mail.error}"
    return finished(mail, recipients=recipients, error=error)


def waiting(mail: Mail, status: Status, next_attempt_at: str) -> Mail:
    """*mail* on its way to another attempt: deferred or held until *next_attempt_at*."""
    return replace(mail, status=status, next_attempt_at=next_attempt_at)
