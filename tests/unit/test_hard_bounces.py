"""Which refusals put an address on the list of those who are not mailed."""

from __future__ import annotations

import smtplib
from typing import Any

import pytest

from mail_service import clock
from mail_service.delivery.guard import Guard
from mail_service.delivery.handover import Round
from mail_service.delivery.hard_bounces import offers
from mail_service.diagnosis.context import Context
from mail_service.diagnosis.smtp import diagnose_reply, from_error
from mail_service.ledger.records import Mail, recipient
from mail_service.outcome import Diagnosis, Kind, Receipt, Scope, Status
from mail_service.settings import HardBounces

NOBODY = diagnose_reply(550, b"5.1.1 No such user", "rcpt")


def a_mail(status: Status = Status.FAILED, **more: Any) -> Mail:
    moment = clock.now_iso()
    recipients = {"ann@example.org": recipient(status), "bob@example.org": recipient(Status.SENT)}
    facts: dict[str, Any] = {"id": "m", "status": status, "mailer": "default", "recipients": recipients}
    return Mail(**facts | {"submitted_at": moment, "updated_at": moment} | more)


def a_round(diagnosis: Diagnosis, mailer: str = "default") -> Round:
    accepted = Diagnosis(kind=Kind.ACCEPTED)
    receipts = [
        Receipt(address="ann@example.org", diagnosis=diagnosis),
        Receipt(address="bob@example.org", diagnosis=accepted),
    ]
    return Round(mailer=mailer, receipts=receipts, at=clock.now_iso(), seconds=0.1)


ON = HardBounces(suppress=True)


def test_an_address_that_does_not_exist_is_offered_with_reason_and_end() -> None:
    mail = a_mail()

    (entry,) = offers(HardBounces(suppress=True, days=2))(mail, [a_round(NOBODY)])

    assert (entry.address, entry.tenant, entry.since) == ("ann@example.org", None, mail.updated_at)
    assert entry.reason == "hard bounce of mail m: 550 5.1.1 No such user (to RCPT TO)"
    assert entry.until is not None
    assert round((clock.parse(entry.until) - clock.parse(entry.since)).total_seconds() / 86_400, 3) == 2


def test_without_an_end_it_stays() -> None:
    (entry,) = offers(HardBounces(suppress=True, days=None))(a_mail(), [a_round(NOBODY)])

    assert entry.until is None


def test_nobody_is_offered_by_default() -> None:
    assert offers(HardBounces())(a_mail(), [a_round(NOBODY)]) == ()


@pytest.mark.parametrize(
    "diagnosis",
    [
        pytest.param(diagnose_reply(550, b"5.7.1 Blocked", "rcpt"), id="a policy"),
        pytest.param(diagnose_reply(550, b"5.1.1 Your host is on a blocklist", "rcpt"), id="a policy with 5.1.1"),
        pytest.param(diagnose_reply(552, b"5.2.2 Mailbox full", "rcpt"), id="a full mailbox"),
        pytest.param(diagnose_reply(450, b"4.1.1 No such user, for now", "rcpt"), id="for now"),
        pytest.param(diagnose_reply(550, b"5.1.1 No such user", "body"), id="after the content, about everybody"),
        pytest.param(Diagnosis(kind=Kind.CONFIGURATION, scope=Scope.RECIPIENT), id="not permanent"),
    ],
)
def test_who_may_exist_is_not_offered(diagnosis: Diagnosis) -> None:
    assert offers(ON)(a_mail(), [a_round(diagnosis)]) == []


def test_who_was_accepted_by_another_mailer_is_not_offered() -> None:
    assert offers(ON)(a_mail(Status.SENT), [a_round(NOBODY), a_round(Diagnosis(kind=Kind.ACCEPTED), "second")]) == []


def test_the_word_of_a_tenants_own_mailer_counts_for_that_tenant() -> None:
    mail = a_mail(tenant="acme")

    entries = [offers(ON)(mail, [a_round(NOBODY, mailer)])[0].tenant for mailer in ("default", "default/acme")]

    assert entries == [None, "acme"]


def test_of_several_recipients_that_one_error_refuses_nobody_is_said_not_to_exist() -> None:
    two = {"ann@example.org": (550, b"5.1.1 No such user"), "bob@example.org": (550, b"5.7.1 Blocked")}
    context = Context(mailer="default", backend="x.EmailBackend")

    together = from_error(smtplib.SMTPRecipientsRefused(two), context)
    alone = from_error(smtplib.SMTPRecipientsRefused({"ann@example.org": two["ann@example.org"]}), context)

    assert together is not None
    assert alone is not None
    assert (together.is_hard_bounce, alone.is_hard_bounce) == (False, True)


def test_whose_mail_was_redirected_is_not_said_not_to_exist() -> None:
    guard = Guard(redirect_to="staging@example.org")
    redirected = guard.redirected({"to": ["ann@example.org"], "headers": {}})
    assert redirected is not None

    (receipt,) = redirected.receipts([Receipt(address="staging@example.org", diagnosis=NOBODY)], ["ann@example.org"])

    assert receipt.address == "ann@example.org"
    assert receipt.diagnosis.kind is Kind.PERMANENT
    assert not receipt.diagnosis.is_hard_bounce
