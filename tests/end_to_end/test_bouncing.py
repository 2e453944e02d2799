"""A mail that fails for good is reported to its envelope sender (RFC 3464), once, and no report is ever reported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mail_service.local.smtp_server import Accepted, Rule, SmtpServer

from ..support.messages import a_message
from ..support.service import Service, configuration
from ..support.waiting import eventually

RULES = (
    Rule(at="rcpt", to="refused*", reply="550 5.1.1 No such person"),
    Rule(at="rcpt", to="later*", reply="450 4.2.0 Come back later"),
)
FINAL = ("sent", "partly_sent", "failed", "expired")


class Post:
    """A service that reports, and the mail server that it delivers to."""

    def __init__(self, service: Service, smtp: SmtpServer) -> None:
        self.service, self.smtp = service, smtp

    def becomes(self, **changes: Any) -> str:
        """How a mail ends."""
        mail_id = self.service.rpc.call("submit", a_message(**changes))["id"]

        def end() -> str:
            record = self.service.rpc.status(mail_id)
            assert record["status"] in FINAL, f"{record}\n{self.service.log[-3000:]}"
            return str(record["status"])

        return eventually(end, 60)

    def reports(self) -> list[Accepted]:
        return [mail for mail in self.smtp.accepted() if mail.email.get_content_type() == "multipart/report"]


@pytest.fixture
def post(amqp_uri: str, tmp_path: Path) -> Iterator[Post]:
    with SmtpServer(*RULES) as smtp:
        config = configuration(amqp_uri, tmp_path, smtp_port=smtp.port, bounce={"to_sender": True})
        with Service(config, tmp_path) as service:
            yield Post(service, smtp)


def test_who_sent_a_mail_that_fails_gets_a_report_from_nobody(post: Post) -> None:
    assert post.becomes(to=["refused@example.org"], subject="Order 17", envelope_sender="desk@example.org") == "failed"

    (report,) = eventually(post.reports, 60)

    assert (report.mail_from, report.rcpt_tos) == ("", ("desk@example.org",))
    assert report.email["Auto-Submitted"] == "auto-replied"
    content = report.data.decode()
    assert "Final-Recipient: rfc822; refused@example.org" in content
    assert "Status: 5.1.1" in content
    assert "Subject: Order 17" in content
    assert "nothing acts on these settings" not in post.service.log


def test_a_mail_that_expires_and_one_that_is_partly_sent_are_reported(post: Post) -> None:
    assert post.becomes(to=["later@example.org"], from_email="one@example.org") == "expired"
    assert post.becomes(to=["ann@example.org", "refused@example.org"], from_email="two@example.org") == "partly_sent"

    eventually(lambda: len(post.reports()) == 2, 60)

    by_sender = {mail.rcpt_tos[0]: mail.data.decode() for mail in post.reports()}
    assert "Final-Recipient: rfc822; later@example.org" in by_sender["one@example.org"]
    assert "Final-Recipient: rfc822; ann@example.org" not in by_sender["two@example.org"]


def test_a_report_that_fails_itself_is_in_the_error_log_and_nobody_is_told(post: Post) -> None:
    assert post.becomes(to=["refused@example.org"], from_email="refused-sender@example.org") == "failed"

    eventually(lambda: len(post.service.rpc.call("errors")) == 2, 60)
    entries = post.service.rpc.call("errors")
    assert post.becomes(to=["ann@example.org"]) == "sent"

    assert {who for entry in entries for who in entry["recipients"]} == {
        "refused@example.org",
        "refused-sender@example.org",
    }
    assert len(post.service.rpc.call("errors")) == 2
    assert not post.reports()


def test_a_mail_from_nobody_is_not_reported(post: Post) -> None:
    assert post.becomes(to=["refused@example.org"], envelope_sender="<>") == "failed"
    assert post.becomes(to=["ann@example.org"]) == "sent"

    assert len(post.service.rpc.call("errors")) == 1
    assert not post.reports()


def test_each_sender_is_told_once_through_a_kill_of_the_service(post: Post) -> None:
    """A report whose own attempt was under way may come twice, as any mail; it is then the same one."""
    senders = [f"sender-{number}@example.org" for number in range(40)]
    for sender in senders:
        post.service.rpc.submit(a_message(to=["refused@example.org"], from_email=sender))
    eventually(post.reports, 60)

    post.service.kill9()
    post.service.start()

    def told() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for report in post.reports():
            found.setdefault(report.rcpt_tos[0], set()).add(report.email["Message-ID"])
        return found

    eventually(lambda: set(told()) == set(senders), 60)
    assert {sender: len(ids) for sender, ids in told().items()} == dict.fromkeys(senders, 1)
    assert {entry["status"] for entry in post.service.rpc.call("errors", limit=200)} == {"failed"}
    assert len(post.service.rpc.call("errors", limit=200)) == len(senders)
