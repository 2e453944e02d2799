"""From the outbox to RabbitMQ: in order, at least once with the same id, and no row holds up another."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections, transaction
from django.test.utils import override_settings

from mail_service.client import MailClient
from mail_service.django.outbox import claiming
from mail_service.django.outbox.models import OutboxMail
from mail_service.django.outbox.storing import store
from mail_service.local.smtp_server import SmtpServer

from ..support.messages import a_message
from ..support.outages import Proxy
from ..support.service import Service, configuration
from ..support.waiting import eventually
from .conftest import NO_BROKER, TIMEOUT_S, Outbox, queued, queued_ids


def finish(*processes: subprocess.Popen[str]) -> list[int]:
    """Their exit statuses."""
    return [process.wait(30) for process in processes]


# A row


def test_a_row_that_is_rolled_back_never_was(outbox: Outbox) -> None:
    with transaction.atomic(using="outbox"):
        outbox.store("one")
        assert outbox.ids() == ["one"]
        transaction.set_rollback(True, using="outbox")

    assert outbox.ids() == []
    outbox.send()
    assert queued_ids(outbox.amqp_uri) == []


def test_several_mails_are_written_all_or_none(outbox: Outbox) -> None:
    too_long = "x" * 201 if connections["outbox"].vendor == "postgresql" else None

    with pytest.raises(Exception, match=r".+"):
        store([(a_message(), {"id": "one"}), (a_message(), {"id": too_long})])

    assert outbox.ids() == []


def test_a_mail_arrives_as_it_was_written(outbox: Outbox) -> None:
    message = a_message(
        subject="Grüße \U0001f600", body="NUL \x00", headers={"X-B": "1", "X-A": "2"}, metadata={"n": 1.5, "big": 2**70}
    )

    answers = store([(message, {"id": "one", "tenant": "acme", "priority": "high"})])
    outbox.send()

    (mail,) = queued(outbox.amqp_uri, "high")
    assert answers == [{"id": "one", "status": "queued", "outbox": True}]
    assert (mail.id, mail.options) == ("one", {"id": "one", "tenant": "acme", "priority": "high"})
    assert mail.message == message
    assert list(mail.message["headers"]) == ["X-B", "X-A"]
    assert outbox.ids() == []


# Handing over


def test_mails_are_handed_over_in_order_over_many_batches(outbox: Outbox) -> None:
    ids = [f"mail-{number}" for number in range(60)]
    outbox.store(*ids)

    said = outbox.send("--batch", "7")

    assert queued_ids(outbox.amqp_uri) == ids
    assert said == "60 mails handed over.\n"


def test_a_batch_takes_no_more_than_its_size(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claiming, "_MOST_BYTES", 1000)
    outbox.store("a", "b", "c", body="x" * 400)
    outbox.store("larger", body="x" * 4000)
    sizes: list[int] = []
    submit_many = MailClient.submit_many

    def counting(self: MailClient, messages: Any) -> Any:
        sizes.append(len(messages))
        return submit_many(self, messages)

    monkeypatch.setattr(MailClient, "submit_many", counting)

    outbox.send()

    assert sizes == [2, 1, 1]
    assert queued_ids(outbox.amqp_uri) == ["a", "b", "c", "larger"]


def test_a_mail_that_the_service_would_refuse_is_kept_and_holds_up_nobody(outbox: Outbox) -> None:
    outbox.store("first", "bad", "unreadable", "last")
    rows = OutboxMail.objects.filter(mail_id="bad")
    rows.update(message='{"to": [], "from_email": "shop@example.org"}')
    OutboxMail.objects.filter(mail_id="unreadable").update(message="{")

    said = outbox.send()

    assert queued_ids(outbox.amqp_uri) == ["first", "last"]
    assert outbox.ids() == ["bad", "unreadable"]
    row = rows.get()
    assert row.error.startswith("to: ")
    assert row.refused_at is not None
    assert "2 mails handed over" in said
    assert "2 mails cannot be handed over" in said
    assert outbox.send() == "0 mails handed over.\n"


def test_a_refused_mail_gets_another_chance_when_asked_for(outbox: Outbox) -> None:
    outbox.store("bad", to=[])
    outbox.send()
    rows = OutboxMail.objects.filter(mail_id="bad")
    rows.update(message='{"to": ["ann@example.org"], "from_email": "shop@example.org"}')

    said = outbox.send("--retry-refused")

    assert said == "1 refused mails wait again.\n1 mails handed over.\n"
    assert queued_ids(outbox.amqp_uri) == ["bad"]


def test_a_mail_that_makes_the_client_stumble_holds_up_nobody(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox.store("first", "bad", "last")
    submit_many = MailClient.submit_many

    def stumbling(self: MailClient, messages: Any) -> Any:
        if any(message["options"]["id"] == "bad" for message in messages):
            raise RuntimeError("nobody thought of this")
        return submit_many(self, messages)

    monkeypatch.setattr(MailClient, "submit_many", stumbling)

    outbox.send()

    assert queued_ids(outbox.amqp_uri) == ["first", "last"]
    assert OutboxMail.objects.get().error == "RuntimeError: nobody thought of this"


# Outages


def test_without_a_broker_the_rows_stay_and_once_fails(outbox: Outbox) -> None:
    outbox.store("one", "two")

    with (
        override_settings(MAIL_SERVICE={"AMQP_URI": NO_BROKER, "TIMEOUT": 0.3}),
        pytest.raises(CommandError, match="cannot be reached"),
    ):
        outbox.send()

    assert outbox.ids() == ["one", "two"]
    assert outbox.send() == "2 mails handed over.\n"
    assert queued_ids(outbox.amqp_uri) == ["one", "two"]


def test_send_mail_in_a_crontab_hands_the_rows_over_and_tells_that_nobody_sends_them(outbox: Outbox) -> None:
    """As those who come from django-mailer have it."""
    outbox.store("one")
    without_broker = override_settings(MAIL_SERVICE={"AMQP_URI": NO_BROKER, "TIMEOUT": 0.3})
    with without_broker, pytest.raises(CommandError, match="Mails wait in the outbox"):
        call_command("send_mail")
    assert outbox.ids() == ["one"]

    with pytest.raises(CommandError, match="not running"):
        call_command("send_mail")

    assert queued_ids(outbox.amqp_uri) == ["one"]
    assert outbox.ids() == []


def test_without_its_table_the_command_says_so(outbox: Outbox) -> None:
    call_command("migrate", "mail_service_outbox", "zero", database="outbox", verbosity=0)

    with pytest.raises(CommandError, match="database"):
        outbox.send()


def test_mails_whose_entry_of_mailers_is_gone_hold_up_nobody(outbox: Outbox) -> None:
    store([(a_message(), {"id": "gone"})], entry="a former one")
    outbox.store("one")

    with pytest.raises(CommandError, match="a former one"):
        outbox.send()

    assert queued_ids(outbox.amqp_uri) == ["one"]
    assert outbox.ids() == ["gone"]


def test_the_loop_waits_for_the_broker_and_stops_at_sigterm(outbox: Outbox) -> None:
    outbox.store("one")
    with Proxy(outbox.amqp_uri) as proxy:
        proxy.freeze()
        process = outbox.process("--pause", "0.1", amqp_uri=proxy.amqp_uri)
        eventually(lambda: proxy.accepted, 20)
        proxy.cut()
        proxy.thaw()
        eventually(lambda: not outbox.ids(), 20)
        outbox.store("two")
        eventually(lambda: not outbox.ids(), 20)
        process.terminate()
        said, _ = process.communicate(timeout=20)

    assert process.returncode == 0, said
    assert list(dict.fromkeys(queued_ids(outbox.amqp_uri))) == ["one", "two"]


# Several processes, and the end of one


def test_several_processes_hand_over_every_mail(outbox: Outbox) -> None:
    ids = [f"mail-{number}" for number in range(400)]
    outbox.store(*ids)

    statuses = finish(*(outbox.process("--once", "--batch", "10") for _ in range(3)))

    assert statuses == [0, 0, 0]
    assert sorted(queued_ids(outbox.amqp_uri)) == sorted(ids)
    assert outbox.ids() == []


def test_what_one_process_has_claimed_no_other_takes(outbox: Outbox) -> None:
    outbox.store("one", "two", "three")

    with claiming.claimed("", database="outbox", limit=2, timeout_s=60) as rows:
        assert [row.mail_id for row in rows] == ["one", "two"]
        assert finish(outbox.process("--once")) == [0]
        assert queued_ids(outbox.amqp_uri) == ["three"]

    outbox.send()
    assert queued_ids(outbox.amqp_uri) == ["one", "two"]


@pytest.mark.parametrize(
    ("point", "arriving"),
    [("claimed", ["one", "two"]), ("confirmed", ["one", "two", "one", "two"])],
    ids=["before-handing-over", "before-deleting"],
)
def test_after_kill_9_the_next_process_hands_over_the_same_ids(outbox: Outbox, point: str, arriving: list[str]) -> None:
    outbox.store("one", "two")
    assert finish(outbox.process("--once", crash_at=point)) == [-signal.SIGKILL]
    assert outbox.ids() == ["one", "two"]

    # without locks the claims of the dead process are void after a moment
    eventually(lambda: outbox.send() and not outbox.ids(), TIMEOUT_S + 10)

    assert queued_ids(outbox.amqp_uri) == arriving


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_mail_that_was_handed_over_twice_is_delivered_once(
    outbox: Outbox, smtp_server: SmtpServer, tmp_path: Path
) -> None:
    outbox.store("one")
    finish(outbox.process("--once", crash_at="confirmed"))
    eventually(lambda: outbox.send() and not outbox.ids(), TIMEOUT_S + 10)
    outbox.store("two", to=["bob@example.org"])
    outbox.send()

    # one at a time, in order: who has bob's mail has seen both of ann's
    config = {**configuration(outbox.amqp_uri, tmp_path, smtp_port=smtp_server.port), "max_workers": 1}
    with Service(config, tmp_path):
        eventually(lambda: "bob@example.org" in smtp_server.accepted()[-1].rcpt_tos if smtp_server.accepted() else None)

    assert [mail.rcpt_tos for mail in smtp_server.accepted()] == [("ann@example.org",), ("bob@example.org",)]
    assert queued_ids(outbox.amqp_uri) == []


def test_a_claim_is_void_after_a_time_and_what_was_claimed_by_two_is_gone_once(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims as MySQL has them, on any database: a process that was held up finds that others did its work."""
    monkeypatch.setattr(connections["outbox"].features, "has_select_for_update_skip_locked", False)
    outbox.store("one", "two")

    with claiming.claimed("", database="outbox", limit=9, timeout_s=0) as slow:
        eventually(lambda: outbox.send() and not outbox.ids(), 10)

    assert [row.mail_id for row in slow] == ["one", "two"]
    assert queued_ids(outbox.amqp_uri) == ["one", "two"]
