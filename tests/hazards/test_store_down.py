"""Hazard 23: the database is away. Nothing that was confirmed is lost, and what was done is not done again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from mail_service.client import MailClient
from mail_service.envelope import seal
from mail_service.errors import MailServiceError, NotFound, Unavailable
from mail_service.local.smtp_server import Rule, SmtpServer
from tests.support.messages import a_message
from tests.support.postgresql import Postgresql
from tests.support.service import configuration

from .stacks import Caller, Probe, Real, both, depth, put, rows

LANE = "mail.send.v1.normal"


def ask(url: str, query: str, *values: object) -> list[Any]:
    """Ask a PostgreSQL database by its SQLAlchemy URL."""
    conninfo = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(conninfo) as connection:
        return connection.execute(query.encode(), values).fetchall()


@both("23: when the store is down the process ends, and what has expired is gone")
def test_what_expires_while_the_store_is_down_is_stored_when_it_is_back(
    stack: str, amqp_uri: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = _FolderStore(tmp_path / "store") if stack == "stock" else _DatabaseStore(request)
    environment = {"STORE": str(tmp_path / "store")}
    config = {"mail": {"database": store.url}} if store.url else {}
    with Probe(stack, amqp_uri, tmp_path, environment=environment, config=config) as probe:
        store.stop()
        for number in range(3):
            put(amqp_uri, "probe", {"id": number, "retries": 100})
        probe.until(lambda: probe.noted("started") == 9, 20)
        # each was put off, or the process is dead
        probe.until(lambda: depth(amqp_uri, "probe") == 0)
        store.start()

        probe.until(lambda: len(store.entries()) == 3, 20)
        assert probe.noted("started") == 9


class _FolderStore:
    """Where the stock service stores: a folder that comes and goes."""

    url = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def stop(self) -> None:
        pass

    def start(self) -> None:
        self._folder.mkdir()

    def entries(self) -> list[str]:
        path = self._folder / "entries"
        return path.read_text().splitlines() if path.exists() else []


class _DatabaseStore:
    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._server: Postgresql = request.getfixturevalue("postgresql")
        self.url: str = request.getfixturevalue("postgresql_url")
        self.stop, self.start = self._server.kill9, self._server.start

    def entries(self) -> list[Any]:
        return ask(self.url, "select id from mail where status = 'expired'")


@pytest.fixture
def on_postgresql(amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer, postgresql_url: str) -> Iterator[Real]:
    """The real service on PostgreSQL, running, and through its first mail."""
    config = configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port, database=postgresql_url)
    with Real(config, tmp_path) as service:
        assert service.rpc.send(a_message(to=["first@example.org"]))["status"] == "sent"
        smtp_server.forget()
        yield service


def status(service: Real, mail_id: str) -> str | None:
    try:
        return str(service.rpc.status(mail_id)["status"])
    except (NotFound, Unavailable):
        return None


def test_attempts_that_end_while_the_database_is_away_are_recorded_later_and_not_repeated(
    on_postgresql: Real, amqp_uri: str, postgresql: Postgresql, smtp_server: SmtpServer
) -> None:
    """One is accepted, one fails for good, and one is put off."""
    smtp_server.script(
        Rule(at="end", hang_s=3, times=1, to="good@*"),
        Rule(at="rcpt", hang_s=3, times=1, to="bad@*", reply="550 5.1.1 no such user"),
        Rule(at="rcpt", hang_s=3, times=1, to="late@*", reply="450 4.2.0 later"),
    )
    with Caller(amqp_uri) as caller:
        asked = caller.request("mail_service.send", a_message(to=["good@example.org"]))
        for name in ("bad", "late"):
            on_postgresql.rpc.call("submit", a_message(to=[f"{name}@example.org"]), id=name)
        on_postgresql.until(lambda: len(smtp_server.fired()) == 3)
        postgresql.kill9()
        # it is answered by what is known, without the database
        assert caller.reply(asked, on_postgresql)["result"]["status"] == "sent"
    submitted = on_postgresql.rpc.call("submit", a_message(to=["meanwhile@example.org"]))
    assert submitted["status"] == "queued"
    with pytest.raises(Unavailable):
        on_postgresql.rpc.status("bad")
    postgresql.start()

    on_postgresql.until(lambda: status(on_postgresql, "late") == "sent", 20)
    on_postgresql.until(lambda: status(on_postgresql, "bad") == "failed")
    on_postgresql.until(lambda: status(on_postgresql, submitted["id"]) == "sent")
    on_postgresql.until(
        lambda: (
            ask(on_postgresql.config["mail"]["database"], "select count(*) from mail where status = 'sent'") == [(4,)]
        )
    )
    assert sorted(mail.rcpt_tos[0].partition("@")[0] for mail in smtp_server.accepted()) == [
        "good",
        "late",
        "meanwhile",
    ]
    assert len(smtp_server.fired()) == 3
    entry = on_postgresql.rpc.call("error", "bad")
    assert [attempt["diagnosis"] for attempt in entry["attempts"]] == ["permanent"]
    assert entry["message"]["to"] == ["bad@example.org"]
    assert [record["id"] for record in on_postgresql.rpc.call("errors")] == ["bad"]


def test_undecodable_messages_wait_for_the_database(on_postgresql: Real, amqp_uri: str, postgresql: Postgresql) -> None:
    bodies = [b"no JSON", seal(a_message(to=[]), {}, door="submit").body()]
    postgresql.kill9()
    for body in bodies:
        put(amqp_uri, LANE, body, content_type="application/json")
    on_postgresql.until(lambda: on_postgresql.log.count("cannot be used") == 2)
    on_postgresql.until(lambda: depth(amqp_uri, LANE) == 0)
    postgresql.start()

    on_postgresql.until(lambda: len(on_postgresql.rpc.call("errors")) == 2, 20)
    assert {record["status"] for record in on_postgresql.rpc.call("errors")} == {"failed"}


def test_a_mail_that_waits_for_the_database_is_delivered_although_the_process_is_killed(
    on_postgresql: Real, postgresql: Postgresql, smtp_server: SmtpServer
) -> None:
    """What was to be written down travels with the next copy, through the broker."""
    smtp_server.script(Rule(at="end", hang_s=2, times=1))
    on_postgresql.rpc.call("submit", a_message(), id="mail")
    on_postgresql.until(smtp_server.fired)
    postgresql.kill9()
    on_postgresql.until(smtp_server.accepted)
    on_postgresql.until(lambda: depth(on_postgresql.config["AMQP_URI"], "mail.delay.v1.5100") == 1, 20)
    on_postgresql.kill9()
    postgresql.start()
    on_postgresql.start()

    on_postgresql.until(lambda: status(on_postgresql, "mail") == "sent", 20)
    # killed between the confirm and the acknowledgement, the old copy comes back too, and nobody knows how it went
    query = "select count(*) from attempt where mail_id = 'mail' and diagnosis = 'unknown'"
    [(unknown,)] = ask(on_postgresql.config["mail"]["database"], query)
    assert len(smtp_server.accepted()) == 1 + unknown


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Nobody else can write into an SQLite database."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=10)) as connection:
        connection.execute("begin immediate")
        yield
        connection.execute("rollback")


def test_a_locked_sqlite_file_keeps_nobody_from_handing_mail_over(
    amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    smtp_server.script(Rule(at="end", hang_s=1, times=1))
    config = configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port)
    with Real(config, tmp_path) as service:
        service.rpc.call("submit", a_message(), id="in flight")
        service.until(smtp_server.fired)
        with locked(tmp_path / "mail.db"):
            service.until(smtp_server.accepted)
            assert service.rpc.call("submit", a_message(), id="meanwhile", timeout=8)["status"] == "queued"
            # readers are not locked out
            assert service.rpc.status("in flight")["status"] == "queued"

        service.until(lambda: status(service, "in flight") == "sent")
        service.until(lambda: status(service, "meanwhile") == "sent")
        assert len(smtp_server.accepted()) == 2


def test_the_service_starts_and_accepts_while_the_database_is_away(
    amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer, postgresql: Postgresql, postgresql_url: str
) -> None:
    postgresql.kill9()
    config = configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port, database=postgresql_url)
    service = Real(config, tmp_path)
    with closing(service), MailClient(amqp_uri, timeout=10) as client:
        service.start(wait=False)
        service.until(lambda: _answer(client))
        assert not smtp_server.accepted()
        postgresql.start()

        service.until(smtp_server.accepted, 20)


def _answer(client: MailClient) -> Any:
    try:
        return client.call("submit", a_message())
    except MailServiceError:
        return None


def test_nothing_is_lost_when_the_database_is_killed_again_and_again(
    on_postgresql: Real, postgresql: Postgresql, smtp_server: SmtpServer
) -> None:
    smtp_server.script(Rule(at="rcpt", to="*1@*", reply="450 4.2.0 later", times=1), Rule(at="end", hang_s=0.1))
    recipients = [f"to{number}@example.org" for number in range(60)]
    for recipient in recipients[:30]:
        on_postgresql.rpc.call("submit", a_message(to=[recipient]))
    for part in (recipients[30:45], recipients[45:]):
        postgresql.kill9()
        for recipient in part:
            on_postgresql.rpc.call("submit", a_message(to=[recipient]))
        postgresql.start()

    url = on_postgresql.config["mail"]["database"]
    sent: Callable[[], bool] = lambda: ask(url, "select count(*) from mail where status = 'sent'") == [(61,)]  # noqa: E731
    on_postgresql.until(sent, 30)
    assert sorted(mail.rcpt_tos[0] for mail in smtp_server.accepted()) == sorted(recipients)


def test_the_folder_of_an_sqlite_file_is_made(amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer) -> None:
    config = configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port)
    config["mail"]["database"] = f"sqlite:///{tmp_path / 'new' / 'folder' / 'mail.db'}"
    with Real(config, tmp_path) as service:
        service.rpc.send(a_message(), id="mail")

        assert rows(tmp_path / "new" / "folder" / "mail.db", "select status from mail") == [("sent",)]
