"""Without WAIT: a mail is sent once RabbitMQ has it."""

from __future__ import annotations

import asyncio
import os
import smtplib
import time
import traceback
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import django
import kombu
import pytest
from asgiref.sync import sync_to_async
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMultiAlternatives
from django.utils.functional import lazystr

from mail_service import topology
from mail_service.django import EmailBackend, clients
from mail_service.envelope import Envelope
from mail_service.errors import InvalidMessage, MailServiceError, Timeout, Unavailable
from mail_service.message import dump, load
from mail_service.message.references import references

from ..support.outages import Proxy
from .conftest import an_email, project_with

#: nobody listens on it
CLOSED = "amqp://guest:guest@127.0.0.1:1//"


def mails(amqp_uri: str, lane: str = "normal") -> list[Envelope]:
    """Take all mails out of a lane."""
    with kombu.Connection(amqp_uri) as connection:
        queue = topology.lane_queue(lane)(connection.default_channel)
        queue.declare()
        return [Envelope.parse(message.body) for message in iter(lambda: queue.get(no_ack=True), None)]


def test_a_message_is_queued_as_it_is(queueing: str) -> None:
    email = EmailMultiAlternatives(
        lazystr("Grüße"), "Text", "Jörg <joerg@example.org>", ["ann@example.org"], bcc=["bob@bücher.example"]
    )
    email.attach_alternative("<p>Text</p>", "text/html")
    email.attach("a.bin", b"\x00\xff", "application/octet-stream")

    count = email.send()

    (found,) = mails(queueing)
    assert count == 1
    assert found.message == dump(email)
    assert found.door == "client"
    assert email.mail_service_status == {"id": found.id, "status": "queued"}


def test_a_sender_that_is_left_to_the_esps_template_is_carried_as_such(queueing: str) -> None:
    email = an_email()
    email.from_email = None

    email.send()

    (found,) = mails(queueing)
    assert "from_email" not in found.message
    assert found.message["types"] == {"/from_email": "none"}
    assert load(found.message).from_email is None


def test_many_messages_are_one_batch(queueing: str, counted: Callable[[str], int]) -> None:
    emails = [an_email(subject=str(number)) for number in range(50)]

    count = mail.get_connection().send_messages(iter(emails))

    assert count == 50
    assert (counted("submit_checked"), counted("submit")) == (1, 0)
    assert [found.message["subject"] for found in mails(queueing)] == [str(number) for number in range(50)]
    assert len({email.mail_service_status["id"] for email in emails}) == 50


@pytest.mark.parametrize("emails", [[], None, iter(()), [an_email(to=[])]], ids=["none", "None", "iterator", "nobody"])
def test_nothing_is_sent_to_nobody(emails: Any) -> None:
    with project_with(CLOSED):
        assert mail.get_connection().send_messages(emails) == 0


def test_messages_without_recipients_are_left_out_of_the_count(queueing: str) -> None:
    assert mail.get_connection().send_messages([an_email(), an_email(to=[]), an_email(to=[], bcc=["b@b.example"])]) == 2
    assert len(mails(queueing)) == 2


def test_a_message_sent_twice_is_two_mails(queueing: str) -> None:
    email = an_email()

    assert mail.get_connection().send_messages([email, email]) == 2
    assert len({found.id for found in mails(queueing)}) == 2


def test_djangos_functions_use_it(queueing: str) -> None:
    sent = mail.send_mail("Hello", "Text", None, ["ann@example.org"], html_message="<p>Text</p>")
    sent += mail.send_mass_mail([("Hello", "Text", "shop@example.org", [f"{name}@example.org"]) for name in "ab"])

    assert sent == 3
    assert [found.message["to"] for found in mails(queueing)] == [
        ["ann@example.org"],
        ["a@example.org"],
        ["b@example.org"],
    ]


# Options


