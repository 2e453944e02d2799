"""Commands that go together (PIPELINING, RFC 2920), and with them the content (CHUNKING, RFC 3030)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal, Protocol

import pytest

from mail_service import message
from mail_service.diagnosis import Context, Stage, diagnose
from mail_service.local.smtp_server import Rule, Settings, SmtpServer
from mail_service.mailers import AttemptFailed, unwrap
from mail_service.mailers.smtp import LIVELY_S, SmtpMailer
from mail_service.outcome import Kind

from .building import an_email, kinds, smtp_settings
from .by_hand import Line, by_hand

A, B, C = "a@example.org", "b@example.org", "c@example.org"
OFFERS = ("PIPELINING", "CHUNKING", "8BITMIME")
Clock = Callable[[], float]
OnUnknown = Literal["retry", "give_up"]


class MakeMailer(Protocol):
    def __call__(self, port: int, *, on_unknown: OnUnknown = ..., clock: Clock = ..., **options: Any) -> SmtpMailer: ...


@pytest.fixture
def a_mailer() -> Iterator[MakeMailer]:
    with ExitStack() as stack:

        def make(
            port: int, *, on_unknown: OnUnknown = "retry", clock: Clock = time.monotonic, **options: Any
        ) -> SmtpMailer:
            given = replace(smtp_settings(port, **{"timeout": 5} | options), on_unknown=on_unknown)
            mailer = SmtpMailer(given, clock=clock, attempt_timeout_s=86_400)
            stack.callback(mailer.close)
            return mailer

        yield make


def outcome(mailer: SmtpMailer, *to: str, **attributes: Any) -> tuple[Stage | None, Kind, str]:
    """Send, expect the attempt to fail as a whole, and say where, with what, and what that means."""
    with pytest.raises(AttemptFailed) as caught:
        mailer.send(an_email(*(to or (A,)), **attributes), list(to or (A,)))
    error, stage = unwrap(caught.value)
    diagnosis = diagnose(error, Context(mailer="default", stage=stage))
    assert diagnosis.certainly_not_sent is (diagnosis.kind != Kind.UNKNOWN)
    return stage, diagnosis.kind, diagnosis.code


def test_all_commands_are_sent_before_the_first_reply_is_waited_for(a_mailer: MakeMailer) -> None:
    def converse(line: Line) -> None:
        line.greet("PIPELINING")
        assert line.hear(b"DATA\r\n").split(b"\r\n") == [
            b"MAIL FROM:<from@example.org>", b"RCPT TO:<a@example.org>", b"RCPT TO:<b@example.org>", b"DATA", b"",
        ]  # fmt: skip
        line.say("250 ok", "250 ok", "550 5.1.1 no", "354 go on")
        assert b"How are you?" in line.hear(b"\r\n.\r\n")
        line.say("250 taken")

    with by_hand(converse) as server:
        receipts = a_mailer(server.port).send(an_email(A, B), [A, B])

    assert kinds(receipts) == {A: Kind.ACCEPTED, B: Kind.PERMANENT}


def test_a_server_that_does_not_offer_it_gets_one_command_at_a_time(a_mailer: MakeMailer) -> None:
    def converse(line: Line) -> None:
        line.greet("8BITMIME")
        for command in (b"MAIL FROM:<from@example.org>\r\n", b"RCPT TO:<a@example.org>\r\n"):
            assert line.hear(b"\r\n") == command
            line.say("250 ok")
        assert line.hear(b"\r\n") == b"DATA\r\n"
        line.say("354 go on")
        line.hear(b"\r\n.\r\n")
        line.say("250 taken")

    with by_hand(converse) as server:
        receipts = a_mailer(server.port).send(an_email(A), [A])

    assert kinds(receipts) == {A: Kind.ACCEPTED}


def test_very_many_recipients_go_in_several_groups(a_mailer: MakeMailer) -> None:
    """Replies to all of them at once would fill the buffers on the way while nobody reads."""
    to = [f"r{number}@example.org" for number in range(250)]
    sizes = []

    def converse(line: Line) -> None:
        line.greet("PIPELINING")
        left = 252
        while left:
            heard = b""
            while heard.count(b"\r\n") < min(left, 100):
                heard += line.hear(b"\r\n")
            commands = heard.splitlines()
            sizes.append(len(commands))
            left -= len(commands)
            line.say(*["354 go on" if command == b"DATA" else "250 ok" for command in commands])
        line.hear(b"\r\n.\r\n")
        line.say("250 taken")

    with by_hand(converse) as server:
        receipts = a_mailer(server.port).send(an_email(*to), to)

    assert sizes == [100, 100, 52]
    assert set(kinds(receipts).values()) == {Kind.ACCEPTED}


def test_a_data_let_pass_though_nobody_gets_the_mail_is_ended_by_a_lone_dot(a_mailer: MakeMailer) -> None:
    """RFC 2920, 3.1: the client cannot assume that DATA is refused because no recipient was accepted."""

    def converse(line: Line) -> None:
        line.greet("PIPELINING")
        line.hear(b"DATA\r\n")
        line.say("250 ok", "550 5.1.1 no", "450 later", "354 go on")
        assert line.hear(b"\r\n") == b".\r\n"
        line.say("554 no valid recipients")
        assert line.hear(b"DATA\r\n").startswith(b"RSET\r\nMAIL")
        line.say("250 ok", "250 ok", "250 ok", "354 go on")
        line.hear(b"\r\n.\r\n")
        line.say("250 taken")

    with by_hand(converse) as server:
        mailer = a_mailer(server.port)
        refused = mailer.send(an_email(A, B), [A, B])
        accepted = mailer.send(an_email(A), [A])

    assert kinds(refused) == {A: Kind.PERMANENT, B: Kind.TRANSIENT}
    assert kinds(accepted) == {A: Kind.ACCEPTED}


def test_nothing_is_said_to_a_server_that_waits_for_a_mail_whose_sender_it_has_refused(a_mailer: MakeMailer) -> None:
    """A lone dot might be a mail to it: an empty one, to a recipient that it has accepted."""

    def converse(line: Line) -> None:
        line.greet("PIPELINING")
        line.hear(b"DATA\r\n")
        line.say("550 5.7.1 not you", "250 ok", "354 go on")
        assert line.hear_nothing_more()

    with by_hand(converse) as server:
        assert outcome(a_mailer(server.port)) == ("mail", Kind.CONFIGURATION, "smtp 550 5.7.1")


@pytest.mark.parametrize(
    ("rule", "stage", "kind", "code"),
    [
        (Rule(at="mail", reply="421 4.3.2 closing"), "mail", Kind.TRANSIENT, "smtp 421 4.3.2"),
        (Rule(at="mail", reply="451 later"), "mail", Kind.TRANSIENT, "smtp 451"),
        (Rule(at="mail", reply="550 5.7.1 not you"), "mail", Kind.CONFIGURATION, "smtp 550 5.7.1"),
        (Rule(at="mail", drop=True), "mail", Kind.TRANSIENT, "SMTPServerDisconnected at mail"),
        (Rule(at="mail", hang_s=60), "mail", Kind.TRANSIENT, "SMTPServerDisconnected at mail"),
        (Rule(at="mail", reply="banana"), "mail", Kind.TRANSIENT, "smtp -1"),
        (Rule(at="rcpt", drop=True), "rcpt", Kind.TRANSIENT, "SMTPServerDisconnected at rcpt"),
        (Rule(at="rcpt", hang_s=60), "rcpt", Kind.TRANSIENT, "SMTPServerDisconnected at rcpt"),
        (Rule(at="data", reply="451 4.3.0 later"), "data", Kind.TRANSIENT, "smtp 451 4.3.0"),
        (Rule(at="data", reply="250 odd"), "data", Kind.TRANSIENT, "smtp 250"),
        (Rule(at="data", drop=True), "data", Kind.TRANSIENT, "SMTPServerDisconnected at data"),
        (Rule(at="body", after_bytes=100, drop=True), "body", Kind.UNKNOWN, "SMTPServerDisconnected at body"),
        (Rule(at="end", accept=True, drop=True), "body", Kind.UNKNOWN, "SMTPServerDisconnected at body"),
        (Rule(at="end", reply="354 odd"), "body", Kind.UNKNOWN, "smtp 354"),
        (Rule(at="end", reply="554 5.7.1 spam"), "body", Kind.PERMANENT, "smtp 554 5.7.1"),
    ],
    ids=lambda value: (
        f"{value.at} {value.reply or ('hang' if value.hang_s else 'drop')}" if isinstance(value, Rule) else ""
    ),
)
def test_stages_are_the_same_without_groups(
    a_mailer: MakeMailer, rule: Rule, stage: Stage, kind: Kind, code: str
) -> None:
    with SmtpServer(rule, settings=Settings(pipelining=False)) as server:
        mailer = a_mailer(server.port, timeout=0.3 if rule.hang_s else 5)

        assert outcome(mailer) == (stage, kind, code)


def test_a_small_mail_goes_with_its_commands_in_one_go(a_mailer: MakeMailer) -> None:
    def converse(line: Line) -> None:
        line.greet(*OFFERS)
        heard = line.hear(b"How are you?\n.dot\r\n".replace(b"\n.", b"\r\n."))
        commands, _, content = heard.partition(b" LAST\r\n")
        *before, bdat = commands.split(b"\r\n")
        assert before == [b"MAIL FROM:<from@example.org>", b"RCPT TO:<a@example.org>", b"RCPT TO:<b@example.org>"]
        assert bdat == b"BDAT %d" % len(content)
        line.say("250 ok", "250 ok", "550 5.1.1 no", "250 2.0.0 queued as 4F2C1")

    with by_hand(converse) as server:
        receipts = a_mailer(server.port).send(an_email(A, B, body="How are you?\n.dot\n"), [A, B])

    assert kinds(receipts) == {A: Kind.ACCEPTED, B: Kind.PERMANENT}
    assert receipts[0].message_id == "4F2C1"


@pytest.fixture
def chunking() -> Iterator[SmtpServer]:
    with SmtpServer(settings=Settings(chunking=True)) as server:
        yield server


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (Rule(at="mail", reply="421 4.3.2 closing"), ("mail", Kind.TRANSIENT, "smtp 421 4.3.2")),
        (Rule(at="mail", reply="451 later"), ("mail", Kind.TRANSIENT, "smtp 451")),
        (Rule(at="mail", reply="454 Throttling failure: too fast"), ("mail", Kind.THROTTLED, "smtp 454")),
        (Rule(at="mail", reply="550 5.7.1 not you"), ("mail", Kind.CONFIGURATION, "smtp 550 5.7.1")),
        (Rule(at="mail", reply="552 5.3.4 too big"), ("mail", Kind.PERMANENT, "smtp 552 5.3.4")),
        (Rule(at="mail", drop=True), ("body", Kind.UNKNOWN, "SMTPServerDisconnected at body")),
        (Rule(at="mail", hang_s=60), ("body", Kind.UNKNOWN, "SMTPServerDisconnected at body")),
        (Rule(at="mail", reply="banana"), ("body", Kind.UNKNOWN, "smtp -1")),
        (Rule(at="rcpt", drop=True), ("body", Kind.UNKNOWN, "SMTPServerDisconnected at body")),
        (Rule(at="rcpt", hang_s=60), ("body", Kind.UNKNOWN, "SMTPServerDisconnected at body")),
        (Rule(at="rcpt", reply="banana"), ("body", Kind.UNKNOWN, "smtp -1")),
        (Rule(at="body", after_bytes=100, drop=True), ("body", Kind.UNKNOWN, "SMTPServerDisconnected at body")),
        (Rule(at="end", drop=True), ("body", Kind.UNKNOWN, "SMTPServerDisconnected at body")),
        (Rule(at="end", accept=True, drop=True), ("body", Kind.UNKNOWN, "SMTPServerDisconnected at body")),
        (Rule(at="end", hang_s=60), ("body", Kind.UNKNOWN, "SMTPServerDisconnected at body")),
        (Rule(at="end", reply="354 odd"), ("body", Kind.UNKNOWN, "smtp 354")),
        (Rule(at="end", reply="421 4.3.2 closing"), ("body", Kind.TRANSIENT, "smtp 421 4.3.2")),
        (Rule(at="end", reply="451 4.7.1 later"), ("body", Kind.TRANSIENT, "smtp 451 4.7.1")),
        (Rule(at="end", reply="554 5.7.1 spam"), ("body", Kind.PERMANENT, "smtp 554 5.7.1")),
    ],
    ids=lambda value: (
        f"{value.at} {value.reply or ('hang' if value.hang_s else 'drop')}" if isinstance(value, Rule) else ""
    ),
)
def test_once_the_content_is_on_its_way_only_a_clear_no_is_certain(
    a_mailer: MakeMailer, chunking: SmtpServer, rule: Rule, found: tuple[Stage, Kind, str]
) -> None:
    mailer = a_mailer(chunking.port, timeout=0.3 if rule.hang_s else 5)
    chunking.script(rule)

    assert outcome(mailer) == found

    chunking.script()
    assert kinds(mailer.send(an_email(A), [A])) == {A: Kind.ACCEPTED}


def test_a_mail_that_was_refused_leaves_the_session_in_order(a_mailer: MakeMailer, chunking: SmtpServer) -> None:
    chunking.script(Rule(at="mail", reply="451 later", times=1), Rule(at="rcpt", to=B, reply="550 5.1.1 no", times=1))
    mailer = a_mailer(chunking.port)

    outcome(mailer)
    refused = mailer.send(an_email(B), [B])
    accepted = mailer.send(an_email(A, body="..\n.\nx\n"), [A])

    assert kinds(refused) == {B: Kind.PERMANENT}
    assert kinds(accepted) == {A: Kind.ACCEPTED}
    (mail,) = chunking.accepted()
    assert mail.email.get_content().splitlines() == ["..", ".", "x"]
    assert {fired.connection for fired in chunking.fired()} == {mail.connection}


@pytest.mark.parametrize("end", ["no", "closed"])
def test_a_session_that_cannot_be_reset_costs_the_next_mail_no_attempt(a_mailer: MakeMailer, end: str) -> None:
    def refuse(line: Line) -> None:
        line.greet(*OFFERS)
        line.hear(b"How are you?\r\n")
        line.say("250 ok", "550 5.1.1 no", "503 no recipients")
        assert line.hear(b"DATA\r\n").startswith(b"RSET\r\nMAIL")
        if end == "no":
            line.say("451 not now", "250 ok", "250 ok", "354 go on")
            assert line.hear_nothing_more()

    def take(line: Line) -> None:
        line.greet()
        for reply in ("250 ok", "250 ok", "354 go on"):
            line.hear(b"\r\n")
            line.say(reply)
        line.hear(b"\r\n.\r\n")
        line.say("250 taken")

    with by_hand(refuse, take) as server:
        mailer = a_mailer(server.port)
        refused = mailer.send(an_email(A), [A])
        accepted = mailer.send(an_email(A), [A])

    assert kinds(refused) == {A: Kind.PERMANENT}
    assert kinds(accepted) == {A: Kind.ACCEPTED}


def test_a_mail_refused_at_its_end_needs_no_reset(a_mailer: MakeMailer) -> None:
    """RFC 5321, 4.1.1.4: its end clears all buffers. A server that thinks otherwise gets a new connection."""

    def refuse(line: Line) -> None:
        line.greet("PIPELINING")
        line.hear(b"DATA\r\n")
        line.say("250 ok", "250 ok", "354 go on")
        line.hear(b"\r\n.\r\n")
        line.say("451 4.7.1 later")
        assert line.hear(b"DATA\r\n").startswith(b"MAIL")
        line.say("503 5.5.1 nested MAIL", "503 nested", "503 nested")
        assert line.hear_nothing_more()

    def take(line: Line) -> None:
        line.greet("PIPELINING")
        line.hear(b"DATA\r\n")
        line.say("250 ok", "250 ok", "354 go on")
        line.hear(b"\r\n.\r\n")
        line.say("250 taken")

    with by_hand(refuse, take) as server:
        mailer = a_mailer(server.port)
        found = outcome(mailer)
        accepted = mailer.send(an_email(A), [A])

    assert found == ("body", Kind.TRANSIENT, "smtp 451 4.7.1")
    assert kinds(accepted) == {A: Kind.ACCEPTED}


@pytest.mark.parametrize("refusal", ["500 5.5.1 what", "502 5.5.2 what", "503 5.5.1 out of order"])
def test_a_server_that_does_not_know_what_it_offers_gets_the_mail_by_data(a_mailer: MakeMailer, refusal: str) -> None:
    """Something in between may take BDAT away. The content was taken for commands: no more of that session."""

    def misunderstand(line: Line) -> None:
        line.greet(*OFFERS)
        line.hear(b"How are you?\r\n")
        line.say("250 ok", "250 ok", refusal, "500 what", "250 what")
        assert line.hear_nothing_more()

    def take_two(line: Line) -> None:
        line.greet(*OFFERS)
        for _ in range(2):
            line.hear(b"DATA\r\n")
            line.say("250 ok", "250 ok", "354 go on")
            line.hear(b"\r\n.\r\n")
            line.say("250 taken")

    with by_hand(misunderstand, take_two) as server:
        mailer = a_mailer(server.port)
        receipts = [mailer.send(an_email(A), [A]) for _ in range(2)]

    assert [kinds(each) for each in receipts] == [{A: Kind.ACCEPTED}] * 2


def test_a_no_to_the_sender_and_a_yes_to_the_content_is_unknown(a_mailer: MakeMailer) -> None:
    def converse(line: Line) -> None:
        line.greet(*OFFERS)
        line.hear(b"How are you?\r\n")
        line.say("451 later", "250 ok", "250 taken")
        assert line.hear_nothing_more()

    with by_hand(converse) as server:
        assert outcome(a_mailer(server.port))[:2] == ("body", Kind.UNKNOWN)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"on_unknown": "give_up"}, id="an unknown outcome would be final"),
        pytest.param({"body": "x\n" * 40_000}, id="a large mail"),
    ],
)
def test_the_content_waits_for_the_recipients_replies_where(
    a_mailer: MakeMailer, chunking: SmtpServer, how: dict[str, Any]
) -> None:
    chunking.script(Rule(at="rcpt", drop=True, times=1))
    mailer = a_mailer(chunking.port, on_unknown=how.pop("on_unknown", "retry"))

    assert outcome(mailer, A, **how) == ("rcpt", Kind.TRANSIENT, "SMTPServerDisconnected at rcpt")


def test_the_content_waits_on_a_connection_that_was_idle(a_mailer: MakeMailer, chunking: SmtpServer) -> None:
    """The server may be gone, and a mail sent to nobody would count as one that perhaps arrived."""
    now = 1000.0
    mailer = a_mailer(chunking.port, clock=lambda: now)
    mailer.send(an_email(A), [A])
    now += LIVELY_S + 1
    chunking.script(Rule(at="rcpt", drop=True, times=1))

    assert outcome(mailer)[:2] == ("rcpt", Kind.TRANSIENT)


def test_a_connection_that_the_server_has_closed_meanwhile_costs_no_attempt(
    a_mailer: MakeMailer, chunking: SmtpServer
) -> None:
    mailer = a_mailer(chunking.port)
    mailer.send(an_email(A), [A])
    chunking.kill9()
    chunking.start()

    assert kinds(mailer.send(an_email(A), [A])) == {A: Kind.ACCEPTED}


def test_a_word_that_nobody_asked_for_ends_a_kept_connection(a_mailer: MakeMailer) -> None:
    """A 421 that a server sends before it closes must not be taken for the reply to the next mail."""
    waiting = []

    def say_more(line: Line) -> None:
        line.greet("PIPELINING")
        line.hear(b"DATA\r\n")
        line.say("250 ok", "250 ok", "354 go on")
        line.hear(b"\r\n.\r\n")
        line.say("250 taken", "421 4.4.2 idle for too long")
        assert line.hear_nothing_more()

    def take(line: Line) -> None:
        waiting.append(line)
        line.greet("PIPELINING")
        line.hear(b"DATA\r\n")
        line.say("250 ok", "250 ok", "354 go on")
        line.hear(b"\r\n.\r\n")
        line.say("250 taken")

    with by_hand(say_more, take) as server:
        mailer = a_mailer(server.port)
        receipts = [mailer.send(an_email(A), [A]) for _ in range(2)]

    assert [kinds(each) for each in receipts] == [{A: Kind.ACCEPTED}] * 2


@pytest.mark.parametrize(
    ("before", "dripped", "stage"),
    [
        ((), b"220-", "connect"),
        (("220 ready", "250 PIPELINING"), b"250-", "mail"),
        (("220 ready", "250 PIPELINING", "250 ok\r\n250 ok\r\n354 go on"), b"250-", "body"),
    ],
    ids=["greeting", "commands", "content"],
)
def test_a_server_that_speaks_byte_by_byte_does_not_outlast_the_timeout(
    a_mailer: MakeMailer, before: tuple[str, ...], dripped: bytes, stage: Stage
) -> None:
    """Each byte comes in time, and the reply never ends: a socket's own timeout would begin anew with each of them."""

    def converse(line: Line) -> None:
        for index, reply in enumerate(before):
            if index:
                line.hear(b"\r\n")
            line.say(reply)
        try:
            line.send(dripped)
            while True:
                line.send(b"x")
                line._sock.settimeout(0.05)
                try:
                    if not line._sock.recv(65536):
                        return
                except TimeoutError:
                    continue
        except OSError:
            return

    with by_hand(converse) as server:
        found = outcome(a_mailer(server.port, timeout=0.5))

    assert found == (stage, Kind.UNKNOWN if stage == "body" else Kind.TRANSIENT, f"SMTPServerDisconnected at {stage}")


