"""What Django's tests ask of each of its backends, of ours: the service delivers to a mail server over SMTP."""

from __future__ import annotations

import email.message
import email.policy
import re
from collections.abc import Callable
from email import message_from_bytes
from typing import Any

import django
import pytest
from django.core import mail
from django.core.mail import EmailMessage
from django.test.utils import override_settings
from django.utils.functional import lazystr

from mail_service.local.smtp_server import Accepted

from .conftest import House


@pytest.fixture
def mailbox(waiting: House) -> Callable[[], list[Accepted]]:
    """Mails since the test began."""
    waiting.smtp.forget()
    return waiting.smtp.accepted


def only(mailbox: Callable[[], list[Accepted]]) -> email.message.EmailMessage:
    (accepted,) = mailbox()
    return message_from_bytes(accepted.data.rstrip(), policy=email.policy.default)


def test_a_plain_message(mailbox: Any) -> None:
    sent = mail.get_connection().send_messages(
        [EmailMessage("Subject", "Content", "from@example.com", ["to@example.com"])]
    )

    message = only(mailbox)
    assert sent == 1
    assert (message["subject"], message["from"]) == ("Subject", "from@example.com")
    assert message.get_all("to") == ["to@example.com"]
    assert message.get_content().rstrip() == "Content"


def test_other_letters_than_ascii(mailbox: Any) -> None:
    EmailMessage("Chère maman", "Je t'aime très fort", "from@example.com", ["to@example.com"]).send()

    message = only(mailbox)
    assert message["subject"] == "Chère maman"
    assert message.get_content().rstrip() == "Je t'aime très fort"
    assert b"Subject: =?utf-8?" in mailbox()[0].data


def test_long_lines_are_encoded(mailbox: Any) -> None:
    EmailMessage("Subject", "В южных морях " * 60, "from@example.com", ["to@example.com"]).send()

    message = only(mailbox)
    assert message["Content-Transfer-Encoding"] == ("base64" if django.VERSION >= (6, 0) else "quoted-printable")
    assert max(map(len, mailbox()[0].data.splitlines())) < 998
    assert message["Content-Type"] == 'text/plain; charset="utf-8"'


@pytest.mark.parametrize("kind", [list, iter], ids=["list", "iterator"])
def test_many_messages_arrive_in_order(mailbox: Any, kind: Callable[[list[EmailMessage]], Any]) -> None:
    emails = [EmailMessage(to=[f"to-{number}@example.com"]) for number in (1, 2)]

    assert mail.get_connection().send_messages(kind(emails)) == 2

    assert [accepted.rcpt_tos for accepted in mailbox()] == [("to-1@example.com",), ("to-2@example.com",)]


def test_a_name_beside_the_address(mailbox: Any) -> None:
    EmailMessage(from_email='"Firstname Sürname" <from@example.com>', to=["to@example.com"]).send()

    assert only(mailbox)["from"] == "Firstname Sürname <from@example.com>"
    # Django 6 encodes the second word only
    name = rb"(Firstname )?=\?utf-8\?q\?(Firstname_)?S=C3=BCrname\?="
    assert re.search(rb"From: " + name + rb" <from@example.com>", mailbox()[0].data)


def test_a_html_message(mailbox: Any) -> None:
    mail.send_mail("Subject", "Content", "sender@example.com", ["nobody@example.com"], html_message="HTML Content")

    text, html = only(mailbox).iter_parts()
    assert (text.get_content_type(), text.get_content().rstrip()) == ("text/plain", "Content")
    assert (html.get_content_type(), html.get_content().rstrip()) == ("text/html", "HTML Content")


@pytest.mark.parametrize(("setting", "function"), [("ADMINS", mail.mail_admins), ("MANAGERS", mail.mail_managers)])
def test_mail_to_admins_and_managers(mailbox: Any, setting: str, function: Callable[..., None]) -> None:
    people = ["nobody@example.com"] if django.VERSION >= (6, 0) else [("nobody", "nobody@example.com")]

    with override_settings(**{setting: people}):
        function(lazystr("Subject"), "Content")

    assert only(mailbox)["subject"] == "[Django] Subject"


