"""Delivery reports: what is in them, and who gets none."""

from __future__ import annotations

import email
import email.policy
import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import replace
from email.message import EmailMessage
from typing import Any

import pytest

from mail_service import message
from mail_service.amqp.publisher import PublishFailed
from mail_service.delivery.bouncing import Bouncer, is_report, report_id, status_code
from mail_service.delivery.closing import Desk
from mail_service.delivery.copies import Delivery
from mail_service.delivery.verdicts import Dropped
from mail_service.envelope import Envelope, seal
from mail_service.ledger import StoreDown
from mail_service.ledger.records import Mail, recipient
from mail_service.message import Options
from mail_service.outcome import Status
from mail_service.settings import Bounce, Settings

from ..support.messages import a_message, configure_django

configure_django()

AT = "2026-11-22T04:11:59.246825+00:00"
LATER = "2026-11-22T05:00:00.000000+00:00"


class FakeLedger:
    """Knows what was accepted."""

    def __init__(self) -> None:
        self.mails: dict[str, Mail] = {}
        self.is_down = False

    def find(self, mail_id: str) -> Mail | None:
        if self.is_down:
            raise StoreDown
        return self.mails.get(mail_id)

    def accept(self, mail: Mail) -> None:
        if self.is_down:
            raise StoreDown
        self.mails[mail.id] = mail


class FakeQueue:
    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.is_down = False

    def put(self, envelope: Envelope) -> None:
        if self.is_down:
            raise PublishFailed
        self.envelopes.append(envelope)


class Office:
    """A Bouncer with its surroundings."""

    def __init__(self, factory: Any = None, **bounce: Any) -> None:
        self.ledger, self.queue = FakeLedger(), FakeQueue()
        settings = Settings(default_from="Shop <shop@example.org>", bounce=Bounce(to_sender=True, **bounce))
        any_ledger: Any = self.ledger
        any_queue: Any = self.queue
        self.bouncer = Bouncer(settings, any_ledger, any_queue, factory)

    def report(self, mail: Mail, **changes: Any) -> EmailMessage | None:
        """The report that is put on its way about *mail*, whose message is a_message(**changes)."""
        before = len(self.queue.envelopes)
        self.bouncer.report(sealed(mail, **changes), mail)
        if len(self.queue.envelopes) == before:
            return None
        return parsed(self.queue.envelopes[-1].message)


def sealed(mail: Mail, **changes: Any) -> Envelope:
    return replace(seal(a_message(**changes), {}, door="submit", mail_id=mail.id), submitted_at=mail.submitted_at)


