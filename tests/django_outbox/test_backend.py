"""The backend with ``OUTBOX``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import django
import pytest
from asgiref.sync import async_to_sync
from django.core import checks, mail
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage
from django.core.management import call_command
from django.db import DatabaseError, transaction
from django.test.utils import override_settings

from mail_service.django import EmailBackend
from mail_service.django.outbox.models import OutboxMail
from mail_service.errors import InvalidMessage, Timeout, Unavailable
from mail_service.testing import SentMails, recording

from .conftest import NO_BROKER, Outbox, queued_ids

needs_mailers = pytest.mark.skipif(django.VERSION < (6, 1), reason="MAILERS came with Django 6.1")
pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
BACKEND = "mail_service.django.EmailBackend"


def an_email(mail_id: str | None = None, **changes: Any) -> EmailMessage:
    made = {"subject": "Hello", "body": "Text", "from_email": "shop@example.org", "to": ["ann@example.org"]} | changes
    email = EmailMessage(**made)
    email.mail_service = {} if mail_id is None else {"id": mail_id}
    return email


def project(**settings: Any) -> Any:
    return override_settings(MAIL_SERVICE={"AMQP_URI": NO_BROKER, "TIMEOUT": 0.3, **settings})


@pytest.fixture
def storing(outbox: Outbox) -> Iterator[Outbox]:
    """A project that writes all mails to its outbox; RabbitMQ is never there."""
    with project(OUTBOX=True):
        yield outbox


@pytest.fixture
def falling_back(outbox: Outbox) -> Iterator[SentMails]:
    with project(OUTBOX="fallback"), recording() as sent:
        yield sent


# With every mail in the outbox


def test_a_mail_is_a_row_of_the_callers_transaction(storing: Outbox) -> None:
    kept, dropped = an_email("kept"), an_email("dropped")
    with transaction.atomic(using="outbox"):
        assert EmailBackend().send_messages([kept]) == 1
    with transaction.atomic(using="outbox"):
        assert EmailBackend().send_messages([dropped]) == 1
        transaction.set_rollback(True, using="outbox")

    assert storing.ids() == ["kept"]
    assert kept.mail_service_status == {"id": "kept", "status": "queued", "outbox": True}
    with override_settings(MAIL_SERVICE={"AMQP_URI": storing.amqp_uri, "OUTBOX": True}):
        storing.send()
    assert queued_ids(storing.amqp_uri) == ["kept"]


def test_options_travel_with_the_row(storing: Outbox) -> None:
    email = an_email()
    email.mail_service = {"tenant": "acme", "expires_at": None, "priority": "high"}
    with project(OUTBOX=True, OPTIONS={"mailer": "second"}), recording() as sent:
        EmailBackend().send_messages([email])
        storing.send()

    (one,) = sent.handed_in
    assert one.options == {
        "id": email.mail_service_status["id"],
        "mailer": "second",
        "tenant": "acme",
        "priority": "high",
    }


def test_a_mail_that_cannot_be_used_does_not_stop_the_others(storing: Outbox) -> None:
    emails = [an_email("first"), an_email("bad", to=["@@"]), an_email("last")]

    with pytest.raises(InvalidMessage):
        EmailBackend().send_messages(emails)

    assert storing.ids() == ["first", "last"]
    assert emails[1].mail_service_status["error"]["field"] == "to[0]"


def test_a_mail_that_is_too_large_for_the_service_is_refused_at_once(outbox: Outbox) -> None:
    with project(OUTBOX=True, MAX_SIZE=200), pytest.raises(InvalidMessage, match="bytes"):
        EmailBackend().send_messages([an_email(body="x" * 200)])

    assert outbox.ids() == []


def test_an_error_of_the_database_is_not_silenced(storing: Outbox) -> None:
    call_command("migrate", "mail_service_outbox", "zero", database="outbox", verbosity=0)

    with pytest.raises(DatabaseError):
        EmailBackend(fail_silently=True).send_messages([an_email()])


def test_from_an_async_view_the_row_is_in_the_callers_transaction(storing: Outbox) -> None:
    with transaction.atomic(using="outbox"):
        assert async_to_sync(EmailBackend().asend_messages)([an_email("one")]) == 1
        assert storing.ids() == ["one"]
        transaction.set_rollback(True, using="outbox")

    assert storing.ids() == []


# With those that RabbitMQ did not confirm


def test_while_rabbitmq_confirms_nothing_is_written(outbox: Outbox, falling_back: SentMails) -> None:
    assert EmailBackend().send_messages([an_email("one")]) == 1

    assert (falling_back.ids, outbox.ids()) == (["one"], [])


@pytest.mark.parametrize("taken", [False, True], ids=["nothing-got-through", "it-got-through"])
@pytest.mark.parametrize("error", [Unavailable, Timeout])
def test_what_rabbitmq_does_not_confirm_is_written_with_the_same_id(
    outbox: Outbox, falling_back: SentMails, error: Any, taken: bool
) -> None:
    falling_back.fail(error, times=1, taken=taken)
    email = an_email()

    assert EmailBackend().send_messages([email]) == 1

    (mail_id,) = outbox.ids()
    assert email.mail_service_status == {"id": mail_id, "status": "queued", "outbox": True}
    outbox.send()
    assert set(falling_back.ids) == {mail_id}
    assert len(falling_back) == 1


def test_only_those_that_failed_are_written(outbox: Outbox, falling_back: SentMails) -> None:
    falling_back.fail(Unavailable, only=lambda one: one.id == "b")

    with pytest.raises(InvalidMessage):
        EmailBackend().send_messages([an_email("a"), an_email("b"), an_email("bad", to=["@@"])])

    assert (falling_back.ids, outbox.ids()) == (["a"], ["b"])


def test_with_on_commit_the_fallback_comes_after_the_commit(outbox: Outbox) -> None:
    with project(OUTBOX="fallback", ON_COMMIT="outbox"):
        with transaction.atomic(using="outbox"):
            EmailBackend().send_messages([an_email("one")])
            assert outbox.ids() == []
        assert outbox.ids() == ["one"]


# Settings


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"OUTBOX": "always"}, "['OUTBOX'] must be True, False or 'fallback', not 'always'."),
        ({"OUTBOX": 1}, "['OUTBOX'] must be True, False or 'fallback', not 1."),
        ({"OUTBOX": True, "WAIT": True}, " has both OUTBOX and WAIT"),
        ({"OUTBOX": "fallback", "WAIT": True}, " has both OUTBOX and WAIT"),
        ({"OUTBOX": True, "ON_COMMIT": "outbox"}, " has both OUTBOX and ON_COMMIT"),
    ],
    ids=["word", "number", "wait", "fallback-and-wait", "on-commit"],
)
def test_wrong_settings_are_reported(tables: Any, settings: dict[str, Any], text: str) -> None:
    with project(**settings):
        (found,) = checks.run_checks(tags=["mail_service"])
        assert str(found.msg).startswith(f"MAIL_SERVICE{text}")
        with pytest.raises(ImproperlyConfigured):
            EmailBackend()


def test_an_outbox_without_its_app_is_reported(tables: Any) -> None:
    with project(OUTBOX="fallback"), override_settings(INSTALLED_APPS=["mail_service.django"]):
        (found,) = checks.run_checks(tags=["mail_service"])
        assert "add 'mail_service.django.outbox' to INSTALLED_APPS" in str(found.msg)


def test_good_settings_and_the_migrations_are_complete(storing: Outbox) -> None:
    assert checks.run_checks() == []
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_a_broker_that_the_outbox_cannot_know_later_is_refused(storing: Outbox) -> None:
    backend = EmailBackend(amqp_uri="amqp://guest:guest@127.0.0.1:2//")

    with pytest.raises(ImproperlyConfigured, match="entry of MAILERS"):
        backend.send_messages([an_email()])

    assert storing.ids() == []


@needs_mailers
def test_a_row_goes_to_the_broker_of_its_entry(storing: Outbox) -> None:
    mailers = {
        "default": {"BACKEND": BACKEND, "OPTIONS": {"outbox": False}},
        "second": {"BACKEND": BACKEND, "OPTIONS": {"amqp_uri": storing.amqp_uri, "timeout": 5}},
    }
    with override_settings(MAILERS=mailers):
        an_email("one").send(using="second")
        assert OutboxMail.objects.get().entry == "second"
        storing.send()

    assert queued_ids(storing.amqp_uri) == ["one"]


@needs_mailers
def test_recording_uses_the_entries_that_are_ours(storing: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "outbox", [], raising=False)
    locmem = {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}
    mailers = {"default": locmem, "second": {"BACKEND": BACKEND, "OPTIONS": {"outbox": False}}}
    with override_settings(MAILERS=mailers), recording() as sent:
        an_email("one").send(using="second")
        an_email("two").send()

    assert sent.ids == ["one"]
    assert len(mail.outbox) == 1
