"""
What faults are tried on: a broker, a database, mail servers and a running service, each of which can be broken.

Between two faults everything is as it was: `heal`. Each fault has traffic of its own, whose mails alone it counts.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mail_service.client import MailClient
from mail_service.local.http_server import HttpServer
from mail_service.local.http_server import Rule as HttpRule
from mail_service.local.node import Node
from mail_service.local.smtp_server import SmtpServer
from tests.support.messages import a_message
from tests.support.outages import Proxy
from tests.support.postgresql import Postgresql
from tests.support.service import Service, children, configuration
from tests.support.waiting import eventually

from .counting import Tally, count
from .reading import Rows, Taken
from .traffic import RULES, SOURCE, Traffic

SMTP = "django.core.mail.backends.smtp.EmailBackend"
#: enough attempts to outlive every fault here; what is refused for good ends in the error log all the same
PATIENT = {"schedule": [200, 400, 800], "limit": 200}
#: seconds of an attempt, and of a connection that says nothing
ATTEMPT_S, SILENCE_S = 4, 3
#: Resend's answer to whoever it takes
YES = HttpRule(status=200, body={"id": "$number"})

#: the service's own lines with the time, and those of kombu when a connection is lost
LOGGING = {
    "version": 1,
    "formatters": {"timed": {"format": "%(asctime)s %(process)d %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "timed"}},
    "root": {"level": "INFO", "handlers": ["console"]},
}

_numbers = itertools.count(1)


class Steered(Service):
    """One process that somebody can tell where to die, and what time it is."""

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        super().__init__(config, folder, module="tests.support.crashing")
        self.plan_path = folder / "plan"
        self.clock_path = folder / "clock"

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {"CRASH_PLAN": str(self.plan_path), "CLOCK": str(self.clock_path)}

    def arm(self, point: str, after: int) -> None:
        """Let it die at *point* (see tests/support/crashing.py) when that was passed *after* times."""
        _write(self.plan_path, f"{point} {after}")

    def set_clock(self, offset_s: float) -> None:
        _write(self.clock_path, str(offset_s))


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@dataclass(kw_only=True)
class Ground:
    """Everything that can be broken."""

    service: Service
    broker: Node
    vhost: str
    #: in front of the broker, for the service and for those who hand in mail
    amqp: Proxy
    smtp: SmtpServer
    #: in front of the SMTP server
    smtp_way: Proxy
    http: HttpServer
    #: where its SQLite file is, else it has a PostgreSQL
    folder: Path
    postgresql: Postgresql | None
    taken: Taken
    rows: Rows
    seed: int
    _undo: list[Callable[[], object]] = field(default_factory=list)

    @property
    def has_small_disk(self) -> bool:
        """Whether its SQLite file is alone on a disk that can be filled."""
        return self.folder.is_mount()

    @contextlib.contextmanager
    def traffic(self, name: str, rate: float, **more: Any) -> Iterator[Traffic]:
        # its name is in the ids of its mails: of the same fault, there may be two
        with Traffic(
            self.amqp.amqp_uri, name=f"{name}-{next(_numbers)}x", seed=self.seed, rate=rate, **more
        ) as traffic:
            yield traffic

    def probe(self, timeout_s: float = 60) -> None:
        """Wait until a mail goes all the way, handed in beside the proxy."""
        mail_id = f"probe-{next(_numbers)}"
        with MailClient(self.broker.uri(self.vhost), timeout=timeout_s) as client:
            client.submit(a_message(to=[f"good-{mail_id}@example.org"]), id=mail_id)
        eventually(lambda: mail_id in self.taken.all(), timeout_s, every_s=0.1)

    def on_heal(self, undo: Callable[[], object]) -> None:
        """What a fault has to undo if it does not get that far."""
        self._undo.append(undo)

    def heal(self) -> None:
        """Everything is there again, and answers."""
        while self._undo:
            self._undo.pop()()
        self.amqp.thaw()
        self.smtp_way.thaw()
        self.smtp_way.drip_s = 0
        for server in (self.broker, self.smtp, self.http, self.postgresql):
            if server is not None:
                server.resume() if server.is_alive else server.start()
        self.smtp.script(*RULES)
        self.http.script(YES)
        if isinstance(self.service, Steered):
            self.service.plan_path.unlink(missing_ok=True)
            self.service.set_clock(0)
        if not self.service.is_alive:
            self.service.start(wait=False)

    def processes(self) -> list[int]:
        """The pids of those that work, without a supervisor."""
        return children(self.service.pid) if not isinstance(self.service, Steered) else [self.service.pid]

    def settle(self, traffic: Traffic, timeout_s: float) -> Tally:
        """Heal, wait until every mail of *traffic* has ended, and count."""
        self.heal()
        traffic.finish()
        name = traffic.name
        with contextlib.suppress(AssertionError):
            # one that never ends is counted as lost, and named
            eventually(lambda: self._have_ended(traffic), timeout_s, every_s=0.2)
        return count(traffic.accepted, traffic.refused, self.taken.all(), self.rows.all(name))

    def _have_ended(self, traffic: Traffic) -> bool:
        if not self.service.is_alive:
            self.service.start(wait=False)
        final, known = self.rows.count(traffic.name)
        return final == known >= len(traffic.accepted)


@contextlib.contextmanager
def opened(
    broker: Node,
    vhost: str,
    folder: Path,
    *,
    seed: int,
    postgresql: Postgresql | None = None,
    processes: int | None = None,
    database_folder: Path | None = None,
) -> Iterator[Ground]:
    """
    Start everything but *broker* and *postgresql*.

    Args:
        processes: Of ``mail-service run``; without it, one process that can be steered.
        database_folder: Of the SQLite file, if elsewhere.
    """
    database_folder = database_folder or folder
    database = postgresql.fresh_database() if postgresql else f"sqlite:///{database_folder / 'mail.db'}"
    with ExitStack() as stack:
        amqp = stack.enter_context(Proxy(broker.uri(vhost)))
        smtp = stack.enter_context(SmtpServer(*RULES, folder=folder / "smtp"))
        smtp_way = stack.enter_context(Proxy(f"smtp://127.0.0.1:{smtp.port}"))
        http = stack.enter_context(HttpServer(YES, folder=folder / "http"))
        config = configuration(
            amqp.amqp_uri,
            folder,
            database=database,
            mailers=_mailers(smtp_way.port, http.url),
            schedules={"quick": PATIENT},
            attempt_timeout=ATTEMPT_S,
            event_sources=[SOURCE],
        )
        # a connection that is half open is found out after two of these, seconds
        config["HEARTBEAT"] = 4
        config["LOGGING"] = LOGGING
        service = Service(config, folder, processes=processes) if processes else Steered(config, folder)
        stack.enter_context(service)
        # how it stops is the subject of a fault of its own
        stack.callback(lambda: service.kill9() if service.is_alive else None)
        ground = Ground(
            service=service,
            broker=broker,
            vhost=vhost,
            amqp=amqp,
            smtp=smtp,
            smtp_way=smtp_way,
            http=http,
            folder=database_folder,
            postgresql=postgresql,
            taken=Taken(folder / "smtp", folder / "http"),
            rows=Rows(database),
            seed=seed,
        )
        ground.probe()
        yield ground


def _mailers(smtp_port: int, http_url: str) -> dict[str, Any]:
    return {
        "default": {"BACKEND": SMTP, "OPTIONS": {"host": "127.0.0.1", "port": smtp_port, "timeout": SILENCE_S}},
        "esp": {
            "BACKEND": "anymail.backends.resend.EmailBackend",
            "OPTIONS": {"api_key": "key", "api_url": http_url},
        },
    }