@pytest.mark.parametrize("endless", ["250-" + "x" * 20_000, *["250-more\r\n" * 20_000]], ids=["a line", "lines"])
def test_a_reply_without_an_end_is_no_reply(a_mailer: MakeMailer, endless: str) -> None:
    def converse(line: Line) -> None:
        line.greet("PIPELINING")
        line.hear(b"DATA\r\n")
        line.say("250 ok", "250 ok", "354 go on")
        line.hear(b"\r\n.\r\n")
        line.send(endless.encode())
        assert line.hear_nothing_more()

    with by_hand(converse) as server:
        assert outcome(a_mailer(server.port)) == ("body", Kind.UNKNOWN, "smtp -1")


def test_a_good_bye_that_nobody_answers_does_not_keep_anybody(a_mailer: MakeMailer, chunking: SmtpServer) -> None:
    """A day of patience is configured, and the test ends by its own timeout if it is used."""
    mailer = a_mailer(chunking.port, timeout=86_400)
    mailer.send(an_email(A), [A])
    chunking.pause()

    mailer.close()

    chunking.resume()


def test_the_canonical_form_is_sent_as_its_django_message_would_be(a_mailer: MakeMailer, chunking: SmtpServer) -> None:
    mailer = a_mailer(chunking.port)
    canonical = message.validate({
        "subject": "Grüße", "body": ".\nHi", "html": "<p>Hi</p>", "from_email": "Ann <from@example.org>", "to": [A, B],
        "bcc": [C], "envelope_sender": "bounce@example.org",
    })  # fmt: skip
    stamps = {"message_id": "<1@example.org>", "date": "Sun, 22 Nov 2026 04:11:59 +0000"}

    receipts = mailer.send_canonical(canonical, [B, C], **stamps, attempt=1)
    email = message.load(canonical)
    message.stamp(email, **stamps)
    mailer.send(email, [B, C], attempt=1)

    assert kinds(receipts) == {B: Kind.ACCEPTED, C: Kind.ACCEPTED}
    ours, djangos = chunking.accepted()
    assert (ours.mail_from, ours.rcpt_tos) == (djangos.mail_from, djangos.rcpt_tos) == ("bounce@example.org", (B, C))
    ours_in_words, djangos_in_words = (re.sub(rb"={15}\d{19}==", b"boundary", mail.data) for mail in (ours, djangos))
    assert ours_in_words == djangos_in_words


def test_what_the_canonical_form_asks_for_and_smtp_cannot_express_is_not_sent(
    a_mailer: MakeMailer, chunking: SmtpServer
) -> None:
    canonical = message.validate({"to": A, "from_email": B, "template_id": "welcome"})

    with pytest.raises(ValueError, match="template_id"):
        a_mailer(chunking.port).send_canonical(canonical, [A], message_id="<1@example.org>", date="", attempt=1)

    assert chunking.accepted() == []


def test_unusual_mails_in_canonical_form_are_sent_too(a_mailer: MakeMailer, chunking: SmtpServer) -> None:
    canonical = message.validate({"to": A, "from_email": B, "body": "Grüße", "encoding": "iso-8859-1"})
    mailer = a_mailer(chunking.port)

    receipts = mailer.send_canonical(
        canonical, [A], message_id="<1@example.org>", date="Sun, 22 Nov 2026 04:11:59 +0000"
    )

    assert kinds(receipts) == {A: Kind.ACCEPTED}
    assert chunking.accepted()[0].email.get_content_charset() == "iso-8859-1"
