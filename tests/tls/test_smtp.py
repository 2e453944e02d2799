"""A mail server whose certificate is not in order gets no mail: it is held, and goes when the server is mended."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mail_service.local.smtp_server import Settings, SmtpServer
from tests.hazards.stacks import Real
from tests.support.messages import a_message
from tests.support.service import configuration

from .certificates import WRONG, Certificates


def test_mail_is_held_until_the_mail_servers_certificate_is_in_order(
    amqp_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over STARTTLS and over TLS from the first byte, one mailer for each."""
    certificates = Certificates(tmp_path)
    # what OpenSSL trusts instead of the system's authorities
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    servers = {}
    for option, tls in (("use_tls", "starttls"), ("use_ssl", "implicit")):
        for kind in WRONG:
            certificates.use(kind)
            name = f"{tls}, {kind}"
            folder = tmp_path / name
            folder.mkdir()
            certificates.both.rename(folder / "both.pem")
            given = Settings(tls=tls, certificate=str(folder / "both.pem"))  # type: ignore[arg-type]
            servers[name] = (option, SmtpServer(settings=given))
    mailers = {}
    for name, (option, server) in servers.items():
        server.__enter__()
        options = {"host": "127.0.0.1", "port": server.port, "timeout": 5, option: True}
        mailers[name] = {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": options}
    try:
        config = configuration(amqp_uri, tmp_path, mailers={**mailers, "default": mailers["starttls, expired"]})
        with Real(config, tmp_path) as service:
            for name in mailers:
                record = service.rpc.send(a_message(), id=name, mailer=name)

                assert record["status"] == "held"
                assert record["attempts"] == 0
                assert re.search(f"(?i){WRONG[name.partition(', ')[2]]}", record["error"])
            assert not any(server.accepted() for _, server in servers.values())

            certificates.use("right")
            for name, (_, server) in servers.items():
                server.stop()
                (tmp_path / name / "both.pem").write_bytes(certificates.both.read_bytes())
                server.start()

            for name in mailers:
                service.until(lambda name=name: service.rpc.status(name)["status"] == "sent", 20)  # type: ignore[misc]
            assert [len(server.accepted()) for _, server in servers.values()] == [1] * len(mailers)
    finally:
        for _, server in servers.values():
            server.__exit__(None, None, None)
