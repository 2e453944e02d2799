"""Any Django email backend: what it is handed, and what its answers mean for each recipient."""

from __future__ import annotations

import smtplib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from anymail.exceptions import AnymailAPIError
from anymail.message import AnymailRecipientStatus
from anymail.signals import post_send, pre_send
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend as DjangosSmtpBackend

from mail_service.diagnosis import Context, Stage, diagnose
from mail_service.local.smtp_server import Rule, SmtpServer
from mail_service.mailers import AttemptFailed, CannotExpress, open_mailer, unwrap
from mail_service.mailers.django_backend import DjangoMailer, configure_django, only_to
from mail_service.outcome import Diagnosis, Kind

from .building import an_email, kinds, settings_of

A, B, C = "a@example.org", "b@example.org", "c@example.org"
HERE = __name__


@pytest.fixture(autouse=True)
def _an_empty_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "outbox", [], raising=False)


def a_mailer(backend: str, **options: Any) -> DjangoMailer:
    return DjangoMailer(settings_of(backend, **options))


def failure(mailer: DjangoMailer, *to: str, **attributes: Any) -> tuple[BaseException, Stage | None, Diagnosis]:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any error, it is what the caller looks at
        mailer.send(an_email(*(to or (A,)), **attributes), list(to or (A,)))
    error, stage = unwrap(caught.value)
    return error, stage, diagnose(error, Context(stage=stage))


class Answering(BaseEmailBackend):
    """Answers, or raises, what the test says."""

    answer: ClassVar[Any] = 1
    handed: ClassVar[list[Any]] = []
    log: ClassVar[list[str]] = []

    def open(self) -> None:
        self.log.append("open")

    def close(self) -> None:
        self.log.append("close")

    def send_messages(self, email_messages: Any) -> Any:
        self.handed.extend(email_messages)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> type[Answering]:
    monkeypatch.setattr(Answering, "handed", [])
    monkeypatch.setattr(Answering, "log", [])
    return Answering


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (1, Kind.ACCEPTED),
        (None, Kind.ACCEPTED),
        (True, Kind.ACCEPTED),
        (7, Kind.ACCEPTED),
        (["a message"], Kind.ACCEPTED),
        (0, Kind.PERMANENT),
        (False, Kind.PERMANENT),
        (-1, Kind.PERMANENT),
        (float("nan"), Kind.PERMANENT),
        ("", Kind.PERMANENT),
    ],
    ids=repr,
)
def test_the_number_that_a_backend_returns(
    answering: type[Answering], monkeypatch: pytest.MonkeyPatch, answer: object, kind: Kind
) -> None:
    monkeypatch.setattr(answering, "answer", answer)

    (receipt,) = a_mailer(f"{HERE}.Answering").send(an_email(A), [A])

    assert receipt.diagnosis.kind == kind
    if kind == Kind.PERMANENT:
        assert "accepted no message" in receipt.diagnosis.text