def test_a_messages_own_options_go_before_those_of_the_settings(amqp_uri: str) -> None:
    with project_with(amqp_uri, OPTIONS={"tenant": "acme", "priority": "bulk", "backoff": "dynamic"}):
        ordinary, own = an_email(), an_email()
        own.mail_service = {"priority": "high", "id": "order-1", "backoff": None}
        mail.get_connection().send_messages([ordinary, own])

    (in_bulk,) = mails(amqp_uri, "bulk")
    (in_high,) = mails(amqp_uri, "high")
    assert {**in_bulk.options, "id": ""} == {"id": "", "tenant": "acme", "priority": "bulk", "backoff": "dynamic"}
    assert in_high.options == {"id": "order-1", "tenant": "acme", "priority": "high"}
    assert own.mail_service_status == {"id": "order-1", "status": "queued"}


@pytest.mark.parametrize(
    ("given", "carried"),
    [
        # the tests' time zone is six hours behind in January
        ("2040-01-01T00:00:00", "2040-01-01T00:00:00+00:00"),
        (datetime(2040, 1, 1), "2040-01-01T06:00:00+00:00"),  # noqa: DTZ001
        (datetime(2040, 1, 1, tzinfo=UTC), "2040-01-01T00:00:00+00:00"),
        (datetime(2040, 1, 1, tzinfo=timezone(timedelta(hours=2))), "2039-12-31T22:00:00+00:00"),
    ],
    ids=["text", "naive", "utc", "offset"],
)
def test_a_time_may_be_a_datetime(queueing: str, given: object, carried: str) -> None:
    email = an_email()
    email.mail_service = {"expires_at": given}

    email.send()

    assert mails(queueing)[0].options["expires_at"] == carried


def test_an_id_may_be_a_uuid(queueing: str) -> None:
    email = an_email()
    email.mail_service = {"id": uuid.UUID(int=7)}

    email.send()

    assert mails(queueing)[0].id == str(uuid.UUID(int=7))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"prioritty": "high"}, "prioritty.*did you mean 'priority'"),
        ({"priority": "urgent"}, "priority: must be one of"),
        ({"id": ""}, "id: must not be empty"),
        (["high"], "must be a dict"),
    ],
    ids=["unknown", "wrong", "empty id", "list"],
)
def test_wrong_options_are_refused(queueing: str, options: object, text: str) -> None:
    email = an_email()
    email.mail_service = options

    with pytest.raises(InvalidMessage, match=text):
        email.send()

    assert mails(queueing) == []


# What goes wrong


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"to": ["to@other.com@example.com"]}, "Invalid address"),
        ({"cc": ["to@"]}, "Invalid address"),
        ({"bcc": ["to\nevil@example.com"]}, "Invalid address"),
        ({"from_email": "a@b.example, c@d.example"}, "Invalid address"),
        ({"attachments": [("a", object(), None)]}, "cannot be carried"),
        ({"subject": "a\nBcc: evil@example.com"}, "Header values can't contain newlines"),
        ({"headers": {"X-A": "a\r\nb"}}, "Header values can't contain newlines"),
    ],
    ids=["to", "cc", "bcc", "from", "attachment", "subject", "header"],
)
def test_what_django_refuses_is_a_value_error_in_its_words(queueing: str, changes: Any, text: str) -> None:
    email = an_email(**changes)

    with pytest.raises(ValueError, match=text) as caught:
        email.send()

    assert isinstance(caught.value, InvalidMessage)
    assert "evil" not in str(caught.value)
    assert email.mail_service_status["error"]["type"] == "InvalidMessage"
    assert mails(queueing) == []


@pytest.mark.skipif(django.VERSION >= (6, 0), reason="from Django 6.0 on it is ValueError itself")
@pytest.mark.parametrize("changes", [{"subject": "a\nb"}, {"headers": {"X-A": "a\nb"}}, {"to": ["a@b.example\nb"]}])
def test_a_header_injection_is_djangos_bad_header_error(queueing: str, changes: Any) -> None:
    with pytest.raises(mail.BadHeaderError):
        an_email(**changes).send()