def parsed(report: Mapping[str, Any]) -> EmailMessage:
    found = email.message_from_bytes(b64decode(report["mime"]), policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return found


def blocks(status: Any) -> list[EmailMessage]:
    """The groups of fields of a message/delivery-status."""
    found: list[EmailMessage] = status.get_payload()
    return found


def a_mail(*states: tuple[str, Status, str | None], status: Status = Status.FAILED, **changes: Any) -> Mail:
    people = states or (("ann@example.org", Status.FAILED, "550 5.1.1 No such person"),)
    facts: dict[str, Any] = {
        "id": "order-17",
        "status": status,
        "mailer": "default",
        "generation": 3,
        "submitted_at": AT,
        "updated_at": LATER,
        "recipients": {who: recipient(state, detail=detail) for who, state, detail in people},
    }
    return Mail(**(facts | changes))


def test_a_report_has_the_three_parts_of_rfc_3464() -> None:
    report = Office().report(a_mail(), subject="Order 17", body="a private text")

    assert report is not None
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    text, status, returned = report.iter_parts()
    assert "ann@example.org" in text.get_content()
    per_message, per_recipient = blocks(status)
    assert per_message["Reporting-MTA"] == "dns; example.org"
    assert per_message["Original-Envelope-Id"] == "order-17"
    assert per_recipient["Final-Recipient"] == "rfc822; ann@example.org"
    assert per_recipient["Action"] == "failed"
    assert per_recipient["Status"] == "5.1.1"
    assert per_recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 No such person"
    assert returned.get_content_type() == "text/rfc822-headers"
    assert "Subject: Order 17" in returned.get_content()
    assert "a private text" not in report.as_string()


def test_a_report_goes_to_the_envelope_sender_from_nobody() -> None:
    office = Office()

    report = office.report(a_mail(), envelope_sender="Bounces <bounces@example.org>")

    assert report is not None
    assert (report["To"], report["From"]) == ("bounces@example.org", "Mail Delivery System <shop@example.org>")
    assert report["Auto-Submitted"] == "auto-replied"
    (envelope,) = office.queue.envelopes
    assert envelope.message["to"] == ["bounces@example.org"]
    assert envelope.message["envelope_sender"] == "<>"
    assert envelope.message_id == report["Message-ID"]
    assert message.validate(envelope.message)


def test_a_report_names_those_only_who_were_not_reached() -> None:
    mail = a_mail(
        ("ann@example.org", Status.SENT, None),
        ("bob@example.org", Status.EXPIRED, "450 4.2.0 Later"),
        ("carl@example.org", Status.SUPPRESSED, None),
        ("dora@example.org", Status.FAILED, "the backend\nraised ValueError"),
        status=Status.PARTLY_SENT,
    )

    report = Office().report(mail)

    assert report is not None
    _, *recipients = blocks(list(report.iter_parts())[1])
    assert [(each["Final-Recipient"], each["Status"], each["Diagnostic-Code"]) for each in recipients] == [
        ("rfc822; bob@example.org", "4.2.0", "smtp; 450 4.2.0 Later"),
        ("rfc822; dora@example.org", "5.0.0", "x-mail-service; the backend raised ValueError"),
    ]


@pytest.mark.parametrize(
    ("status", "detail", "code"),
    [
        pytest.param(Status.FAILED, "550 5.7.1 no", "5.7.1", id="the server's own"),
        pytest.param(Status.FAILED, "550-5.7.1 no", "5.7.1", id="of several lines"),
        pytest.param(Status.FAILED, "550 no", "5.0.0", id="none"),
        pytest.param(Status.FAILED, "450 4.2.0 later", "5.0.0", id="of the wrong class"),
        pytest.param(Status.EXPIRED, "450 4.2.0 later", "4.2.0", id="expired, the server's own"),
        pytest.param(Status.EXPIRED, "a timeout", "4.4.7", id="expired"),
        pytest.param(Status.FAILED, "from 10.5.1.1 came nothing", "5.0.0", id="an address of a host"),
    ],
)
def test_the_status_code(status: Status, detail: str, code: str) -> None:
    assert status_code(status, detail) == code


def test_the_whole_mail_comes_back_when_that_is_wished() -> None:
    report = Office(whole=True).report(a_mail(), body="Grüße", bcc=["secret@example.org"])

    assert report is not None
    returned = list(report.iter_parts())[2]
    assert returned.get_content_type() == "message/rfc822"
    assert "Grüße" in returned.get_content().get_content()
    assert "secret@example.org" not in returned.as_string()


def test_nobody_is_told_of_a_mail_from_nobody_or_of_a_report() -> None:
    office = Office()
    first = office.report(a_mail())
    assert first is not None
    again = office.queue.envelopes[0].message

    assert office.report(a_mail(id="second"), envelope_sender="<>") is None
    assert is_report(message.validate(again))
    assert office.report(a_mail(id="third"), mime=again["mime"], envelope_sender="a@example.org") is None


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.FAILED, Status.EXPIRED, Status.PARTLY_SENT}))
def test_nobody_is_told_of_another_end(status: Status) -> None:
    assert Office().report(a_mail(status=status)) is None