def test_every_message_has_a_backend_of_its_own_which_is_opened_and_closed(answering: type[Answering]) -> None:
    mailer = a_mailer(f"{HERE}.Answering")

    mailer.send(an_email(A), [A])
    mailer.send(an_email(A), [A])

    assert answering.log == ["open", "close"] * 2
    assert len(answering.handed) == 2


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(), KeyError("x")], ids=lambda error: type(error).__name__
)
def test_a_backend_that_raises_is_closed_and_its_error_passes(
    answering: type[Answering], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(answering, "answer", error)

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - the very one
        a_mailer(f"{HERE}.Answering").send(an_email(A), [A])

    assert unwrap(caught.value) == (error, None)
    assert answering.log == ["open", "close"]


def test_only_those_who_wait_are_handed_over_and_the_headers_name_everybody(answering: type[Answering]) -> None:
    email = an_email(f"Ay <{A}>", B, cc=[C], bcc=["d@example.org"])

    a_mailer(f"{HERE}.Answering").send(email, [B, "d@example.org"])

    (handed,) = answering.handed
    assert (handed.to, handed.cc, handed.bcc) == ([B], [], ["d@example.org"])
    assert handed.message()["To"] == f"Ay <{A}>, {B}"
    assert handed.message()["Cc"] == C
    assert email.to == [f"Ay <{A}>", B]
    assert "To" not in email.extra_headers


def test_an_api_request_names_only_those_it_is_for() -> None:
    """Anymail takes a To header that differs from the recipients for a forged one."""
    mailer = a_mailer("anymail.backends.test.EmailBackend")

    receipts = mailer.send(an_email(A, B, cc=[C]), [B])

    assert kinds(receipts) == {B: Kind.ACCEPTED}
    assert [str(address) for address in mail.outbox[0].anymail_test_params["to"]] == [B]
    assert mail.outbox[0].anymail_test_params["cc"] == []


def test_a_message_for_everybody_is_handed_over_as_it_is() -> None:
    email = an_email(A, cc=[f"Bee <{B}>"])

    assert only_to(email, [A, B], complete_headers=True) is email


def test_anymails_statuses_become_receipts() -> None:
    statuses = {"sent": A, "queued": B, "unknown": C, "rejected": "d@e.org", "invalid": "e@e.org", "failed": "f@e.org"}
    email = an_email(*statuses.values())
    email.anymail_test_response = {
        "recipient_status": {
            address: AnymailRecipientStatus(f"id-{status}", status) for status, address in statuses.items()
        }
    }

    receipts = a_mailer("anymail.backends.test.EmailBackend").send(email, list(statuses.values()))

    assert [receipt.diagnosis.kind for receipt in receipts] == [Kind.ACCEPTED] * 3 + [Kind.PERMANENT] * 3
    assert [receipt.message_id for receipt in receipts] == [f"id-{status}" for status in statuses]


def test_statuses_are_found_whatever_the_spelling_of_the_address() -> None:
    email = an_email("A@Bücher.example")
    email.anymail_test_response = {
        "recipient_status": {"a@xn--bcher-kva.example": AnymailRecipientStatus("id", "rejected")}
    }

    receipts = a_mailer("anymail.backends.test.EmailBackend", ignore_recipient_status=True).send(
        email, ["A@Bücher.example"]
    )

    assert kinds(receipts) == {"A@Bücher.example": Kind.PERMANENT}


def test_recipients_that_are_all_refused_keep_their_statuses() -> None:
    email = an_email(A, B)
    email.anymail_test_response = {
        "recipient_status": {A: AnymailRecipientStatus(None, "rejected"), B: AnymailRecipientStatus(None, "invalid")}
    }

    receipts = a_mailer("anymail.backends.test.EmailBackend").send(email, [A, B])

    assert [receipt.diagnosis.code for receipt in receipts] == ["status rejected", "status invalid"]
    assert {receipt.diagnosis.kind for receipt in receipts} == {Kind.PERMANENT}


@pytest.fixture
def _a_failing_receiver() -> Iterator[None]:
    def receiver(**_: object) -> None:
        raise RuntimeError("the receiver has a bug")

    post_send.connect(receiver)
    yield
    post_send.disconnect(receiver)


@pytest.mark.usefixtures("_a_failing_receiver")
def test_an_error_of_a_signal_receiver_after_acceptance_does_not_undo_it() -> None:
    receipts = a_mailer("anymail.backends.test.EmailBackend").send(an_email(A), [A])

    assert kinds(receipts) == {A: Kind.ACCEPTED}
    assert receipts[0].message_id == "0"


def test_a_send_that_a_receiver_cancels_was_not_accepted() -> None:
    from anymail.exceptions import AnymailCancelSend

    def receiver(**_: object) -> None:
        raise AnymailCancelSend

    pre_send.connect(receiver)
    try:
        receipts = a_mailer("anymail.backends.test.EmailBackend").send(an_email(A), [A])
    finally:
        pre_send.disconnect(receiver)

    assert kinds(receipts) == {A: Kind.PERMANENT}


def test_a_providers_error_passes_for_the_classifier() -> None:
    email = an_email(A)
    error = AnymailAPIError("no")
    email.anymail_test_response = error

    with pytest.raises(AttemptFailed) as caught:
        a_mailer("anymail.backends.test.EmailBackend").send(email, [A])

    assert unwrap(caught.value) == (error, None)


def test_anymails_fields_reach_its_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "outbox", [], raising=False)
    email = an_email(A, template_id="welcome", tags=["x"], envelope_sender="bounce@example.org")

    a_mailer("anymail.backends.test.EmailBackend").send(email, [A])

    params = mail.outbox[0].anymail_test_params
    assert (params["template_id"], params["tags"], params["envelope_sender"]) == (
        "welcome",
        ["x"],
        "bounce@example.org",
    )


