from __future__ import annotations

import smtplib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from mail_service.local.smtp_server import Accepted, Rule, Settings, SmtpServer

MESSAGE = b"Subject: greetings\r\n\r\nHello\r\n"
LONG = MESSAGE + b"x" * 70 + b"\r\n" * 3000


@pytest.fixture
def client(smtp_server: SmtpServer) -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP(smtp_server.host, smtp_server.port, timeout=5) as connection:
        yield connection


def send(server: SmtpServer, *to: str, message: bytes = MESSAGE, timeout_s: float = 5) -> dict[str, tuple[int, bytes]]:
    """Send one mail on a connection of its own and give the refused recipients, as smtplib does."""
    with smtplib.SMTP(server.host, server.port, local_hostname="client", timeout=timeout_s) as connection:
        return connection.sendmail("from@example.org", to or ("to@example.org",), message)


def only(entries: list[Accepted]) -> Accepted:
    assert len(entries) == 1
    return entries[0]


def test_a_mail_is_noted_down_with_its_envelope(smtp_server: SmtpServer) -> None:
    before = time.time()
    send(smtp_server, "a@example.org", "b@example.org")

    mail = only(smtp_server.accepted())
    assert (mail.mail_from, mail.rcpt_tos, mail.data) == (
        "from@example.org",
        ("a@example.org", "b@example.org"),
        MESSAGE,
    )
    assert (mail.user, mail.tls, mail.email["Subject"]) == (None, False, "greetings")
    assert before <= mail.time <= time.time()


def test_the_null_sender_is_noted_down_as_empty(smtp_server: SmtpServer, client: smtplib.SMTP) -> None:
    client.sendmail("", "to@example.org", MESSAGE)

    assert only(smtp_server.accepted()).mail_from == ""


def test_connections_have_numbers(smtp_server: SmtpServer, client: smtplib.SMTP) -> None:
    for _ in range(2):
        client.sendmail("from@example.org", "to@example.org", MESSAGE)
    send(smtp_server)

    first, second, third = (mail.connection for mail in smtp_server.accepted())
    assert first == second < third


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b".leading\r\n..two\r\n.\r\nend.\r\n",
        b"dots.\r\n" * 100,
        b"x" * 3_000_000,
        b"\xff\xfe\x00\r\n",
        b"\r\n\r\n",
    ],
    ids=["empty", "dot", "dots at the start", "dots at the end", "a line of 3 MB", "8 bit", "empty lines"],
)
def test_the_bytes_arrive_as_they_were_sent(data: bytes, smtp_server: SmtpServer) -> None:
    send(smtp_server, message=data)

    # smtplib ends the last line
    assert only(smtp_server.accepted()).data in {data, data + b"\r\n"}


@pytest.mark.parametrize(
    "address",
    ["a@example.org", '"quoted >.<"@example.org', "dörte@example.org", f"{'l' * 600}@example.org", "UP@Example.ORG"],
    ids=["plain", "quoted", "SMTPUTF8", "600 letters", "upper case"],
)
def test_addresses_are_kept_as_typed(address: str, smtp_server: SmtpServer, client: smtplib.SMTP) -> None:
    client.sendmail("from@example.org", address, MESSAGE, mail_options=["SMTPUTF8", "BODY=8BITMIME"])

    mail = only(smtp_server.accepted())
    assert (mail.rcpt_tos, mail.options) == ((address,), ("SMTPUTF8", "BODY=8BITMIME"))


def test_each_recipient_is_refused_its_own_number_of_times(smtp_server: SmtpServer) -> None:
    smtp_server.script(
        Rule(at="rcpt", to="late*", reply="450 4.2.0 later", times=2), Rule(at="rcpt", to="never*", reply="550 no")
    )
    recipients = ("late1@x.org", "late2@x.org", "never@x.org", "fine@x.org")

    refused = [set(send(smtp_server, *recipients)) for _ in range(3)]

    late = {"late1@x.org", "late2@x.org"}
    assert refused == [late | {"never@x.org"}, late | {"never@x.org"}, {"never@x.org"}]
    assert [set(mail.rcpt_tos) & late for mail in smtp_server.accepted()] == [set(), set(), late]
    assert len(smtp_server.fired()) == 2 * 2 + 3


REPLIES = [
    (Rule(at="connect", reply="554 5.3.2 no"), smtplib.SMTPConnectError, 554),
    (Rule(at="connect", reply="421 4.3.2 busy"), smtplib.SMTPConnectError, 421),
    (Rule(at="mail", reply="421 4.3.2 going down"), smtplib.SMTPSenderRefused, 421),
    (Rule(at="mail", reply="451 4.3.0 later"), smtplib.SMTPSenderRefused, 451),
    (Rule(at="mail", sender="from@*", reply="550 5.7.1 not you"), smtplib.SMTPSenderRefused, 550),
    (Rule(at="data", reply="451 4.3.0 later"), smtplib.SMTPDataError, 451),
    (Rule(at="end", reply="554 5.6.0 spam"), smtplib.SMTPDataError, 554),
    (Rule(at="end", to="to@*", reply="452 4.3.1 full"), smtplib.SMTPDataError, 452),
]


