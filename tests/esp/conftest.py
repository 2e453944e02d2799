"""Every Anymail backend, asking servers of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import trustme

from mail_service.local.http_server import HttpServer
from mail_service.local.smtp_server import Settings, SmtpServer
from mail_service.mailers.django_backend import configure_django

from .sending import Servers

configure_django()


@pytest.fixture(autouse=True)
def _no_credentials_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What boto would find around here is none of the tests' business, least of all over the network."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")


@pytest.fixture(scope="session")
def _more_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HttpServer, SmtpServer, SmtpServer]]:
    certificate = tmp_path_factory.mktemp("tls") / "server.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    login = Settings(username="user", password="right")
    tls = Settings(tls="starttls", certificate=str(certificate))
    with ExitStack() as stack:
        yield (
            stack.enter_context(HttpServer(certificate=certificate)),
            stack.enter_context(SmtpServer(settings=login)),
            stack.enter_context(SmtpServer(settings=tls)),
        )


@pytest.fixture
def servers(
    http_server: HttpServer, smtp_server: SmtpServer, _more_servers: tuple[HttpServer, SmtpServer, SmtpServer]
) -> Servers:
    https, login, tls = _more_servers
    return Servers(http=http_server, https=https, smtp=smtp_server, smtp_login=login, smtp_tls=tls)