def test_a_bad_message_does_not_stop_the_others(queueing: str) -> None:
    emails = [an_email(subject="1"), an_email(to=["@"]), an_email(subject="a\nb"), an_email(subject="4")]

    with pytest.raises(InvalidMessage, match="Invalid address") as caught:
        mail.get_connection().send_messages(emails)

    assert [found.message["subject"] for found in mails(queueing)] == ["1", "4"]
    assert [email.mail_service_status.get("status") for email in emails] == ["queued", None, None, "queued"]
    assert caught.value.__notes__ == ["2 of 4 messages were sent: see their mail_service_status."]


def test_failing_silently_lowers_the_count(queueing: str) -> None:
    emails = [an_email(), an_email(to=["@"]), an_email()]

    assert mail.get_connection(fail_silently=True).send_messages(emails) == 2


def test_without_a_broker_it_is_a_connection_error_in_time() -> None:
    emails = [an_email(), an_email()]
    start = time.monotonic()

    with project_with(CLOSED, TIMEOUT=0.5), pytest.raises(ConnectionError) as caught:
        mail.get_connection().send_messages(emails)

    assert time.monotonic() - start < 2.5
    assert isinstance(caught.value, Unavailable)
    assert [email.mail_service_status["error"]["type"] for email in emails] == ["Unavailable", "Unavailable"]


def test_without_a_broker_nothing_is_sent_silently() -> None:
    with project_with(CLOSED, TIMEOUT=0.5):
        assert mail.get_connection(fail_silently=True).send_messages([an_email(), an_email()]) == 0


def test_an_unknown_outcome_is_a_timeout_and_can_be_repeated_as_the_same_mail(amqp_uri: str) -> None:
    email = an_email()
    with Proxy(amqp_uri) as proxy, project_with(proxy.amqp_uri, TIMEOUT=2):
        an_email(subject="before").send()
        proxy.freeze()
        with pytest.raises(Timeout) as caught:
            email.send()
        proxy.thaw()
        email.mail_service = {"id": caught.value.mail_id}
        email.send()

    assert isinstance(caught.value, TimeoutError)
    assert not isinstance(caught.value, smtplib.SMTPException)
    assert {found.id for found in mails(amqp_uri) if found.message["subject"] == "Hello"} == {
        email.mail_service_status["id"]
    }


@pytest.mark.parametrize(
    "settings",
    [{"AMQP_URI": "redis://secret@localhost"}, {"TIMEOUT": 0}, {"PRIORITY": "high"}],
    ids=["scheme", "timeout", "unknown"],
)
def test_wrong_settings_are_raised_even_silently(settings: dict[str, Any]) -> None:
    with project_with(CLOSED, **settings), pytest.raises(ImproperlyConfigured, match="MAIL_SERVICE") as caught:
        an_email().send(fail_silently=True)

    assert "secret" not in str(caught.value)


def test_a_string_in_the_place_of_a_list_is_a_type_error_as_from_django_and_anymail(queueing: str) -> None:
    email = an_email()
    email.reply_to = "help@example.org"

    with pytest.raises(TypeError, match='"reply_to" attribute must be a list') as caught:
        email.send()

    assert isinstance(caught.value, InvalidMessage)
    assert caught.value.field == "reply_to"


# The client


def test_threads_and_messages_share_one_client(queueing: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        counts = list(threads.map(lambda number: an_email(subject=str(number)).send(), range(80)))

    assert sum(counts) == 80
    assert len({found.message["subject"] for found in mails(queueing)}) == 80
    assert len(clients._clients) == 1


def test_a_forked_process_sends_on_connections_of_its_own(queueing: str) -> None:
    an_email(subject="parent").send()
    children = [_fork(lambda: an_email(subject="child").send() == 1) for _ in range(2)]
    an_email(subject="parent").send()

    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]
    an_email(subject="parent").send()
    assert sorted(found.message["subject"] for found in mails(queueing)) == ["child"] * 2 + ["parent"] * 3


