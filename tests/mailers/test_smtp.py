"""The SMTP mailer against a real server that fails on demand."""

from __future__ import annotations

import smtplib
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from email.mime.base import MIMEBase
from pathlib import Path
from typing import Any

import pytest
import trustme
from django.core.exceptions import ImproperlyConfigured

from mail_service.diagnosis import Context, Stage, diagnose
from mail_service.local.smtp_server import Rule, Settings, SmtpServer
from mail_service.mailers import AttemptFailed, CannotExpress, open_mailer, unwrap
from mail_service.mailers.replies import ReplyReader
from mail_service.mailers.smtp import ASK_AFTER_S, KEEP_S, SmtpMailer
from mail_service.outcome import Diagnosis, Kind
from mail_service.settings import Limit

from .building import an_email, kinds, smtp_settings

A, B, C = "a@example.org", "b@example.org", "c@example.org"
LOGIN = {"username": "me", "password": "secret"}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mailer(smtp_server: SmtpServer, clock: Clock) -> Iterator[SmtpMailer]:
    made = SmtpMailer(smtp_settings(smtp_server.port, timeout=5), clock=clock)
    yield made
    made.close()


def failure(mailer: SmtpMailer, *to: str, **attributes: Any) -> tuple[BaseException, Stage | None, Diagnosis]:
    """Send, expect the attempt to fail as a whole, and say with what, where, and what that means."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any error, it is what the caller looks at
        mailer.send(an_email(*(to or (A,)), **attributes), list(to or (A,)))
    error, stage = unwrap(caught.value)
    return error, stage, diagnose(error, Context(mailer=mailer.name, stage=stage))


def test_a_mail_arrives_as_django_would_have_sent_it(mailer: SmtpMailer, smtp_server: SmtpServer) -> None:
    email = an_email(A, cc=[f"Bee <{B}>"], bcc=[C], subject="Grüße")
    email.attach_alternative("<p>Hi</p>", "text/html")

    receipts = mailer.send(email, [A, B, C])

    assert kinds(receipts) == {A: Kind.ACCEPTED, B: Kind.ACCEPTED, C: Kind.ACCEPTED}
    (mail,) = smtp_server.accepted()
    assert mail.mail_from == "from@example.org"
    assert mail.rcpt_tos == (A, B, C)
    assert mail.email["To"] == A
    assert mail.email["Cc"] == f"Bee <{B}>"
    assert mail.email["Bcc"] is None
    assert mail.email["Subject"] == "Grüße"
    assert mail.email["Message-ID"] == "<fixed@example.org>"
    assert [part.get_content_type() for part in mail.email.iter_parts()] == ["text/plain", "text/html"]


def test_each_recipients_reply_is_kept(mailer: SmtpMailer, smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at="rcpt", to=B, reply="450 4.2.1 later"), Rule(at="rcpt", to=C, reply="550 5.1.1 no"))

    receipts = mailer.send(an_email(A, B, cc=[C]), [A, B, C])

    assert kinds(receipts) == {A: Kind.ACCEPTED, B: Kind.TRANSIENT, C: Kind.PERMANENT}
    assert [receipt.diagnosis.code for receipt in receipts] == ["smtp 250", "smtp 450 4.2.1", "smtp 550 5.1.1"]
    assert [mail.rcpt_tos for mail in smtp_server.accepted()] == [(A,)]


def test_those_who_wait_get_the_mail_alone_with_everybody_in_its_headers(
    mailer: SmtpMailer, smtp_server: SmtpServer
) -> None:
    receipts = mailer.send(an_email(A, B, cc=[C]), [B])

    assert kinds(receipts) == {B: Kind.ACCEPTED}
    (mail,) = smtp_server.accepted()
    assert mail.rcpt_tos == (B,)
    assert (mail.email["To"], mail.email["Cc"]) == (f"{A}, {B}", C)


def test_when_nobody_is_accepted_everybody_has_their_own_reply_and_the_connection_stays(
    mailer: SmtpMailer, smtp_server: SmtpServer
) -> None:
    smtp_server.script(
        Rule(at="rcpt", to=A, reply="450 later", times=1), Rule(at="rcpt", to=B, reply="550 no", times=1)
    )

    receipts = mailer.send(an_email(A, B), [A, B])
    mailer.send(an_email(A), [A])

    assert kinds(receipts) == {A: Kind.TRANSIENT, B: Kind.PERMANENT}
    refusals = smtp_server.fired()
    assert smtp_server.accepted()[0].connection == refusals[0].connection == refusals[1].connection


def test_recipients_beyond_the_servers_limit_get_the_mail_in_a_further_transaction(
    mailer: SmtpMailer, smtp_server: SmtpServer
) -> None:
    """RFC 5321, 4.5.3.1.10: waiting for the next attempt would use the schedule up on a long list."""
    smtp_server.script(Rule(at="rcpt", to="[bc]@*", reply="452 4.5.3 Too many recipients", times=1))

    receipts = mailer.send(an_email(A, B, C), [A, B, C])

    assert set(kinds(receipts).values()) == {Kind.ACCEPTED}
    assert [mail.rcpt_tos for mail in smtp_server.accepted()] == [(A,), (B, C)]


def test_an_error_in_a_further_transaction_does_not_touch_who_was_accepted(
    mailer: SmtpMailer, smtp_server: SmtpServer
) -> None:
    smtp_server.script(
        Rule(at="rcpt", to=B, reply="452 4.5.3 Too many recipients", times=1), Rule(at="data", to=B, drop=True)
    )

    receipts = mailer.send(an_email(A, B), [A, B])

    assert kinds(receipts) == {A: Kind.ACCEPTED, B: Kind.TRANSIENT}


def test_a_452_alone_waits_for_the_next_attempt(mailer: SmtpMailer, smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at="rcpt", reply="452 4.5.3 Too many recipients"))

    assert kinds(mailer.send(an_email(A), [A])) == {A: Kind.TRANSIENT}


@pytest.mark.parametrize(
    ("rule", "stage", "kind", "code"),
    [
        (Rule(at="connect", reply="421 4.3.2 busy"), "connect", Kind.TRANSIENT, "smtp 421 4.3.2"),
        (Rule(at="connect", reply="554 5.3.2 no"), "connect", Kind.TRANSIENT, "smtp 554 5.3.2"),
        (Rule(at="connect", drop=True), "connect", Kind.TRANSIENT, "SMTPServerDisconnected at connect"),
        (Rule(at="connect", hang_s=60), "connect", Kind.TRANSIENT, "SMTPServerDisconnected at connect"),
        (Rule(at="helo", drop=True), "helo", Kind.TRANSIENT, "SMTPServerDisconnected at helo"),
        (Rule(at="mail", reply="421 4.3.2 closing"), "mail", Kind.TRANSIENT, "smtp 421 4.3.2"),
        (Rule(at="mail", reply="451 later"), "mail", Kind.TRANSIENT, "smtp 451"),
        (Rule(at="mail", reply="454 Throttling failure: too fast"), "mail", Kind.THROTTLED, "smtp 454"),
        (Rule(at="mail", reply="550 5.7.1 not you"), "mail", Kind.CONFIGURATION, "smtp 550 5.7.1"),
        (Rule(at="mail", reply="552 5.3.4 too big"), "mail", Kind.PERMANENT, "smtp 552 5.3.4"),
        (Rule(at="mail", drop=True), "mail", Kind.TRANSIENT, "SMTPServerDisconnected at mail"),
        (Rule(at="mail", hang_s=60), "mail", Kind.TRANSIENT, "SMTPServerDisconnected at mail"),
        (Rule(at="mail", reply="banana"), "mail", Kind.TRANSIENT, "smtp -1"),
        (Rule(at="rcpt", drop=True), "rcpt", Kind.TRANSIENT, "SMTPServerDisconnected at rcpt"),
        (Rule(at="rcpt", hang_s=60), "rcpt", Kind.TRANSIENT, "SMTPServerDisconnected at rcpt"),
        (Rule(at="data", reply="451 4.3.0 later"), "data", Kind.TRANSIENT, "smtp 451 4.3.0"),
        (Rule(at="data", reply="250 odd"), "data", Kind.TRANSIENT, "smtp 250"),
        (Rule(at="data", drop=True), "data", Kind.TRANSIENT, "SMTPServerDisconnected at data"),
        (Rule(at="data", hang_s=60), "data", Kind.TRANSIENT, "SMTPServerDisconnected at data"),
        (Rule(at="body", after_bytes=100, drop=True), "body", Kind.UNKNOWN, "SMTPServerDisconnected at body"),
        (Rule(at="end", drop=True), "body", Kind.UNKNOWN, "SMTPServerDisconnected at body"),
        (Rule(at="end", accept=True, drop=True), "body", Kind.UNKNOWN, "SMTPServerDisconnected at body"),
        (Rule(at="end", hang_s=60), "body", Kind.UNKNOWN, "SMTPServerDisconnected at body"),
        (Rule(at="end", reply="354 odd"), "body", Kind.UNKNOWN, "smtp 354"),
        (Rule(at="end", reply="banana"), "body", Kind.UNKNOWN, "smtp -1"),
        (Rule(at="end", reply="421 4.3.2 closing"), "body", Kind.TRANSIENT, "smtp 421 4.3.2"),
        (Rule(at="end", reply="451 4.7.1 later"), "body", Kind.TRANSIENT, "smtp 451 4.7.1"),
        (Rule(at="end", reply="454 Throttling failure"), "body", Kind.THROTTLED, "smtp 454"),
        (Rule(at="end", reply="554 5.7.1 spam"), "body", Kind.PERMANENT, "smtp 554 5.7.1"),
    ],
    ids=lambda value: (
        f"{value.at} {value.reply or ('hang' if value.hang_s else 'drop')}" if isinstance(value, Rule) else ""
    ),
)
def test_an_attempt_that_fails_says_where(
    smtp_server: SmtpServer, rule: Rule, stage: Stage, kind: Kind, code: str
) -> None:
    mailer = SmtpMailer(smtp_settings(smtp_server.port, timeout=0.3 if rule.hang_s else 5))
    smtp_server.script(rule)

    error, at, diagnosis = failure(mailer)

    assert isinstance(error, smtplib.SMTPException)
    assert (at, diagnosis.kind, diagnosis.code) == (stage, kind, code)
    assert diagnosis.certainly_not_sent is (kind != Kind.UNKNOWN)
    smtp_server.script()
    assert kinds(mailer.send(an_email(A), [A])) == {A: Kind.ACCEPTED}
    mailer.close()


def test_a_recipient_refused_before_the_connection_broke_keeps_the_servers_word(
    mailer: SmtpMailer, smtp_server: SmtpServer
) -> None:
    smtp_server.script(Rule(at="rcpt", to=B, reply="550 5.1.1 no"), Rule(at="end", drop=True))

    receipts = mailer.send(an_email(A, B), [A, B])

    assert kinds(receipts) == {A: Kind.UNKNOWN, B: Kind.PERMANENT}


def test_a_421_to_a_recipient_ends_it_for_all_but_those_refused_before(
    mailer: SmtpMailer, smtp_server: SmtpServer
) -> None:
    smtp_server.script(Rule(at="rcpt", to=A, reply="550 5.1.1 no"), Rule(at="rcpt", to=B, reply="421 4.3.2 closing"))

    receipts = mailer.send(an_email(A, B, C), [A, B, C])

    assert kinds(receipts) == {A: Kind.PERMANENT, B: Kind.TRANSIENT, C: Kind.TRANSIENT}


def test_a_server_that_is_not_there_is_transient_and_certainly_got_nothing() -> None:
    with SmtpServer() as server:
        mailer = SmtpMailer(smtp_settings(server.port))
        server.stop()

        error, stage, diagnosis = failure(mailer)

    assert isinstance(error, ConnectionRefusedError)
    assert (stage, diagnosis.kind, diagnosis.certainly_not_sent) == ("connect", Kind.TRANSIENT, True)


def test_a_connection_is_kept_for_the_next_mail(mailer: SmtpMailer, smtp_server: SmtpServer) -> None:
    for _ in range(3):
        mailer.send(an_email(A), [A])

    assert len({mail.connection for mail in smtp_server.accepted()}) == 1


@pytest.mark.parametrize(
    "rule",
    [
        Rule(at="end", reply="421 closing", times=1),
        Rule(at="end", drop=True, times=1),
        Rule(at="end", reply="354 odd", times=1),
    ],
    ids=["421", "drop", "odd"],
)
def test_a_connection_in_doubt_is_not_used_again(mailer: SmtpMailer, smtp_server: SmtpServer, rule: Rule) -> None:
    mailer.send(an_email(A), [A])
    smtp_server.script(rule)
    failure(mailer)
    mailer.send(an_email(A), [A])

    first, second = (mail.connection for mail in smtp_server.accepted())
    assert first != second


def test_a_connection_that_heard_a_clear_no_is_used_again(mailer: SmtpMailer, smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at="end", reply="554 5.7.1 spam", times=1))
    failure(mailer)
    mailer.send(an_email(A), [A])

    assert smtp_server.accepted()[0].connection == smtp_server.fired()[0].connection


def test_a_connection_that_the_server_closed_meanwhile_costs_no_attempt(
    mailer: SmtpMailer, smtp_server: SmtpServer
) -> None:
    mailer.send(an_email(A), [A])
    smtp_server.kill9()
    smtp_server.start()

    assert kinds(mailer.send(an_email(A), [A])) == {A: Kind.ACCEPTED}


def test_a_421_to_the_first_command_on_a_kept_connection_is_answered_with_a_new_one(
    mailer: SmtpMailer, smtp_server: SmtpServer
) -> None:
    """Servers end a session like this after their own number of mails."""
    mailer.send(an_email(A), [A])
    smtp_server.script(Rule(at="mail", reply="421 4.7.0 enough for one session", times=1))

    assert kinds(mailer.send(an_email(A), [A])) == {A: Kind.ACCEPTED}


def test_a_421_on_a_new_connection_is_believed(mailer: SmtpMailer, smtp_server: SmtpServer) -> None:
    mailer.send(an_email(A), [A])
    smtp_server.script(Rule(at="mail", reply="421 4.7.0 go away"))

    _, stage, diagnosis = failure(mailer)

    assert (stage, diagnosis.kind) == ("mail", Kind.TRANSIENT)
    assert len({fired.connection for fired in smtp_server.fired()}) == 2


def test_a_connection_idle_for_long_is_asked_before_use(
    mailer: SmtpMailer, smtp_server: SmtpServer, clock: Clock
) -> None:
    mailer.send(an_email(A), [A])
    clock.now += ASK_AFTER_S + 1
    mailer.send(an_email(A), [A])
    clock.now += KEEP_S + 1
    mailer.send(an_email(A), [A])

    first, second, third = (mail.connection for mail in smtp_server.accepted())
    assert first == second
    assert second != third


def test_no_more_connections_are_kept_than_may_be_used(smtp_server: SmtpServer) -> None:
    """Three at a time, of which the pool keeps one."""
    mailer = SmtpMailer(replace(smtp_settings(smtp_server.port), limit=Limit(concurrency=1)))
    smtp_server.script(Rule(at="end", hang_s=0.3))
    at_a_time(mailer, 3)

    assert len({mail.connection for mail in smtp_server.accepted()}) == 3
    assert len(mailer._pool._idle) == 1
    mailer.close()


def at_a_time(mailer: SmtpMailer, count: int) -> None:
    """So many mails, each in a thread of its own."""
    threads = [threading.Thread(target=mailer.send, args=(an_email(A), [A])) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)


def test_as_many_connections_are_kept_as_were_in_use(mailer: SmtpMailer, smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at="end", hang_s=0.5))
    at_a_time(mailer, 25)
    at_a_time(mailer, 25)

    assert len(smtp_server.accepted()) == 50
    assert len({mail.connection for mail in smtp_server.accepted()}) == 25


def test_connections_too_many_are_closed_when_they_have_grown_old(
    mailer: SmtpMailer, smtp_server: SmtpServer, clock: Clock
) -> None:
    smtp_server.script(Rule(at="end", hang_s=0.3))
    at_a_time(mailer, 3)
    smtp_server.script()

    clock.now += KEEP_S / 2
    mailer.send(an_email(A), [A])
    clock.now += KEEP_S / 2
    mailer.send(an_email(A), [A])

    assert len(mailer._pool._idle) == 1
    assert len({mail.connection for mail in smtp_server.accepted()}) == 3


def test_a_closed_mailer_can_be_used_again(mailer: SmtpMailer) -> None:
    mailer.send(an_email(A), [A])
    mailer.close()

    assert kinds(mailer.send(an_email(A), [A])) == {A: Kind.ACCEPTED}


def test_the_envelope_sender_is_anymails_if_given(mailer: SmtpMailer, smtp_server: SmtpServer) -> None:
    mailer.send(an_email(A, envelope_sender="Bounces <bounce@example.org>"), [A])
    mailer.send(an_email(A, envelope_sender="<>"), [A])

    assert [mail.mail_from for mail in smtp_server.accepted()] == ["bounce@example.org", ""]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("template_id", "welcome"),
        ("merge_data", {A: {"name": "A"}}),
        ("merge_global_data", {"x": "y"}),
        ("merge_headers", {A: {"X": "y"}}),
        ("merge_metadata", {A: {"x": "y"}}),
        ("metadata", {"x": "y"}),
        ("tags", ["x"]),
        ("track_opens", True),
        ("track_clicks", True),
        ("esp_extra", {"x": "y"}),
    ],
)
def test_what_smtp_cannot_express_is_a_permanent_failure(
    mailer: SmtpMailer, smtp_server: SmtpServer, field: str, value: object
) -> None:
    error, _, diagnosis = failure(mailer, A, **{field: value})

    assert isinstance(error, CannotExpress)
    assert field in str(error)
    assert (diagnosis.kind, diagnosis.certainly_not_sent) == (Kind.PERMANENT, True)
    assert smtp_server.accepted() == []


def test_empty_additions_of_anymail_are_no_obstacle(mailer: SmtpMailer) -> None:
    from anymail.message import AnymailMessage

    email = AnymailMessage("Hello", "Body", "from@example.org", [A], track_opens=False, tags=[])

    assert kinds(mailer.send(email, [A])) == {A: Kind.ACCEPTED}


def test_an_international_domain_is_encoded_in_the_envelope(mailer: SmtpMailer, smtp_server: SmtpServer) -> None:
    mailer.send(an_email("a@bücher.example"), ["a@bücher.example"])

    assert smtp_server.accepted()[0].rcpt_tos == ("a@xn--bcher-kva.example",)


def test_a_recipient_that_fits_into_no_envelope_fails_alone(mailer: SmtpMailer, smtp_server: SmtpServer) -> None:
    receipts = mailer.send(an_email(A, "a@@example.org"), [A, "a@@example.org"])

    assert kinds(receipts) == {A: Kind.ACCEPTED, "a@@example.org": Kind.PERMANENT}
    assert smtp_server.accepted()[0].rcpt_tos == (A,)


def test_a_mail_that_cannot_be_built_fails_for_good_and_opens_no_connection(smtp_server: SmtpServer) -> None:
    smtp_server.stop()
    mailer = SmtpMailer(smtp_settings(smtp_server.port))

    error, stage, diagnosis = failure(mailer, A, headers={"X-Bad": "one\r\nBcc: victim@example.org"})

    assert isinstance(error, ValueError)
    assert (stage, diagnosis.kind) == (None, Kind.PERMANENT)


def test_lines_that_begin_with_a_dot_and_large_messages_arrive_unchanged(
    mailer: SmtpMailer, smtp_server: SmtpServer
) -> None:
    body = ".\n..\nx\n.y\n" + "0123456789\n" * 100_000

    mailer.send(an_email(A, body=body), [A])

    assert smtp_server.accepted()[0].email.get_content().replace("\r\n", "\n") == body


def test_a_lone_line_end_cannot_end_the_mail_early(mailer: SmtpMailer, smtp_server: SmtpServer) -> None:
    """SMTP smuggling: some servers take LF . CR LF for the end, and what follows for the next mail."""
    part = MIMEBase("text", "plain")
    part.set_payload("one\n.\r\nMAIL FROM:<x@example.org>\rtwo")

    mailer.send(an_email(A, attachments=[part]), [A])

    data = smtp_server.accepted()[0].data
    assert data.count(b"\n") == data.count(b"\r") == data.count(b"\r\n")
    assert b"one\r\n.\r\nMAIL" in data


@pytest.mark.parametrize("size", [0, 10_000_000])
def test_size_and_body_are_declared_where_the_server_knows_them(size: int) -> None:
    with SmtpServer(settings=Settings(size=size)) as server:
        mailer = SmtpMailer(smtp_settings(server.port))
        mailer.send(an_email(A, body="Grüße"), [A])
        mailer.close()
        (mail,) = server.accepted()

    assert ("BODY=8BITMIME" in mail.options) is (not mail.data.isascii())
    assert any(option.startswith("SIZE=") for option in mail.options) is bool(size)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "server.pem"
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def _trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


@pytest.mark.usefixtures("_trusted")
@pytest.mark.parametrize(("tls", "option"), [("starttls", "use_tls"), ("implicit", "use_ssl")])
def test_tls_and_login(certificate: str, tls: Any, option: str) -> None:
    given = Settings(tls=tls, certificate=certificate, username="me", password="secret", auth_required=True)
    with SmtpServer(settings=given) as server:
        mailer = SmtpMailer(smtp_settings(server.port, username="me", password="secret", **{option: True}))
        receipts = [mailer.send(an_email(A), [A]) for _ in range(2)]
        mailer.close()
        mails = server.accepted()

    assert [kinds(each) for each in receipts] == [{A: Kind.ACCEPTED}] * 2
    assert all(mail.tls and mail.user == "me" for mail in mails)
    assert len({mail.connection for mail in mails}) == 1


@pytest.mark.parametrize(
    ("settings", "options", "stage", "error_class"),
    [
        ({}, {"use_tls": True}, "starttls", smtplib.SMTPNotSupportedError),
        ({}, {"use_ssl": True}, "connect", ssl.SSLError),
        ({}, {"username": "me", "password": "x"}, "auth", smtplib.SMTPNotSupportedError),
        ({"tls": "starttls"}, {"use_tls": True}, "starttls", ssl.SSLCertVerificationError),
        ({"tls": "implicit"}, {"use_ssl": True}, "connect", ssl.SSLCertVerificationError),
        (LOGIN, {"username": "me", "password": "x"}, "auth", smtplib.SMTPAuthenticationError),
        (LOGIN | {"auth_required": True}, {}, "mail", smtplib.SMTPSenderRefused),
        (LOGIN, {"username": "me", "password": "pässwort"}, "auth", ImproperlyConfigured),
        ({}, {"ssl_certfile": "/nowhere.pem", "use_ssl": True}, "connect", FileNotFoundError),
        ({}, {"timeout": 0}, "connect", ImproperlyConfigured),
        ({}, {"timeout": "soon"}, None, ImproperlyConfigured),
        ({}, {"use_tls": True, "use_ssl": True}, None, ImproperlyConfigured),
        ({}, {"usr_tls": True}, None, ImproperlyConfigured),
    ],
    ids=[
        "no STARTTLS", "no TLS", "no AUTH", "certificate", "certificate at once", "password", "no login",
        "password not ASCII", "no file", "timeout 0", "timeout text", "both TLS", "unknown option",
    ],
)  # fmt: skip
def test_a_fault_of_the_configuration_is_told_from_one_of_the_mail(
    certificate: str,
    settings: dict[str, Any],
    options: dict[str, Any],
    stage: Stage | None,
    error_class: type[Exception],
) -> None:
    if "tls" in settings:
        settings = settings | {"certificate": certificate}
    with SmtpServer(settings=Settings(**settings)) as server:
        mailer = SmtpMailer(smtp_settings(server.port, **options))
        error, at, diagnosis = failure(mailer)
        mailer.close()

    assert isinstance(error, error_class)
    assert (at, diagnosis.kind, diagnosis.certainly_not_sent) == (stage, Kind.CONFIGURATION, True)


def test_a_timeout_is_set_when_nobody_set_one(smtp_server: SmtpServer) -> None:
    assert SmtpMailer(smtp_settings(smtp_server.port))._access().timeout == 30


def test_the_users_classifier_sees_the_original_error_and_its_context(smtp_server: SmtpServer) -> None:
    seen: list[tuple[BaseException, Context]] = []

    def classify(error: BaseException, context: Context) -> Diagnosis:
        seen.append((error, context))
        return Diagnosis(kind=Kind.TRANSIENT, text="mine")

    smtp_server.script(Rule(at="rcpt", to=B, reply="550 5.1.1 no"))
    mailer = open_mailer(smtp_settings(smtp_server.port), classify=classify)
    receipts = mailer.send(an_email(A, B), [A, B], attempt=3)
    mailer.close()

    assert kinds(receipts) == {A: Kind.ACCEPTED, B: Kind.TRANSIENT}
    ((error, context),) = seen
    assert isinstance(error, smtplib.SMTPRecipientsRefused)
    assert error.recipients == {B: (550, b"5.1.1 no")}
    assert context == Context(mailer="default", backend=mailer.backend, stage="rcpt", attempt=3)


def test_an_error_from_outside_closes_the_connection_and_passes(
    mailer: SmtpMailer, smtp_server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """eventlet.Timeout is no Exception; the server must not be left in the middle of a mail."""

    class GivenUp(BaseException):
        pass

    mailer.send(an_email(A), [A])
    with monkeypatch.context() as patched:
        patched.setattr(ReplyReader, "reply", _raising(GivenUp))
        with pytest.raises(GivenUp):
            mailer.send(an_email(A), [A])
    mailer.send(an_email(A), [A])

    first, second = (mail.connection for mail in smtp_server.accepted())
    assert first != second


def _raising(error: type[BaseException]) -> Any:
    def raising(*args: object) -> None:
        raise error

    return raising


def test_check_says_who_answers(mailer: SmtpMailer, smtp_server: SmtpServer) -> None:
    assert mailer.check() == f"127.0.0.1:{smtp_server.port} answers (250)"


def test_check_raises_as_sending_would(smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at="connect", reply="554 5.3.2 no"))

    with pytest.raises(AttemptFailed) as caught:
        SmtpMailer(smtp_settings(smtp_server.port)).check()

    assert caught.value.stage == "connect"


@pytest.mark.usefixtures("_trusted")
@pytest.mark.parametrize("tls", [None, "starttls", "implicit"])
def test_green_threads_send_at_the_same_time(certificate: str, tls: Any) -> None:
    """Every mail waits at the server until all have come: a send that blocks the others would never see it answered."""
    option = {None: {}, "starttls": {"use_tls": True}, "implicit": {"use_ssl": True}}[tls]
    given = Settings(tls=tls, certificate=certificate, chunking=True)
    with SmtpServer(Rule(at="end", hang_s=1), settings=given) as server:
        said = _green_threads(server.port, option)
        mails = server.accepted()

    assert said == ["accepted"] * 40
    assert len({mail.connection for mail in mails}) == 20
    arrivals = [sorted(mail.time for mail in mails[start : start + 20]) for start in (0, 20)]
    assert all(times[-1] - times[0] < 1 for times in arrivals), "one after the other they would take 20 s"


def _green_threads(port: int, option: dict[str, bool]) -> list[str]:
    """Send two mails in each of twenty."""
    program = f"""
import eventlet; eventlet.monkey_patch()
import time
from mail_service.mailers import open_mailer
from mail_service.mailers.django_backend import configure_django
from mail_service.settings import Limit, MailerSettings
configure_django()
from django.core.mail import EmailMessage
mailer = open_mailer(MailerSettings(
    name="default", backend="django.core.mail.backends.smtp.EmailBackend",
    options={{"host": "127.0.0.1", "port": {port}}} | {option}, limit=Limit(concurrency=20),
))
def send(n):
    return mailer.send(EmailMessage("s", "b", "from@example.org", [f"to-{{n}}@example.org"]), [f"to-{{n}}@example.org"])
pool = eventlet.GreenPool(20)
for _ in range(2):
    print(*[receipt.diagnosis.kind for receipts in pool.imap(send, range(20)) for receipt in receipts])
mailer.close()
"""
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return answer.stdout.split()