@pytest.mark.parametrize("field", ["template_id", "tags", "envelope_sender"])
def test_other_backends_do_not_send_without_what_they_cannot_express(answering: type[Answering], field: str) -> None:
    error, _, diagnosis = failure(a_mailer(f"{HERE}.Answering"), A, **{field: "x@example.org"})

    assert isinstance(error, CannotExpress)
    assert diagnosis.kind == Kind.PERMANENT
    assert answering.handed == []


class Particular(BaseEmailBackend):
    """Takes exactly one option."""

    def __init__(self, key: str, **options: Any) -> None:
        if key == "wrong":
            raise ValueError("not a key")
        super().__init__(**options)

    def send_messages(self, email_messages: Any) -> int:
        return len(email_messages)


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("no.such.Backend", {}),
        ("mail_service.NoSuchBackend", {}),
        ("nonsense", {}),
        ("anymail.backends.postmark.EmailBackend", {}),
        ("django.core.mail.backends.filebased.EmailBackend", {}),
        (f"{HERE}.Particular", {}),
        (f"{HERE}.Particular", {"key": "wrong"}),
        (f"{HERE}.HERE", {}),
    ],
    ids=[
        "no module",
        "no class",
        "no path",
        "no api_key",
        "no file_path",
        "option missing",
        "option wrong",
        "no class at all",
    ],
)
def test_a_backend_that_cannot_be_made_is_a_fault_of_the_configuration(backend: str, options: dict[str, Any]) -> None:
    mailer = open_mailer(settings_of(backend, **options))

    with pytest.raises(ImproperlyConfigured) as caught:
        mailer.send(an_email(A), [A])
    with pytest.raises(ImproperlyConfigured):
        mailer.check()

    assert diagnose(caught.value, Context()).kind == Kind.CONFIGURATION


def test_options_are_the_backends_own() -> None:
    assert kinds(a_mailer(f"{HERE}.Particular", key="right").send(an_email(A), [A])) == {A: Kind.ACCEPTED}


def test_silent_failures_are_not_for_us(smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at="mail", reply="550 no"))

    _, _, diagnosis = failure(
        a_mailer(f"{HERE}.Derived", host="127.0.0.1", port=smtp_server.port, fail_silently=True), A
    )

    assert diagnosis.kind == Kind.CONFIGURATION


class CannotOpen(BaseEmailBackend):
    def open(self) -> None:
        raise TimeoutError("timed out")


def test_an_error_while_opening_comes_before_any_mail() -> None:
    _, stage, diagnosis = failure(a_mailer(f"{HERE}.CannotOpen"))

    assert (stage, diagnosis.kind, diagnosis.certainly_not_sent) == ("connect", Kind.TRANSIENT, True)


class NoBackendAtAll:
    """Neither opens nor closes; Django would take it too."""

    def __init__(self, **options: Any) -> None:
        pass

    def send_messages(self, email_messages: Any) -> int:
        return len(email_messages)


def test_a_backend_needs_nothing_but_send_messages() -> None:
    assert kinds(a_mailer(f"{HERE}.NoBackendAtAll").send(an_email(A), [A])) == {A: Kind.ACCEPTED}


class Derived(DjangosSmtpBackend):
    """What users write to log in differently: everything else is Django's."""


def a_derived_mailer(server: SmtpServer, **options: Any) -> DjangoMailer:
    return a_mailer(f"{HERE}.Derived", host="127.0.0.1", port=server.port, **options)


def test_what_djangos_smtp_backend_drops_about_refused_recipients_is_kept(smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at="rcpt", to=B, reply="450 4.2.1 later"), Rule(at="rcpt", to=C, reply="550 5.1.1 no"))

    receipts = a_derived_mailer(smtp_server).send(an_email(A, B, C), [A, B, C])

    assert kinds(receipts) == {A: Kind.ACCEPTED, B: Kind.TRANSIENT, C: Kind.PERMANENT}