def _fork(work: Callable[[], bool]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os._exit(0 if work() else 1)
    except BaseException:  # noqa: BLE001  # a child must not run the parent's tests
        traceback.print_exc()
        os._exit(2)


def test_a_changed_setting_counts_from_the_next_message_on(queueing: str) -> None:
    an_email().send()

    with project_with(queueing, OPTIONS={"priority": "high"}):
        an_email().send()
    an_email().send()

    assert (len(mails(queueing, "high")), len(mails(queueing))) == (1, 2)


def test_changed_settings_close_the_connections(amqp_uri: str) -> None:
    with Proxy(amqp_uri) as proxy, project_with(proxy.amqp_uri):
        an_email().send()
        with project_with(amqp_uri):
            assert clients._clients == {}
        an_email().send()

        assert proxy.accepted == 2


def test_a_kept_connection_can_be_opened_and_closed_as_often_as_one_likes(queueing: str) -> None:
    connection = mail.get_connection()
    connection.close()
    with connection as same:
        assert same.send_messages([an_email()]) == 1
    connection.open()
    assert connection.send_messages([an_email()]) == 1


def test_what_other_backends_take_is_ignored_without_mailers(queueing: str) -> None:
    connection = mail.get_connection(username="", password="", wait=None)

    assert connection.send_messages([an_email()]) == 1


def test_settings_can_be_given_to_one_connection(queueing: str) -> None:
    connection = EmailBackend(options={"priority": "bulk"}, timeout=5)

    assert connection.send_messages([an_email()]) == 1
    assert len(mails(queueing, "bulk")) == 1


# Asynchronous callers


@pytest.mark.parametrize("way", ["asend_messages", "sync_to_async"])
def test_an_event_loop_goes_on_while_a_mail_is_sent(amqp_uri: str, way: str) -> None:
    async def view() -> tuple[int, MailServiceError | None]:
        sending = asyncio.ensure_future(_sending(way))
        ticks = 0
        while not sending.done():
            ticks += 1
            await asyncio.sleep(0.01)
        error = sending.exception()
        assert error is None or isinstance(error, MailServiceError)
        return ticks, error

    async def _sending(way: str) -> int:
        if way == "asend_messages":
            return await mail.get_connection().asend_messages(iter([an_email()]))  # type: ignore[no-any-return]
        return await sync_to_async(an_email().send)()  # type: ignore[no-any-return]

    with Proxy(amqp_uri) as proxy, project_with(proxy.amqp_uri, TIMEOUT=1):
        assert asyncio.run(view())[1] is None
        proxy.freeze()
        ticks, error = asyncio.run(view())

    assert isinstance(error, Timeout)
    # of a hundred
    assert ticks > 20


def test_a_large_attachment_lies_in_the_store(amqp_uri: str, tmp_path: Path) -> None:
    email = an_email(attachments=[("a.bin", bytes(200_000), "application/octet-stream")])
    with project_with(amqp_uri, BLOBS={"folder": str(tmp_path), "above": 100_000}):
        email.send()

    (found,) = mails(amqp_uri)
    (reference,) = references(found.message)
    assert (tmp_path / reference.key).read_bytes() == bytes(200_000)
    assert found.message["attachments"][0]["filename"] == "a.bin"


@pytest.mark.parametrize("blobs", [{"fodler": "x"}, {"folder": ""}, "var/blobs"])
def test_a_store_that_cannot_be_used_is_a_mistake_in_the_settings(blobs: Any) -> None:
    with project_with(CLOSED, BLOBS=blobs), pytest.raises(ImproperlyConfigured, match="BLOBS"):
        an_email().send()
