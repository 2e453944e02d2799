"""What receipts make of a mail: every rule as a row, without broker, clock or database."""

from __future__ import annotations

import pytest

from mail_service.delivery.settling import Step, ended, expired, final_status, settle, waiting
from mail_service.ledger.records import Mail, recipient
from mail_service.outcome import Diagnosis, Kind, Receipt, Status

A, B, C = "a@example.org", "b@example.org", "c@example.org"


def a_mail(*addresses: str, **facts: object) -> Mail:
    recipients = {address: recipient(Status.QUEUED) for address in addresses or (A,)}
    defaults: dict[str, object] = {"id": "m", "status": Status.QUEUED, "mailer": "default", "recipients": recipients}
    return Mail(**{**defaults, **facts})  # type: ignore[arg-type]


def a_receipt(address: str, kind: Kind, **facts: object) -> Receipt:
    return Receipt(address=address, diagnosis=Diagnosis(kind=kind, text=f"{kind} text", **facts))  # type: ignore[arg-type]


def statuses(mail: Mail) -> dict[str, str]:
    return {address: state["status"] for address, state in mail.recipients.items()}


@pytest.mark.parametrize(
    ("kind", "step", "status", "attempts"),
    [
        pytest.param(Kind.ACCEPTED, Step.FINAL, "sent", 1, id="accepted is sent"),
        pytest.param(Kind.TRANSIENT, Step.RETRY, "deferred", 1, id="transient is retried"),
        pytest.param(Kind.UNKNOWN, Step.RETRY, "deferred", 1, id="unknown is retried"),
        pytest.param(Kind.THROTTLED, Step.HOLD, "held", 0, id="throttled is held and costs no attempt"),
        pytest.param(Kind.CONFIGURATION, Step.HOLD, "held", 0, id="configuration is held and costs no attempt"),
        pytest.param(Kind.PERMANENT, Step.FINAL, "failed", 1, id="permanent has failed after one attempt"),
    ],
)
def test_what_one_recipients_diagnosis_means(kind: Kind, step: Step, status: str, attempts: int) -> None:
    settled = settle(a_mail(), [a_receipt(A, kind)])

    assert (settled.step, settled.mail.recipients[A]["status"], settled.mail.attempts) == (step, status, attempts)


def test_an_unknown_outcome_that_must_not_be_repeated_has_failed_and_says_so() -> None:
    settled = settle(a_mail(), [a_receipt(A, Kind.UNKNOWN)], on_unknown="give_up")

    assert settled.step is Step.FINAL
    assert settled.mail.status is Status.FAILED
    assert "the outcome is unknown" in settled.mail.recipients[A]["detail"]
    assert settled.diagnosis.kind is Kind.UNKNOWN


@pytest.mark.parametrize(
    ("kinds", "step"),
    [
        pytest.param([Kind.ACCEPTED, Kind.TRANSIENT, Kind.PERMANENT], Step.RETRY, id="one transient: retry"),
        pytest.param([Kind.ACCEPTED, Kind.THROTTLED, Kind.TRANSIENT], Step.RETRY, id="transient wins over throttled"),
        pytest.param([Kind.ACCEPTED, Kind.THROTTLED, Kind.PERMANENT], Step.HOLD, id="held, nobody transient: hold"),
        pytest.param([Kind.ACCEPTED, Kind.PERMANENT, Kind.PERMANENT], Step.FINAL, id="nobody waits: final"),
    ],
)
def test_the_recipients_who_wait_decide_the_step(kinds: list[Kind], step: Step) -> None:
    settled = settle(a_mail(A, B, C), [a_receipt(a, kind) for a, kind in zip((A, B, C), kinds, strict=True)])

    assert settled.step is step


def test_who_was_accepted_keeps_it_whatever_comes_after() -> None:
    first = settle(a_mail(A, B), [a_receipt(A, Kind.ACCEPTED), a_receipt(B, Kind.TRANSIENT)])
    second = settle(first.mail, [a_receipt(B, Kind.PERMANENT)])

    assert first.mail.open_recipients == [B]
    assert statuses(second.mail) == {A: "sent", B: "failed"}
    assert second.mail.status is Status.PARTLY_SENT


def test_the_longest_wait_that_was_asked_for_counts() -> None:
    receipts = [a_receipt(A, Kind.TRANSIENT, wait_s=5), a_receipt(B, Kind.THROTTLED, wait_s=60)]

    assert settle(a_mail(A, B), receipts).wait_s == 60


def test_a_mail_without_open_recipients_costs_no_attempt() -> None:
    mail = a_mail(recipients={A: recipient(Status.SENT)})

    settled = settle(mail, [])

    assert (settled.step, settled.mail.status, settled.mail.attempts) == (Step.FINAL, Status.SENT, 0)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        pytest.param(["sent", "sent"], "sent", id="all sent"),
        pytest.param(["sent", "failed"], "partly_sent", id="some sent"),
        pytest.param(["sent", "suppressed"], "partly_sent", id="some sent, some suppressed"),
        pytest.param(["failed", "expired"], "failed", id="some failed and others expired"),
        pytest.param(["expired", "suppressed"], "expired", id="some expired, some suppressed"),
        pytest.param(["suppressed", "suppressed"], "suppressed", id="all suppressed"),
    ],
)
def test_the_final_status_adds_up(ends: list[str], expected: str) -> None:
    assert final_status([Status(end) for end in ends]) == expected


def test_expiry_ends_those_who_wait_and_keeps_why() -> None:
    tried = settle(a_mail(A, B), [a_receipt(A, Kind.ACCEPTED), a_receipt(B, Kind.TRANSIENT)])

    mail = expired(tried.mail, "too late")

    assert statuses(mail) == {A: "sent", B: "expired"}
    assert mail.status is Status.PARTLY_SENT
    assert mail.error == "too late; last: transient text"
    assert mail.recipients[B]["detail"] == "transient text"


def test_a_mail_whose_recipients_are_not_known_can_end() -> None:
    assert ended(a_mail(recipients={}), Status.FAILED, "unreadable").status is Status.FAILED


def test_a_waiting_mail_says_when_it_goes_on() -> None:
    mail = waiting(a_mail(), Status.DEFERRED, "2026-11-22T03:00:00.000000+00:00")

    assert (mail.status, mail.next_attempt_at) == (Status.DEFERRED, "2026-11-22T03:00:00.000000+00:00")


def test_a_replay_reopens_all_but_the_accepted() -> None:
    mail = a_mail(
        A,
        B,
        status=Status.PARTLY_SENT,
        attempts=4,
        recipients={A: recipient(Status.SENT, message_id="x"), B: recipient(Status.EXPIRED, detail="late")},
        error="late",
    )

    reopened = mail.reopened(7)

    assert (reopened.status, reopened.attempts, reopened.generation, reopened.error) == (Status.QUEUED, 0, 7, None)
    assert reopened.open_recipients == [B]
    assert reopened.recipients[A]["message_id"] == "x"
