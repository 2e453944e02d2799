"""DKIM: what arrives at a mail server verifies, whichever way it was sent."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from mail_service import message
from mail_service.delivery.guard import Guard
from mail_service.errors import ConfigurationError
from mail_service.local.smtp_server import Rule, SmtpServer
from mail_service.local.smtp_server import Settings as Offers
from mail_service.mailers import SMTP_BACKEND, Mailer, open_mailer
from mail_service.mailers.signing import author_domain, problems, signer
from mail_service.outcome import Kind
from mail_service.settings import DkimKey

from ..support.messages import a_message
from .building import kinds, settings_of

#: the shortest that a verifier takes: a longer one takes seven times as long
_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
_PEM = _KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
_PUBLIC = _KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
STAMPS = {"message_id": "<17@example.org>", "date": "Sun, 22 Nov 2026 10:00:00 +0000"}
ANN, BOB = "ann@example.net", "bob@example.net"


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, DkimKey]:
    path = tmp_path / "key.pem"
    path.write_bytes(_PEM)
    return {"example.org": DkimKey(selector="s2026", keyfile=str(path))}


def verifies(content: bytes) -> bool:
    """By a name server that knows one key."""

    def txt(name: bytes, timeout: int = 5) -> bytes:
        return b"v=DKIM1; k=rsa; p=" + b64encode(_PUBLIC) if name == b"s2026._domainkey.example.org." else b""

    return bool(dkim.verify(content, dnsfunc=txt))


@pytest.fixture(params=["plain", "chunking", "no 8bitmime"])
def server(request: pytest.FixtureRequest) -> Iterator[SmtpServer]:
    offers = {
        "plain": Offers(),
        "chunking": Offers(pipelining=True, chunking=True),
        "no 8bitmime": Offers(eightbitmime=False),
    }
    with SmtpServer(settings=offers[request.param]) as server:
        yield server


@pytest.fixture
def a_mailer(keys: dict[str, DkimKey]) -> Iterator[Callable[..., Any]]:
    """Makes mailers with the key."""
    with ExitStack() as stack:

        def make(server: SmtpServer, backend: str = SMTP_BACKEND) -> Mailer:
            mailer = open_mailer(settings_of(backend, host="127.0.0.1", port=server.port), sign=signer(keys))
            stack.callback(mailer.close)
            return mailer

        yield make


def canonical(**fields: Any) -> dict[str, Any]:
    return message.validate(a_message(**{"to": [ANN]} | fields))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="ASCII"),
        pytest.param({"body": "Grüße\n" * 30, "subject": "Grüße", "html": "<p>Grüße</p>"}, id="eight bits"),
        pytest.param({"body": ".\r\n..dots\n\n  spaces  \n\n\n"}, id="dots, spaces and empty lines"),
        pytest.param(
            {"attachments": [{"filename": "a.bin", "content": b64encode(bytes(100_000)).decode()}]}, id="attachment"
        ),
        pytest.param(
            {"mime": b64encode(b"From: a@example.org\nTo: b@example.net\nSubject: own\n\n.own\n").decode()},
            id="bytes of its own",
        ),
    ],
)
def test_what_arrives_verifies(server: SmtpServer, a_mailer: Callable[..., Any], fields: dict[str, Any]) -> None:
    mailer = a_mailer(server)

    receipts = mailer.send_canonical(canonical(**fields), [ANN], **STAMPS)

    (taken,) = server.accepted()
    assert kinds(receipts) == {ANN: Kind.ACCEPTED}
    assert taken.data.count(b"DKIM-Signature:") == 1
    assert verifies(taken.data)
    assert not verifies(taken.data.replace(b"Subject: ", b"Subject: Re: "))


def test_a_backend_made_of_djangos_signs_too(smtp_server: SmtpServer, a_mailer: Callable[..., Any]) -> None:
    mailer = a_mailer(smtp_server, "tests.support.backends.OwnSmtp")
    email = message.load(canonical(body="Grüße\n.\n"))
    message.stamp(email, **STAMPS)

    mailer.send(email, [ANN])

    (taken,) = smtp_server.accepted()
    assert verifies(taken.data)


def test_a_mail_is_signed_once_for_all_its_recipients(
    smtp_server: SmtpServer, a_mailer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    smtp_server.script(Rule(at="rcpt", to="bob*", reply="452 4.5.3 Too many recipients", times=1))
    signed: list[bytes] = []
    sign = dkim.sign

    def counted(content: bytes, *args: Any, **options: Any) -> Any:
        signed.append(content)
        return sign(content, *args, **options)

    monkeypatch.setattr(dkim, "sign", counted)
    mailer = a_mailer(smtp_server)
    signed.clear()

    mailer.send_canonical(canonical(to=[ANN, BOB]), [ANN, BOB], **STAMPS)

    assert [taken.rcpt_tos for taken in smtp_server.accepted()] == [(ANN,), (BOB,)]
    assert len(signed) == 1
    assert all(verifies(taken.data) for taken in smtp_server.accepted())


def test_a_redirected_mail_is_signed_as_it_is_sent(smtp_server: SmtpServer, a_mailer: Callable[..., Any]) -> None:
    redirected = Guard("staging@example.org").redirected(canonical())
    assert redirected is not None
    mailer = a_mailer(smtp_server)

    mailer.send_canonical(redirected.canonical, ["staging@example.org"], **STAMPS)

    (taken,) = smtp_server.accepted()
    assert b"X-Original-To: ann@example.net" in taken.data
    assert verifies(taken.data)


def test_mail_of_other_domains_is_sent_as_it_is(smtp_server: SmtpServer, a_mailer: Callable[..., Any]) -> None:
    mailer = a_mailer(smtp_server)

    mailer.send_canonical(canonical(from_email="a@sub.example.org"), [ANN], **STAMPS)

    (taken,) = smtp_server.accepted()
    assert b"DKIM-Signature" not in taken.data


@pytest.mark.parametrize(
    ("field", "domain"),
    [
        (b"Ann <ann@Example.ORG>", "example.org"),
        (b'"a@other.example" <ann@example.org>', "example.org"),
        (b"=?utf-8?q?J=C3=B6rg?=\r\n <joerg@xn--bcher-kva.example>", "xn--bcher-kva.example"),
        (b"root", ""),
        (b"", ""),
    ],
)
def test_the_domain_is_that_of_the_author(field: bytes, domain: str) -> None:
    assert author_domain([b"Subject: s\r\nFrom: " + field + b"\r\n\r\nFrom: b@body.example\r\n"]) == domain


def test_a_key_that_cannot_be_used_is_named_and_not_shown(tmp_path: Path) -> None:
    lines = _PEM.decode().splitlines()
    broken, public, empty = tmp_path / "broken.pem", tmp_path / "public.pem", tmp_path / "empty.pem"
    broken.write_text("\n".join([lines[0], lines[1][::-1], *lines[2:]]))
    public.write_bytes(
        _KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    empty.touch()
    keys = {
        f"{path.stem}.example": DkimKey(selector="s", keyfile=str(path))
        for path in (broken, public, empty, tmp_path / "nowhere.pem")
    }

    found = problems(keys)

    assert [text.partition(": ")[0] for text in found] == [f"mail.dkim.{domain}.keyfile" for domain in keys]
    assert "cannot be read: No such file" in found[-1]
    assert not any(line[:20] in text or line[::-1][:20] in text for line in lines[1:-1] for text in found)
    with pytest.raises(ConfigurationError, match=r"mail\.dkim\.broken\.example\.keyfile"):
        signer(keys)


def test_without_the_package_it_is_named(keys: dict[str, DkimKey], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mail_service.mailers.signing.find_spec", lambda _name: None)

    assert problems(keys) == ["mail.dkim: needs the package dkimpy: pip install 'mail-service[dkim]'"]
    assert problems({}) == []
