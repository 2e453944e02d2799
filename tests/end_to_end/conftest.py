"""One service for all tests that do not disturb one another: each mails people of its own and looks for its own ids."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mail_service.local.node import Node
from mail_service.local.smtp_server import Accepted, Rule, SmtpServer

from ..support.outside import Events, RemoteError, Rpc
from ..support.postgresql import Postgresql
from ..support.service import Service, configuration
from ..support.waiting import eventually

FUSSY = "tests.support.backends.Fussy"
SMTP = "django.core.mail.backends.smtp.EmailBackend"

#: what becomes of whom; every recipient has his own count
PEOPLE = (
    Rule(at="rcpt", to="refused*", reply="550 5.1.1 No such person"),
    Rule(at="rcpt", to="later*", reply="450 4.2.0 Come back later"),
    Rule(at="rcpt", to="once*", reply="450 4.2.0 Come back once", times=1),
    Rule(at="rcpt", to="twice*", reply="450 4.2.0 Come back twice", times=2),
    Rule(at="end", to="throttled*", reply="454 4.7.0 Throttling failure: Maximum sending rate exceeded", times=4),
    Rule(at="end", to="overfull*", reply="454 4.7.0 Throttling failure: Maximum sending rate exceeded"),
    Rule(at="end", to="dropped*", accept=True, drop=True, times=1),
    Rule(at="end", to="cut*", accept=True, drop=True),
    Rule(at="end", to="spam*", reply="554 5.7.1 Spam"),
    Rule(at="end", to="tired*", reply="451 4.3.0 Tired"),
    Rule(at="mail", sender="stranger*", reply="553 5.7.1 Sender not allowed", times=5),
    Rule(at="end", to="slow*", hang_s=5, times=1),
    Rule(at="end", to="lazy*", hang_s=1.5),
)

SCHEDULES = {
    "quick": {"schedule": [100, 200], "limit": 2},
    "none": {"schedule": [100], "limit": 1},
    "hourly": {"schedule": [3_600_000], "limit": 3},
    "seconds": {"schedule": [1000, 2000], "limit": 2},
    "aged": {"schedule": [1000], "limit": 0, "max_age": 3500},
    "growing": {"first": 300, "factor": 3, "longest": 1200, "limit": 4},
}


def mailers(port: int, limit: dict[str, Any] | None = None) -> dict[str, Any]:
    """All of them; *limit* is that of the default one."""
    options = {"host": "127.0.0.1", "port": port, "timeout": 5}
    return {
        "default": {"BACKEND": SMTP, "OPTIONS": options, "limit": limit},
        "second": {"BACKEND": SMTP, "OPTIONS": options},
        # a throttle holds all mail of its mailer, so the people who are throttled have one of their own
        "throttling": {"BACKEND": SMTP, "OPTIONS": options},
        "give_up": {"BACKEND": SMTP, "OPTIONS": options, "on_unknown": "give_up"},
        "fussy": {"BACKEND": FUSSY},
        "closed": {"BACKEND": SMTP, "OPTIONS": {"host": "127.0.0.1", "port": 1}},
        "rehearsal": {"BACKEND": "mail_service.mailers.rehearsal.EmailBackend"},
    }


@dataclass
class House:
    """A running service with what is around it."""

    service: Service
    smtp: SmtpServer
    events: Events
    rpc: Rpc
    amqp_uri: str
    database: str
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def revisited(self) -> House:
        """The same, after tests that may have restarted the broker: the service comes back by itself, we have to."""
        if not self.rpc.is_alive():
            self.rpc.close()
            self.rpc = Rpc(self.amqp_uri)
            eventually(lambda: self.rpc.health()["broker"]["ok"] and self.events.is_listening(), 30)
        return self

    def person(self, name: str = "ann") -> str:
        """An address nobody else has; the name decides what the mail server thinks of it (``PEOPLE``)."""
        return f"{name}-{next(self._numbers)}-{uuid.uuid4().hex[:6]}@example.org"

    def mails_to(self, address: str) -> list[Accepted]:
        return [mail for mail in self.smtp.accepted() if address in mail.rcpt_tos]

    def becomes(self, mail_id: str, *statuses: str, timeout_s: float = 15) -> dict[str, Any]:
        """Wait until the mail has one of the statuses, and give its record."""

        def record() -> dict[str, Any]:
            try:
                found: dict[str, Any] = self.rpc.status(mail_id)
            except RemoteError as error:
                if error.exc_type == "NotFound":
                    # a mail that was only just begun
                    return {}
                raise
            assert found["status"] in statuses, found
            return found

        return eventually(record, timeout_s)

    @property
    def log(self) -> str:
        return self.service.log


def open_house(
    stack: ExitStack,
    amqp_uri: str,
    folder: Path,
    database: str,
    *rules: Rule,
    processes: int | None = None,
    logging: dict[str, Any] | None = None,
    more_mailers: dict[str, Any] | None = None,
    limit: dict[str, Any] | None = None,
    **mail: Any,
) -> House:
    """A service of its own for a test that needs to disturb it."""
    smtp = stack.enter_context(SmtpServer(*(rules or PEOPLE)))
    config = configuration(
        amqp_uri,
        folder,
        **{
            "mailers": {**mailers(smtp.port, limit), **(more_mailers or {})},
            "schedules": SCHEDULES,
            "database": database,
            "event_sources": ["orders", "accounts"],
            "attempt_timeout": 3,
            "max_size": 300_000,
            **mail,
        },
    )
    if logging:
        config["LOGGING"] = logging
    service = stack.enter_context(Service(config, folder, processes=processes))
    rpc = Rpc(amqp_uri)
    stack.callback(rpc.close)
    events = stack.enter_context(Events(amqp_uri))
    return House(service, smtp, events, rpc, amqp_uri, database)


@pytest.fixture(scope="session")
def _house_3(rabbitmq_3: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    # a virtual host of the stock would be deleted after some more tests
    rabbitmq_3.add_vhosts("house")
    with ExitStack() as stack:
        uri = rabbitmq_3.uri("house")
        folder = tmp_path_factory.mktemp("house-sqlite")
        yield open_house(stack, uri, folder, f"sqlite:///{folder / 'mail.db'}")


@pytest.fixture(scope="session")
def _house_4(rabbitmq_4: Node, postgresql: Postgresql, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    rabbitmq_4.add_vhosts("house")
    with ExitStack() as stack:
        uri = rabbitmq_4.uri("house")
        folder = tmp_path_factory.mktemp("house-postgresql")
        yield open_house(stack, uri, folder, postgresql.fresh_database(), processes=2)


@pytest.fixture
def house(_house_3: House) -> House:
    """The shared service: one process, RabbitMQ 3, SQLite."""
    return _house_3.revisited()


@pytest.fixture(params=["rabbitmq 3, sqlite", "rabbitmq 4, postgresql, two processes"])
def any_house(request: pytest.FixtureRequest) -> House:
    """The shared services, one after the other."""
    found: House = request.getfixturevalue("_house_3" if "sqlite" in request.param else "_house_4")
    return found.revisited()


@pytest.fixture
def own_house(amqp_uri: str, tmp_path: Path) -> Iterator[House]:
    """A service for this test alone, which may stop it, and look at all there is."""
    with ExitStack() as stack:
        yield open_house(stack, amqp_uri, tmp_path, f"sqlite:///{tmp_path / 'mail.db'}")
