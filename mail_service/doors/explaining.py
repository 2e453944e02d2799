"""
Tell the story of one mail as an operator would: what happened, why it is where it is, and what happens next.

Pure: what is known goes in, sentences come out. Each is true of the moment it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mail_service import clock
from mail_service.holds.pauses import longest
from mail_service.ledger.histories import History
from mail_service.ledger.holdings import Hold
from mail_service.ledger.pauses import HELD_BY_A_PAUSE, Pause
from mail_service.ledger.records import RAW, Attempt, Mail
from mail_service.ledger.suppressions import ON_THE_LIST
from mail_service.ledger.waiting import CANCELLED
from mail_service.limits.keys import HELD_BY_A_LIMIT
from mail_service.outcome import Kind, Status

#: how Python begins a traceback, which the error log shows whole
_TRACEBACK = "Traceback (most recent call last):"

_CAME = {
    "send": "accepted from a caller of send",
    "submit": "accepted from submit, a client, Django or the command line",
    "event": "accepted as a send_email event",
    RAW: "arrived as a message that could not be used",
}

_ENDED = {
    Kind.ACCEPTED: "accepted",
    Kind.TRANSIENT: "failed in a way that may pass",
    Kind.THROTTLED: "was asked to wait",
    Kind.CONFIGURATION: "failed because something has to be mended",
    Kind.PERMANENT: "failed for good",
    Kind.UNKNOWN: "ended without anybody knowing whether it was accepted",
}


def explain(
    history: History, *, pauses: Sequence[Pause] = (), holds: Sequence[Hold] = (), attempt_timeout_s: float = 120
) -> dict[str, Any]:
    """
    ``{"record", "timeline": [{"at", "what", "text"}], "why", "next"}``, oldest first.

    Args:
        pauses: All that hold now.
        holds: That of the mail's own mailer as a whole, if it is held.
    """
    why, then = _situation(history, pauses, holds, attempt_timeout_s)
    return {"record": history.mail.record(), "timeline": timeline(history), "why": why, "next": then}


def timeline(history: History) -> list[dict[str, str]]:
    """What happened, oldest first."""
    mail = history.mail
    events = [_event(mail.submitted_at, "accepted", _accepted(mail))]
    events += [
        _event(each.at, "attempt", _attempted(number, each)) for number, each in enumerate(history.attempts, start=1)
    ]
    if mail.status != Status.QUEUED:
        text = f"{mail.status}: {_headline(mail.error)}" if mail.error else str(mail.status)
        events.append(_event(mail.updated_at, str(mail.status), text))
    elif mail.not_before is not None:
        events.append(_event(mail.updated_at, "rescheduled", f"put off until {mail.not_before}"))
    return sorted(events, key=lambda event: event["at"])


def _event(at: str, what: str, text: str) -> dict[str, str]:
    return {"at": at, "what": what, "text": text}


def _accepted(mail: Mail) -> str:
    came = _CAME.get(mail.door, _CAME["submit"])
    if mail.door == RAW:
        return came
    tenant = f", tenant {mail.tenant}" if mail.tenant is not None else ""
    count = len(mail.recipients)
    people = "1 recipient" if count == 1 else f"{count} recipients"
    return f"{came}: priority {mail.priority}, mailer {mail.mailer}{tenant}, {people}"


def _attempted(number: int, attempt: Attempt) -> str:
    how = _ENDED.get(Kind(attempt.diagnosis), attempt.diagnosis) if attempt.diagnosis in set(Kind) else "ended"
    said = _headline(attempt.text) or next(
        (state["detail"] for state in attempt.recipients.values() if state.get("detail")), ""
    )
    took = f"after {attempt.milliseconds / 1000:.3g} s"
    return f"attempt {number} by mailer {attempt.mailer} {how} {took}" + (f": {said}" if said else "")


def _situation(
    history: History, pauses: Sequence[Pause], holds: Sequence[Hold], attempt_timeout_s: float
) -> tuple[str, str]:
    mail = history.mail
    if mail.status.is_final:
        return _reason_of_the_end(mail), _after_the_end(history)
    if history.is_being_attempted:
        return (
            "It is being attempted at this moment.",
            f"What comes of it is known after at most {attempt_timeout_s:g} seconds.",
        )
    if history.is_interrupted:
        return (
            "Its process ended in the middle of an attempt; nobody knows whether it was accepted.",
            "RabbitMQ gives it to another process, which records the attempt as unknown and goes by on_unknown.",
        )
    why, then = _why_it_waits(mail, longest(pauses, mail), holds)
    if history.expires_at:
        then += f" It ends as expired if it is still not sent at {history.expires_at}."
    return why, then


def _why_it_waits(mail: Mail, pause: Pause | None, holds: Sequence[Hold]) -> tuple[str, str]:
    put_off = mail.not_before if mail.not_before and mail.not_before > clock.now_iso() else None
    if pause:
        return f"It is {pause.text}.", _end_of(pause) + (f", but not before {put_off}." if put_off else ".")
    if put_off:
        return (
            f"Somebody has rescheduled it to {put_off}.",
            f"It is attempted at {put_off}; reschedule it again or cancel it.",
        )
    if mail.status == Status.HELD:
        return _why_it_is_held(mail, holds)
    return _why_it_was_not_attempted(mail, holds) if mail.status == Status.QUEUED else _why_it_failed(mail)


def _why_it_failed(mail: Mail) -> tuple[str, str]:
    return (
        f"The last attempt failed in a way that may pass: {_headline(mail.error) or 'nobody said why'}.",
        f"{_at(mail)}: attempt {mail.attempts + 1}. `mail-service retry-now` does not wait for that.",
    )


def _why_it_was_not_attempted(mail: Mail, holds: Sequence[Hold]) -> tuple[str, str]:
    if mail.next_attempt_at and mail.next_attempt_at > clock.now_iso():
        return "Its send_at has not come.", f"{_at(mail)}: its first attempt, or whatever `reschedule` says."
    if holds:
        return f"Its mailer is held ({holds[0].reason}): {_headline(holds[0].text)}.", _release_of(mail, holds[0])
    return (
        f"It waits for a worker of priority {mail.priority}.",
        "It is attempted as soon as one is free.",
    )


def _end_of(pause: Pause) -> str:
    options = "".join(
        f" --{name} {value}" for name in ("mailer", "tenant", "priority") if (value := getattr(pause, name)) is not None
    )
    by_hand = f"when somebody resumes it (`mail-service resume{options}`)"
    return f"It goes on at {pause.until}, or {by_hand}" if pause.until else f"It goes on {by_hand}"


def _why_it_is_held(mail: Mail, holds: Sequence[Hold]) -> tuple[str, str]:
    error = _headline(mail.error) or "nobody said why"
    if error.startswith(HELD_BY_A_PAUSE):
        return "It was held by a pause, which is over.", f"It is on its way again; at the latest: {_at(mail)}."
    if holds:
        return f"It is held: {error}.", _release_of(mail, holds[0])
    if error.startswith(HELD_BY_A_LIMIT):
        return f"It is held: {error}.", _turn_of(mail)
    return (
        f"It is held: {error}.",
        f"{_at(mail)}: looked at again. `mail-service retry-now` does not wait for that.",
    )


def _turn_of(mail: Mail) -> str:
    soon = mail.next_attempt_at is None or mail.next_attempt_at <= clock.now_iso()
    when = "any moment now" if soon else f"at about {mail.next_attempt_at}"
    return f"It goes on by itself when its turn comes, {when}; higher priorities go before it."


def _release_of(mail: Mail, hold: Hold) -> str:
    return (
        f"One mail is tried as a probe, next at {hold.until}; when it is accepted, all go on by themselves. "
        f"`mail-service retry-now --mailer {mail.mailer}` probes at once."
    )


def _at(mail: Mail) -> str:
    return f"At {mail.next_attempt_at}" if mail.next_attempt_at else "Now"


def _reason_of_the_end(mail: Mail) -> str:
    error = f": {_headline(mail.error)}" if mail.error else ""
    by_hand = mail.status == Status.DISCARDED and not (mail.error or "").startswith(CANCELLED)
    return {
        Status.SENT: "Every recipient was accepted.",
        Status.PARTLY_SENT: f"Somebody was accepted, the rest ended otherwise{error}.",
        Status.FAILED: f"It failed for good{error}.",
        Status.EXPIRED: f"Its retries or its time were used up{error}.",
        Status.SUPPRESSED: f"Nobody was left to mail{error.removeprefix(': nobody was left to mail')}.",
        Status.DISCARDED: f"Somebody marked it as dealt with{error}."
        if by_hand
        else f"It was {_headline(mail.error)}.",
    }[mail.status]


def _after_the_end(history: History) -> str:
    mail = history.mail
    if mail.status == Status.SENT:
        return "Nothing: it is done."
    if not history.has_content:
        return "Nothing: its content is not in the database, so it cannot be replayed."
    if history.expires_at is not None and history.expires_at <= clock.now_iso():
        return f"Nothing. A replay would expire at once: its expires_at was {history.expires_at}. Hand in a new mail."
    replay = f"`mail-service errors replay {mail.id}` attempts it again for those without acceptance"
    if any(ON_THE_LIST in (state.get("detail") or "") for state in mail.recipients.values()):
        replay += ", whom to `mail-service unsuppress` first if they are to get it"
    done = (
        "" if mail.status == Status.DISCARDED else f"; `mail-service errors discard {mail.id}` marks it as dealt with"
    )
    return f"Nothing by itself. {replay}{done}."


def _headline(text: str | None) -> str:
    """A text on one line, without the traceback that may follow it and the full stop that we add."""
    said, mark, _ = (text or "").partition(_TRACEBACK)
    return " ".join(said.split()).rstrip(".") or ("an exception" if mark else "")
