"""With WAIT: a mail is sent when the service has delivered it, to a real mail server."""

from __future__ import annotations

import smtplib
from collections.abc import Callable

import django
import pytest
from anymail.message import AnymailMessage
from django.core import mail

from mail_service.errors import Conflict, DeliveryFailed, Expired, InvalidMessage, Timeout, Unavailable

from ..support.waiting import eventually
from .conftest import House, an_email, project_with


def test_a_delivered_message_has_its_record(waiting: House) -> None:
    ann, bob = waiting.person(), waiting.person("bob")
    email = an_email(to=[ann], bcc=[f"Bob <{bob}>"])

    assert email.send() == 1

    (mail_to_ann,) = waiting.mails_to(ann)
    assert mail_to_ann.rcpt_tos == (ann, bob)
    record = email.mail_service_status
    assert record["status"] == "sent"
    assert record["recipients"].keys() == {ann, bob}
    assert waiting.service.rpc.status(record["id"]) == record


def test_anymails_status_is_filled(waiting: House) -> None:
    ann, refused = waiting.person(), waiting.person("refused")
    email = AnymailMessage("Hello", "Text", "shop@example.org", [ann, refused])

    assert email.send() == 1

    assert email.mail_service_status["status"] == "partly_sent"
    assert email.anymail_status.status == {"sent", "failed"}
    assert email.anymail_status.recipients[ann].status == "sent"
    assert email.anymail_status.recipients[refused].status == "failed"


def test_a_refused_message_raises_what_delivery_raised(waiting: House) -> None:
    refused = waiting.person("refused")
    email = an_email(to=[refused])

    with pytest.raises(DeliveryFailed, match="No such person") as caught:
        email.send()

    # what a program that sent over SMTP until now catches
    assert isinstance(caught.value, smtplib.SMTPException)
    assert email.mail_service_status["status"] == "failed"
    assert "No such person" in email.mail_service_status["recipients"][refused]["detail"]
    assert email.anymail_status.recipients[refused].status == "failed"


def test_what_a_backend_refuses_as_a_value_is_a_value_error_as_without_us(waiting: House) -> None:
    email = an_email(to=["nul-1@example.org"])
    email.mail_service = {"mailer": "fussy"}

    with pytest.raises(ValueError, match="failed: ValueError: a NUL") as caught:
        email.send()

    assert isinstance(caught.value, DeliveryFailed)
    assert isinstance(caught.value, smtplib.SMTPException)


@pytest.mark.skipif(django.VERSION < (6, 0), reason="Django 5.2 encodes the part before the @")
def test_letters_before_the_at_that_smtp_has_no_form_for_are_a_value_error_and_cost_nobody_else_the_mail(
    waiting: House,
) -> None:
    ann = waiting.person()
    with pytest.raises(ValueError, match="not ASCII"):
        an_email(to=["jörg@example.org"]).send()

    assert an_email(to=["jörg@example.org", ann]).send() == 1
    assert len(waiting.mails_to(ann)) == 1


def test_a_message_whose_retries_are_used_up_is_expired(waiting: House) -> None:
    email = an_email(to=[waiting.person("later")])
    email.mail_service = {"backoff": "quick"}

    with pytest.raises(Expired) as caught:
        email.send()

    assert isinstance(caught.value, smtplib.SMTPException)
    assert email.mail_service_status["status"] == "expired"


def test_a_held_message_is_sent_and_has_its_record(waiting: House) -> None:
    """The service goes on by itself, so nothing is wrong for the caller."""
    email = an_email(to=["login@example.org"])
    email.mail_service = {"mailer": "rehearsal"}

    assert email.send() == 1

    assert email.mail_service_status["status"] == "held"
    assert email.mail_service_status["next_attempt_at"]
    assert email.anymail_status.status == {"queued"}


def test_a_wait_that_takes_too_long_is_a_timeout_and_the_mail_goes_on(house: House) -> None:
    slow = house.person("slow")
    email = an_email(to=[slow])
    email.mail_service = {"id": slow}

    with project_with(house.amqp_uri, WAIT=True, TIMEOUT=0.7), pytest.raises(TimeoutError) as caught:
        email.send()

    assert isinstance(caught.value, Timeout)
    assert caught.value.mail_id == email.mail_service_status["id"] == slow
    assert eventually(lambda: house.mails_to(slow))


def test_without_a_service_nothing_was_sent(amqp_uri: str) -> None:
    with project_with(amqp_uri, WAIT=True), pytest.raises(Unavailable, match="never run"):
        an_email().send()


def test_the_id_of_another_mail_is_a_conflict(waiting: House) -> None:
    first, second = an_email(to=[waiting.person()]), an_email(to=[waiting.person()])
    first.mail_service = second.mail_service = {"id": waiting.person()}
    first.send()

    with pytest.raises(Conflict):
        second.send()


def test_an_unknown_mailer_is_an_invalid_message(waiting: House) -> None:
    email = an_email()
    email.mail_service = {"mailer": "postmark"}

    with pytest.raises(InvalidMessage, match="mailer: must be one of default"):
        email.send()


def test_messages_are_delivered_in_order_until_one_fails(waiting: House) -> None:
    to = [waiting.person(), waiting.person("refused"), waiting.person()]
    emails = [an_email(to=[person]) for person in to]

    with pytest.raises(DeliveryFailed) as caught:
        mail.get_connection().send_messages(emails)

    assert caught.value.__notes__ == ["1 of 3 messages were sent: see their mail_service_status."]
    assert emails[2].mail_service_status is None
    assert [len(waiting.mails_to(person)) for person in to] == [1, 0, 0]


def test_failing_silently_goes_on_after_a_failure(waiting: House, counted: Callable[[str], int]) -> None:
    emails = [an_email(to=[waiting.person(name)]) for name in ("ann", "refused", "bob")]

    assert mail.get_connection(fail_silently=True).send_messages(emails) == 2

    assert counted("send") == 3
    assert [email.mail_service_status["status"] for email in emails] == ["sent", "failed", "sent"]