def test_the_same_end_is_the_same_report_to_the_byte_and_is_put_on_its_way_once() -> None:
    office, other = Office(whole=True), Office(whole=True)
    parts = {"html": "<p>Text</p>", "attachments": [{"filename": "a.pdf", "content": "YQ==", "mimetype": None}]}
    mail = a_mail()
    envelope = sealed(mail, **parts)

    office.bouncer.report(envelope, mail)
    office.bouncer.report(envelope, mail)
    other.bouncer.report(envelope, mail)

    assert len(office.queue.envelopes) == 1
    one, two = office.queue.envelopes[0], other.queue.envelopes[0]
    assert json.dumps(one.message) == json.dumps(two.message)
    assert (one.id, one.message_id, one.date) == (two.id, two.message_id, two.date)


def test_another_end_after_a_replay_is_another_report() -> None:
    assert report_id(a_mail(generation=3)) != report_id(a_mail(generation=5))


def test_a_report_is_made_while_the_database_is_away() -> None:
    office = Office()
    office.ledger.is_down = True

    assert office.report(a_mail()) is not None


def test_a_broker_that_does_not_confirm_the_report_is_the_callers_to_know() -> None:
    office = Office()
    office.queue.is_down = True

    with pytest.raises(PublishFailed):
        office.report(a_mail())


def test_a_report_has_the_tenant_of_its_mail_and_the_mailer_of_the_configuration() -> None:
    office = Office(mailer="default")

    office.report(a_mail(tenant="acme"))

    assert office.queue.envelopes[0].options == {
        "id": report_id(a_mail(tenant="acme")),
        "tenant": "acme",
        "mailer": "default",
    }


def test_a_factory_makes_another_message_or_none_but_never_one_with_a_sender() -> None:
    def own(record: dict[str, Any], report: dict[str, Any]) -> dict[str, Any] | None:
        if record["id"] == "silent":
            return None
        return {"to": ["desk@example.org"], "body": report["body"], "envelope_sender": "a@example.org"}

    office = Office(factory=own)

    office.bouncer.report(sealed(a_mail(id="silent")), a_mail(id="silent"))
    office.bouncer.report(sealed(a_mail()), a_mail())

    (envelope,) = office.queue.envelopes
    assert envelope.message["to"] == ["desk@example.org"]
    assert envelope.message["envelope_sender"] == "<>"


def test_a_factory_that_fails_changes_nothing_but_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_record: dict[str, Any], _report: dict[str, Any]) -> None:
        raise ValueError("ann@example.org")

    assert Office(factory=broken).report(a_mail()) is None
    assert "no report could be made about mail order-17 (ValueError)" in caplog.text
    assert "ann@" not in caplog.text


def test_addresses_beyond_ascii_are_written_as_rfc_6533_has_it() -> None:
    mail = a_mail(("jürgen@bücher.example", Status.FAILED, "Kein Büro"), ("a@bücher.example", Status.FAILED, None))

    report = Office().report(mail)

    assert report is not None
    content = report.as_bytes().decode("ascii", "replace")
    assert "Final-Recipient: rfc822; a@xn--bcher-kva.example" in content
    assert "Diagnostic-Code: x-mail-service; Kein B?ro" in content
    assert "Final-Recipient: utf-8; j\\x{FC}rgen@b\\x{FC}cher.example" in content


def test_a_copy_that_comes_back_after_its_end_was_recorded_is_reported() -> None:
    """The process may have ended between the commit and the report."""
    office = Office()
    mail = a_mail()
    envelope = sealed(mail)
    told: Any = _Silent()
    desk = Desk(told, told, told, report=office.bouncer.report)
    delivery = Delivery(
        envelope=envelope, canonical={}, options=Options.parse({}), mail=a_mail(generation=1), redelivered=True
    )

    desk.close(delivery, Dropped(mail=mail), None, lambda *_: 0)

    assert [each.id for each in office.queue.envelopes] == [report_id(mail)]


class _Silent:
    """Takes everything."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_args, **_kwargs: None