@pytest.mark.parametrize(("rule", "error", "code"), REPLIES, ids=[f"{rule.at} {rule.reply}" for rule, *_ in REPLIES])
def test_a_scripted_reply_is_given_once(
    rule: Rule, error: type[smtplib.SMTPResponseException], code: int, smtp_server: SmtpServer
) -> None:
    smtp_server.script(Rule(**{slot: getattr(rule, slot) for slot in rule.__slots__} | {"times": 1}))

    with pytest.raises(error) as raised:
        send(smtp_server)
    assert raised.value.smtp_code == code
    assert not smtp_server.accepted()
    assert [fired.at for fired in smtp_server.fired()] == [rule.at]

    assert send(smtp_server) == {}
    assert len(smtp_server.accepted()) == 1


@pytest.mark.parametrize("stage", ["connect", "helo", "mail", "rcpt", "data", "body", "end"])
def test_a_connection_drops_where_told(stage: str, smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at=stage, drop=True, after_bytes=1000 if stage == "body" else 0))  # type: ignore[arg-type]

    with pytest.raises(smtplib.SMTPServerDisconnected):
        send(smtp_server, message=LONG)
    assert not smtp_server.accepted()


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        (Rule(at="end", accept=True, drop=True), smtplib.SMTPServerDisconnected),
        (Rule(at="end", accept=True, reply="451 4.0.0 lost"), smtplib.SMTPDataError),
        (Rule(at="end", accept=True, hang_s=30, drop=True), smtplib.SMTPServerDisconnected),
    ],
    ids=["drops", "says no", "hangs"],
)
def test_a_mail_is_accepted_although_the_client_is_not_told(
    rule: Rule, error: type[Exception], smtp_server: SmtpServer
) -> None:
    smtp_server.script(rule)

    with pytest.raises(error):
        send(smtp_server, timeout_s=0.5)
    assert only(smtp_server.accepted()).rcpt_tos == ("to@example.org",)


def test_a_rule_that_only_hangs_leaves_the_answer_to_the_next(smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at="mail", hang_s=0.2), Rule(at="mail", reply="550 5.0.0 no"))
    before = time.monotonic()

    with pytest.raises(smtplib.SMTPSenderRefused):
        send(smtp_server)
    assert time.monotonic() - before >= 0.2


def test_a_new_script_counts_for_the_next_command(smtp_server: SmtpServer, client: smtplib.SMTP) -> None:
    client.ehlo()
    smtp_server.script(Rule(at="mail", reply="450 4.0.0 no"))
    assert client.mail("from@example.org")[0] == 450

    smtp_server.script()
    assert client.mail("from@example.org")[0] == 250


def test_a_crashed_server_comes_back_with_its_port_rules_and_log(smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at="rcpt", to="never@*", reply="550 no"))
    send(smtp_server)
    port = smtp_server.port

    smtp_server.kill9()
    with pytest.raises(ConnectionRefusedError):
        send(smtp_server)
    smtp_server.start()

    assert list(send(smtp_server, "never@x.org", "b@x.org")) == ["never@x.org"]
    assert (smtp_server.port, len(smtp_server.accepted())) == (port, 2)


def test_what_is_not_offered_is_not_advertised() -> None:
    none = Settings(pipelining=False, smtputf8=False, eightbitmime=False, size=1000)
    with SmtpServer(settings=none) as server, smtplib.SMTP(server.host, server.port, timeout=5) as client:
        client.ehlo()
        assert set(client.esmtp_features) == {"size", "help"}
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            client.sendmail("from@example.org", "to@example.org", LONG)
    assert refused.value.smtp_code == 552


def test_login_is_required_checked_and_scripted() -> None:
    login = Settings(username="user", password="secret", auth_required=True)
    with SmtpServer(settings=login) as server:
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            send(server)
        assert refused.value.smtp_code == 530
        with smtplib.SMTP(server.host, server.port, timeout=5) as client:
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("user", "wrong")
            server.script(Rule(at="auth", reply="454 4.7.0 later", times=1))
            assert client.docmd("AUTH", "PLAIN")[0] == 454
            client.login("user", "secret")
            client.sendmail("from@example.org", "to@example.org", MESSAGE)
        assert only(server.accepted()).user == "user"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_tls_before_or_in_the_conversation(tls: str, authority: trustme.CA, tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    settings = Settings(tls=tls, certificate=str(certificate))  # type: ignore[arg-type]

    with SmtpServer(settings=settings) as server:
        if tls == "implicit":
            client: smtplib.SMTP = smtplib.SMTP_SSL("localhost", server.port, timeout=5, context=context)
        else:
            client = smtplib.SMTP("localhost", server.port, timeout=5)
            client.starttls(context=context)
        with client:
            client.sendmail("from@example.org", "to@example.org", MESSAGE)

        assert only(server.accepted()).tls
