"""
For the tests of programs that send mail: nothing leaves the process, and what would have is there to be looked at.

With pytest the fixture ``sent_mails`` is there once ``mail_service`` is installed; with unittest and Django's test
cases derive from ``MailServiceMixin``; anywhere else::

    with recording() as sent_mails:
        order.confirm()
    assert [mail.subject for mail in sent_mails] == ["Your order"]

While it lasts, every ``MailClient`` hands its mails to ``sent_mails``, and Django's mail goes through our backend to it
as well. ``sent_mails`` is a sequence of ``EmailMessage`` objects, as ``django.core.mail.outbox`` is, but of such as
have been through JSON and back: what the service would have got. Each has its options, the id included, as
``mail_service``. A message or an option that the service would refuse raises the same InvalidMessage.

A program that takes its client as an argument can be given a ``FakeMailClient`` instead.

Things go wrong as they are told to::

    sent_mails.fail(Unavailable)                  # RabbitMQ is down, until sent_mails.recover()
    sent_mails.fail(Timeout, times=1, taken=True) # RabbitMQ has the mail, and its answer is lost, once
    sent_mails.fail(DeliveryFailed)               # what `send` raises, or WAIT; submitted mail ends in the error log

**Django.** ``django.core.mail.outbox`` works as ever, since Django's test runner replaces all backends; this here adds
what our backend does. ``transaction.on_commit`` never happens in a TestCase: with ``ON_COMMIT`` use Django's
``captureOnCommitCallbacks(execute=True)``, and pytest-django's ``django_capture_on_commit_callbacks``. With ``OUTBOX``
the mails are rows first: ``call_command("send_outbox", "--once")`` hands them to ``sent_mails``.

**Integration tests**, with a running service of your own: give it the mailer of ``mail_service.mailers.rehearsal``,
which keeps mails in a folder and fails as a recipient's name asks it to (``refuse@…``, ``transient-2@…``)::

    mailers:
      default: {BACKEND: mail_service.mailers.rehearsal.EmailBackend, OPTIONS: {folder: var/rehearsal}}

``rehearsed("var/rehearsal")`` reads what it took.
"""

from mail_service.testing.fake import FakeMailClient, recording
from mail_service.testing.mixin import MailServiceMixin
from mail_service.testing.rehearsed import Rehearsed, rehearsed
from mail_service.testing.sent import HandedIn, SentMails

__all__ = ["FakeMailClient", "HandedIn", "MailServiceMixin", "Rehearsed", "SentMails", "recording", "rehearsed"]