def test_no_admins_no_mail(mailbox: Any) -> None:
    with override_settings(ADMINS=[], MANAGERS=[]):
        mail.mail_admins("hi", "there")
        mail.mail_managers("hi", "there")

    assert mailbox() == []


def test_headers_are_complete(mailbox: Any) -> None:
    EmailMessage("Subject", "Content", "from@example.com", ["to@example.com"], cc=["cc@example.com"]).send()

    message = only(mailbox)
    assert {
        "MIME-Version": "1.0",
        "Content-Type": 'text/plain; charset="utf-8"',
        "Content-Transfer-Encoding": "7bit",
        "Subject": "Subject",
        "From": "from@example.com",
        "To": "to@example.com",
        "Cc": "cc@example.com",
    }.items() <= dict(message.items()).items()
    assert message["Date"]
    assert message["Message-ID"]


def test_domains_in_other_letters(mailbox: Any) -> None:
    EmailMessage(from_email="from@öäü.com", to=["to@öäü.com"], cc=["cc@öäü.com"]).send()

    message = only(mailbox)
    assert [message[name] for name in ("from", "to", "cc")] == [
        f"{name}@xn--4ca9at.com" for name in ("from", "to", "cc")
    ]
    assert mailbox()[0].mail_from == "from@xn--4ca9at.com"
    assert mailbox()[0].rcpt_tos == ("to@xn--4ca9at.com", "cc@xn--4ca9at.com")


def test_an_encoded_domain_is_not_encoded_again(mailbox: Any) -> None:
    # IDNA 2008; decoded and encoded as IDNA 2003 it would be another domain
    EmailMessage(
        from_email='"βόλος" <from@xn--fa-hia.example.com>', to=['"faß" <to@xn--10cl1a0b660p.example.com>']
    ).send()

    assert mailbox()[0].mail_from == "from@xn--fa-hia.example.com"
    assert mailbox()[0].rcpt_tos == ("to@xn--10cl1a0b660p.example.com",)


def test_the_envelope_may_differ_from_the_headers(mailbox: Any) -> None:
    EmailMessage(
        from_email="lists@discussão.example.org",
        to=["To Example <to@漢字.example.com>"],
        bcc=["monitor@discussão.example.org"],
        headers={"From": "Gestor <lists@example.org>", "To": "Django <django@example.org>"},
    ).send()

    assert mailbox()[0].mail_from == "lists@xn--discusso-xza.example.org"
    assert mailbox()[0].rcpt_tos == ("to@xn--p8s937b.example.com", "monitor@xn--discusso-xza.example.org")
    assert only(mailbox)["to"] == "Django <django@example.org>"


def test_addresses_without_a_domain_and_lazy_ones(mailbox: Any) -> None:
    message = EmailMessage(
        from_email=lazystr("tester"), to=[lazystr("to1"), "to2"], cc=["cc1"], bcc=[lazystr("bcc")], reply_to=["reply"]
    )
    message.send()

    found = only(mailbox)
    assert [found[name] for name in ("from", "to", "cc", "reply-to")] == ["tester", "to1, to2", "cc1", "reply"]
    assert mailbox()[0].rcpt_tos == ("to1", "to2", "cc1", "bcc")


def test_lines_end_with_crlf(mailbox: Any) -> None:
    EmailMessage("Subject", "Two\nlines", "from@example.com", ["to@example.com"]).send()

    rest = mailbox()[0].data.replace(b"\r\n", b"")
    assert b"\r" not in rest
    assert b"\n" not in rest


def test_what_was_sent_does_not_change_afterwards(mailbox: Any) -> None:
    message = EmailMessage("correct subject", to=["to@example.com"])
    message.send()
    message.subject = "other subject"
    message.to.append("other@example.com")

    assert only(mailbox)["subject"] == "correct subject"