def test_recipients_that_are_all_refused_have_their_own_replies(smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at="rcpt", to=A, reply="450 4.2.1 later"), Rule(at="rcpt", to=B, reply="550 5.1.1 no"))

    receipts = a_derived_mailer(smtp_server).send(an_email(A, B), [A, B])

    assert kinds(receipts) == {A: Kind.TRANSIENT, B: Kind.PERMANENT}


@pytest.mark.parametrize(
    ("rule", "stage", "kind"),
    [
        (Rule(at="connect", drop=True), "connect", Kind.TRANSIENT),
        (Rule(at="helo", drop=True), "helo", Kind.TRANSIENT),
        (Rule(at="mail", drop=True), "mail", Kind.TRANSIENT),
        (Rule(at="rcpt", drop=True), "rcpt", Kind.TRANSIENT),
        (Rule(at="data", drop=True), "body", Kind.UNKNOWN),
        (Rule(at="end", drop=True), "body", Kind.UNKNOWN),
        (Rule(at="end", hang_s=60), "body", Kind.UNKNOWN),
        (Rule(at="end", reply="451 later"), None, Kind.TRANSIENT),
    ],
    ids=lambda value: f"{value.at}" if isinstance(value, Rule) else "",
)
def test_the_stage_is_known_for_whatever_uses_smtplib(
    smtp_server: SmtpServer, rule: Rule, stage: Stage | None, kind: Kind
) -> None:
    smtp_server.script(rule)

    error, at, diagnosis = failure(a_derived_mailer(smtp_server, timeout=0.3))

    assert isinstance(error, smtplib.SMTPException)
    assert (at, diagnosis.kind) == (stage, kind)


def test_the_envelope_sender_works_for_whatever_uses_smtplib(smtp_server: SmtpServer) -> None:
    a_derived_mailer(smtp_server).send(an_email(A, envelope_sender="bounce@example.org"), [A])

    assert smtp_server.accepted()[0].mail_from == "bounce@example.org"


def test_a_timeout_is_set_when_nobody_set_one(smtp_server: SmtpServer) -> None:
    assert a_derived_mailer(smtp_server)._made().timeout == 30
    assert a_derived_mailer(smtp_server, timeout=5)._made().timeout == 5


class FailsAtTheEnd(Derived):
    def send_messages(self, email_messages: Any) -> Any:
        super().send_messages(email_messages)
        raise RuntimeError("a bug after the mail was sent")


def test_an_error_after_the_server_took_the_mail_does_not_undo_it(smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at="rcpt", to=B, reply="550 5.1.1 no"))

    receipts = a_mailer(f"{HERE}.FailsAtTheEnd", host="127.0.0.1", port=smtp_server.port).send(an_email(A, B), [A, B])

    assert kinds(receipts) == {A: Kind.ACCEPTED, B: Kind.PERMANENT}


def test_djangos_own_backends_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, options in {"filebased": {"file_path": str(tmp_path)}, "console": {}, "locmem": {}, "dummy": {}}.items():
        receipts = a_mailer(f"django.core.mail.backends.{name}.EmailBackend", **options).send(an_email(A, B), [B])
        assert kinds(receipts) == {B: Kind.ACCEPTED}, name

    (written,) = tmp_path.iterdir()
    assert f"To: {A}, {B}" in written.read_text()
    assert f"To: {A}, {B}" in capsys.readouterr().out
    assert [each.to for each in mail.outbox] == [[B]]


def test_check_opens_and_closes(answering: type[Answering]) -> None:
    assert a_mailer(f"{HERE}.Answering").check() == f"{HERE}.Answering can be opened"
    assert answering.log == ["open", "close"]


def test_opening_a_mailer_imports_nothing_of_its_backend() -> None:
    program = """
import sys
from mail_service.mailers import open_mailer
from mail_service.settings import MailerSettings
open_mailer(MailerSettings(name="esp", backend="anymail.backends.mailjet.EmailBackend"))
sys.exit("anymail.backends.mailjet" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=False).returncode == 0


def test_django_is_configured_once_and_never_over_others() -> None:
    from django.conf import settings

    before = settings._wrapped
    configure_django()

    assert settings._wrapped is before
