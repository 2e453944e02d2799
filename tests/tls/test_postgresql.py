"""A database whose certificate is not in order is not used: mail waits in RabbitMQ until it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mail_service.local.smtp_server import SmtpServer
from tests.hazards.stacks import Real, consumers
from tests.support.messages import a_message
from tests.support.postgresql import Postgresql
from tests.support.service import configuration

from .certificates import WRONG, Certificates


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture
def url(postgresql: Postgresql, postgresql_url: str, certificates: Certificates) -> Iterator[str]:
    """The URL of a database that is checked as strictly as libpq can."""
    postgresql.speak_tls(certificates.certificate, certificates.key)
    yield f"{postgresql_url}?sslmode=verify-full&sslrootcert={certificates.ca}"
    postgresql.speak_plainly()


def test_mail_waits_for_a_database_whose_certificate_is_in_order(
    url: str,
    *,
    postgresql: Postgresql,
    certificates: Certificates,
    amqp_uri: str,
    tmp_path: Path,
    smtp_server: SmtpServer,
) -> None:
    config = configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port, database=url)
    certificates.use("expired")
    postgresql.speak_tls(certificates.certificate, certificates.key)
    service = Real(config, tmp_path)
    try:
        service.start(wait=False)
        service.until(lambda: "the database cannot be used now" in service.log, 30)
        service.until(lambda: consumers(amqp_uri, "rpc-mail_service"), 30)
        service.rpc.submit(a_message(), id="waits")
        for kind in WRONG:
            certificates.use(kind)
            postgresql.speak_tls(certificates.certificate, certificates.key)
            # libpq 17 has one sentence for an old certificate and for a stranger's
            why = "does not match host name" if kind == "of another name" else "certificate verify failed"
            service.until(lambda why=why: why in _database(service)["text"], 30)  # type: ignore[misc]
            assert not _database(service)["ok"]
        assert not smtp_server.accepted()

        certificates.use("right")
        postgresql.speak_tls(certificates.certificate, certificates.key)

        service.until(smtp_server.accepted, 30)
        assert service.until(lambda: service.rpc.status("waits")["status"] == "sent")
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            spoken = connection.execute(
                # other tests' services keep connections to databases of their own on the same server
                "select ssl from pg_stat_ssl join pg_stat_activity using (pid)"
                " where usename is not null and datname = current_database()"
            ).fetchall()
        assert len(spoken) > 1
        assert all(ssl for (ssl,) in spoken)
        assert _database(service)["ok"]
    finally:
        service.close()


def _database(service: Real) -> dict[str, Any]:
    found: dict[str, Any] = service.rpc.call("health", timeout=20)["database"]
    return found
