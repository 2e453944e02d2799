"""With ON_COMMIT: a mail goes when the transaction commits, and never if it is rolled back. SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core import mail
from django.db import IntegrityError, connection, connections, transaction
from django.test.utils import override_settings

from mail_service.errors import InvalidMessage, Unavailable

from ..support.postgresql import Postgresql
from .conftest import an_email, project_with
from .test_queueing import CLOSED, mails

ALIASES = ("default", "orders")


@pytest.fixture(params=["sqlite", "postgresql"], autouse=True)
def databases(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both connections of the project; SQLite's are those that it has."""
    if request.param == "sqlite":
        yield
        return
    server = request.getfixturevalue("postgresql")
    before = {alias: (connections.settings[alias], connections[alias]) for alias in ALIASES}
    for alias, settings in connections.configure_settings({each: _on_postgresql(server) for each in ALIASES}).items():
        connections.settings[alias] = settings
        del connections[alias]
    yield
    for alias, (settings, connected) in before.items():
        connections[alias].close()
        connections.settings[alias] = settings
        connections[alias] = connected


def _on_postgresql(server: Postgresql) -> dict[str, Any]:
    url = urlsplit(server.fresh_database())
    where = {"HOST": url.hostname, "PORT": url.port, "USER": url.username, "NAME": url.path[1:]}
    return {"ENGINE": "django.db.backends.postgresql", **where}


@pytest.fixture
def committing(amqp_uri: str) -> Iterator[str]:
    with project_with(amqp_uri, ON_COMMIT=True):
        yield amqp_uri


@contextmanager
def rolled_back() -> Iterator[None]:
    """A transaction, or a savepoint, that comes to nothing."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def test_a_mail_goes_when_the_transaction_commits(committing: str) -> None:
    email = an_email()
    with transaction.atomic():
        assert email.send() == 1
        assert email.mail_service_status is None
        assert mails(committing) == []

    (found,) = mails(committing)
    assert email.mail_service_status == {"id": found.id, "status": "queued"}


def test_a_rollback_drops_the_mail(committing: str) -> None:
    with rolled_back():
        an_email().send()

    with transaction.atomic():
        an_email(subject="after").send()

    assert [found.message["subject"] for found in mails(committing)] == ["after"]


def test_a_savepoint_that_is_rolled_back_drops_its_mail_only(committing: str) -> None:
    with transaction.atomic():
        an_email(subject="outer").send()
        with rolled_back():
            an_email(subject="inner").send()

    assert [found.message["subject"] for found in mails(committing)] == ["outer"]


def test_a_savepoint_that_is_released_sends_its_mail_with_the_outermost_block(committing: str) -> None:
    with transaction.atomic():
        with transaction.atomic():
            an_email(subject="inner").send()
        assert mails(committing) == []

    assert [found.message["subject"] for found in mails(committing)] == ["inner"]


def test_an_exception_drops_the_mail(committing: str) -> None:
    def purchase() -> None:
        an_email().send()
        raise LookupError

    with pytest.raises(LookupError):
        transaction.atomic(purchase)()

    assert mails(committing) == []


def test_a_commit_that_the_database_refuses_drops_the_mail(committing: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS customer (id integer PRIMARY KEY)")
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS purchase"
            " (customer integer REFERENCES customer (id) DEFERRABLE INITIALLY DEFERRED)"
        )

    def purchase() -> None:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO purchase VALUES (17)")
        assert an_email().send() == 1

    with pytest.raises(IntegrityError):
        transaction.atomic(purchase)()

    assert mails(committing) == []


def test_without_a_transaction_it_goes_at_once(committing: str) -> None:
    email = an_email()

    assert email.send() == 1
    assert email.mail_service_status["status"] == "queued"


def test_the_mail_is_what_it_was_when_it_was_sent(committing: str) -> None:
    email = an_email()
    email.mail_service = {"priority": "high"}
    with transaction.atomic():
        email.send()
        email.subject = "changed"
        email.to.append("bob@example.org")
        email.mail_service["priority"] = "bulk"

    (found,) = mails(committing, "high")
    assert (found.message["subject"], found.message["to"]) == ("Hello", ["ann@example.org"])


@pytest.mark.parametrize("changes", [{"to": ["@"]}, {"subject": "a\nb"}], ids=["address", "header"])
def test_a_bad_message_is_refused_before_the_commit(committing: str, changes: Any) -> None:
    with transaction.atomic():
        with pytest.raises(InvalidMessage):
            an_email(**changes).send()
        with pytest.raises(InvalidMessage):
            mail.get_connection().send_messages([an_email(subject="good"), an_email(**changes)])

    assert [found.message["subject"] for found in mails(committing)] == ["good"]


def test_a_batch_goes_as_one(committing: str) -> None:
    with transaction.atomic():
        assert mail.get_connection().send_messages([an_email(), an_email(to=[]), an_email()]) == 2

    assert len(mails(committing)) == 2


def test_what_fails_at_the_commit_comes_out_of_the_block() -> None:
    email = an_email()
    with project_with(CLOSED, ON_COMMIT=True, TIMEOUT=0.3), pytest.raises(Unavailable), transaction.atomic():
        assert email.send() == 1

    assert email.mail_service_status["error"]["type"] == "Unavailable"


def test_what_fails_silently_at_the_commit_does_not() -> None:
    with project_with(CLOSED, ON_COMMIT=True, TIMEOUT=0.3), transaction.atomic():
        assert mail.get_connection(fail_silently=True).send_messages([an_email()]) == 1


def test_another_connections_transaction_does_not_matter(amqp_uri: str) -> None:
    with project_with(amqp_uri, ON_COMMIT="orders"), transaction.atomic():
        an_email().send()

        assert len(mails(amqp_uri)) == 1


@pytest.mark.parametrize("inner_first", [True, False], ids=["orders first", "default first"])
def test_of_several_connections_all_have_to_commit(amqp_uri: str, inner_first: bool) -> None:
    outer, inner = ("default", "orders") if inner_first else ("orders", "default")
    with project_with(amqp_uri, ON_COMMIT=["default", "orders"]):
        with transaction.atomic(using=outer):
            with transaction.atomic(using=inner):
                an_email().send()
            assert mails(amqp_uri) == []

        assert len(mails(amqp_uri)) == 1


def test_of_several_connections_none_may_be_rolled_back(amqp_uri: str) -> None:
    with project_with(amqp_uri, ON_COMMIT=["default", "orders"]), transaction.atomic(using="orders"), rolled_back():
        an_email().send()

    assert mails(amqp_uri) == []


def test_settings_that_change_until_the_commit_do_not_matter(amqp_uri: str) -> None:
    with transaction.atomic():
        with project_with(amqp_uri, ON_COMMIT=True):
            an_email().send()
        with override_settings(MAIL_SERVICE={"AMQP_URI": CLOSED}):
            pass

    assert len(mails(amqp_uri)) == 1
