"""What ``mail_service.testing`` offers to the tests of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mail_service.client import MailClient
from mail_service.errors import (
    Conflict,
    DeliveryFailed,
    Expired,
    InvalidMessage,
    MailServiceError,
    NotFound,
    Timeout,
    Unavailable,
)
from mail_service.mailers.rehearsal import EmailBackend as RehearsalBackend
from mail_service.testing import FakeMailClient, SentMails, recording, rehearsed

from ..support.messages import a_message


@pytest.fixture
def client() -> FakeMailClient:
    return FakeMailClient()


# The fake client answers as the real one


def test_submit_answers_queued_and_keeps_the_mail(client: FakeMailClient) -> None:
    answer = client.submit(a_message(subject="Hello", cc=["Bob <bob@example.org>"]), tenant="acme")

    (mail,) = client.sent
    assert answer == {"id": client.sent.ids[0], "status": "queued"}
    assert (mail.subject, mail.to, mail.cc) == ("Hello", ["ann@example.org"], ["Bob <bob@example.org>"])
    assert mail.mail_service == {"id": answer["id"], "tenant": "acme"}
    assert mail.mail_service_status == client.status(answer["id"])
    assert client.sent.handed_in[0].message["subject"] == "Hello"


def test_send_answers_the_record(client: FakeMailClient) -> None:
    record = client.send(a_message(), id="one", priority="high", mailer="second")

    assert record == client.status("one")
    assert record["recipients"] == {"ann@example.org": {"status": "sent", "message_id": None, "detail": None}}
    assert {name: record[name] for name in ("id", "status", "mailer", "tenant", "priority", "error")} == {
        "id": "one",
        "status": "sent",
        "mailer": "second",
        "tenant": None,
        "priority": "high",
        "error": None,
    }


def test_a_record_has_the_keys_of_the_contract(client: FakeMailClient) -> None:
    from mail_service.ledger.records import Mail
    from mail_service.outcome import Status

    assert client.send(a_message()).keys() == Mail(id="", status=Status.SENT, mailer="").record().keys()


@pytest.mark.parametrize(
    ("message", "options", "field"),
    [
        (a_message(to=None), {}, "to"),
        (a_message(sbject="x"), {}, "sbject"),
        (a_message(), {"priority": "urgent"}, "priority"),
        (a_message(), {"idd": "x"}, "options.idd"),
        (a_message(metadata={"at": object()}), {}, "metadata"),
    ],
    ids=["nobody", "field", "priority", "option", "no JSON"],
)
def test_what_the_service_would_refuse_is_refused(
    client: FakeMailClient, message: Any, options: dict[str, Any], field: str
) -> None:
    for hand_in in (client.submit, client.send):
        with pytest.raises(InvalidMessage) as caught:
            hand_in(message, **options)
        assert caught.value.field.startswith(field)
    (answer,) = client.submit_many([{**message, "options": options}])
    assert answer["error"]["type"] == "InvalidMessage"
    assert not client.sent


def test_a_message_larger_than_allowed_is_refused() -> None:
    with pytest.raises(InvalidMessage):
        FakeMailClient(max_size=100).submit(a_message(body="x" * 100))


def test_the_same_id_is_one_mail(client: FakeMailClient) -> None:
    client.submit(a_message(), id="one")
    client.submit(a_message(), id="one")
    client.send(a_message(), id="one")

    assert len(client.sent) == 1
    assert client.sent.ids == ["one", "one", "one"]
    assert client.sent.conflicts == []


def test_the_same_id_with_another_message_is_a_conflict(client: FakeMailClient) -> None:
    client.submit(a_message(), id="one")
    client.submit(a_message(subject="Other"), id="one")
    with pytest.raises(Conflict):
        client.send(a_message(subject="Other"), id="one")

    assert client.sent.conflicts == ["one", "one"]
    assert [mail.subject for mail in client.sent] == ["Hello"]


def test_an_unknown_id_is_not_found(client: FakeMailClient) -> None:
    with pytest.raises(NotFound):
        client.status("nobody")


def test_other_methods_answer_what_the_test_says(client: FakeMailClient) -> None:
    client.answers = {"pauses": [{"mailer": "default"}], "cancel": lambda mail_id: {"id": mail_id}}

    assert client.call("pauses") == [{"mailer": "default"}]
    assert client.call("cancel", "one") == {"id": "one"}
    assert [name for name, _, _ in client.calls] == ["pauses", "cancel"]
    with pytest.raises(NotImplementedError, match="explain"):
        client.call("explain", "one")


def test_submit_many_over_rpc_answers_as_the_service(client: FakeMailClient) -> None:
    answers = client.call("submit_many", [{**a_message(), "options": {"id": "one"}}, a_message(to=None)])

    assert answers[0] == {"id": "one", "status": "queued"}
    assert answers[1]["error"]["field"] == "to"


# Failing


@pytest.mark.parametrize("error", [Unavailable, Timeout, Unavailable("no broker")], ids=["class", "timeout", "text"])
def test_a_client_that_is_told_to_fails_until_it_recovers(client: FakeMailClient, error: Any) -> None:
    client.sent.fail(error)
    kind = error if isinstance(error, type) else type(error)

    for hand_in in (client.submit, client.send):
        with pytest.raises(kind):
            hand_in(a_message())
    with pytest.raises(kind):
        client.submit_many([a_message(), a_message()])

    assert not client.sent
    client.sent.recover()
    client.submit(a_message())
    assert len(client.sent) == 1


def test_a_timeout_may_have_got_through_and_the_same_id_stays_one_mail(client: FakeMailClient) -> None:
    client.sent.fail(Timeout, times=1, taken=True)

    with pytest.raises(Timeout) as caught:
        client.submit(a_message())
    client.submit(a_message(), id=caught.value.mail_id)

    assert len(client.sent) == 1


def test_some_of_many_fail(client: FakeMailClient) -> None:
    client.sent.fail(Unavailable, only=lambda mail: mail.message["subject"] == "B")

    answers = client.submit_many([a_message(subject="A"), a_message(subject="B"), a_message(subject="C")])

    assert [answer.get("status") or answer["error"]["type"] for answer in answers] == [
        "queued",
        "Unavailable",
        "queued",
    ]
    assert [mail.subject for mail in client.sent] == ["A", "C"]


@pytest.mark.parametrize(("error", "status"), [(DeliveryFailed, "failed"), (Expired, "expired")])
def test_a_mail_that_is_not_delivered_stands_in_the_error_log(
    client: FakeMailClient, error: type[MailServiceError], status: str
) -> None:
    client.sent.fail(error)

    with pytest.raises(error):
        client.send(a_message(), id="sent")
    assert client.submit(a_message(), id="submitted")["status"] == "queued"

    assert client.status("submitted")["status"] == status
    assert [record["id"] for record in client.call("errors", status=status)] == ["submitted", "sent"]
    assert client.call("error", "sent")["message"] == a_message()


def test_an_answer_fails(client: FakeMailClient) -> None:
    client.sent.fail(Timeout, method="status")
    client.submit(a_message(), id="one")

    with pytest.raises(Timeout):
        client.status("one")


# Every client of the process


def test_while_recording_no_client_connects() -> None:
    with recording(answers={"pauses": []}) as sent, MailClient("amqp://guest:guest@127.0.0.1:1//") as client:
        client.submit(a_message(to=["Ann@example.org"], bcc=["bob@example.org"]), id="one")
        client.send(a_message(), id="two")
        assert client.call("pauses") == []
        assert client.is_running()

    assert sent.ids == ["one", "two"]
    assert [mail.mail_service["id"] for mail in sent.to("ann@example.org")] == ["one", "two"]
    assert [mail.mail_service["id"] for mail in sent.to("bob@example.org")] == ["one"]
    assert sent.of_id("three") is None
    assert len(sent[:]) == 2
    assert sent[0] is sent[0]
    with pytest.raises(Unavailable):
        MailClient("amqp://guest:guest@127.0.0.1:1//", timeout=0.2).submit(a_message())


def test_clear_forgets_the_mails() -> None:
    sent = SentMails()
    FakeMailClient(sent=sent).submit(a_message())

    sent.clear()

    assert (len(sent), sent.ids) == (0, [])


# The rehearsal mailer


def test_rehearsed_reads_what_the_rehearsal_mailer_took(tmp_path: Path) -> None:
    from django.core.mail import EmailMessage

    assert rehearsed(tmp_path / "nothing") == []
    backend = RehearsalBackend(folder=str(tmp_path))
    backend.send_messages(
        [EmailMessage("Grüße", "Text", "shop@example.org", ["ann@example.org", "refuse@example.org"])]
    )
    with (tmp_path / "outbox.jsonl").open("a") as log:
        log.write('{"half a li')

    (mail,) = rehearsed(tmp_path)

    assert (mail.sender, mail.recipients) == ("shop@example.org", ("ann@example.org",))
    assert mail.email["Subject"] == "Grüße"
