"""A Django project with an outbox, on every database, in this process and in others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import amqp
import kombu
import pytest
from django.core.management import call_command
from django.db import connections
from django.test.utils import override_settings

from mail_service import topology
from mail_service.django import close_clients
from mail_service.django.outbox import claiming
from mail_service.django.outbox.models import OutboxMail
from mail_service.django.outbox.storing import store
from mail_service.envelope import Envelope

from ..support import outbox_project as project
from ..support.messages import a_message

ROOT = Path(__file__).parents[2]
#: nobody listens there
NO_BROKER = "amqp://guest:guest@127.0.0.1:1//"
TIMEOUT_S = 2


@dataclass
class Outbox:
    """The table, the broker, and processes that hand over."""

    database: dict[str, Any]
    amqp_uri: str
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def store(self, *ids: str, **changes: Any) -> None:
        """Write a mail for each of *ids*."""
        store([(a_message(**changes), {"id": mail_id}) for mail_id in ids])

    def ids(self) -> list[str]:
        """Of the rows, in order."""
        return list(OutboxMail.objects.order_by("number").values_list("mail_id", flat=True))

    def send(self, *arguments: str, **options: Any) -> str:
        """``send_outbox --once`` in this process; what it says."""
        out = StringIO()
        call_command("send_outbox", "--once", *arguments, stdout=out, stderr=out, **options)
        return out.getvalue()

    def process(self, *arguments: str, crash_at: str = "", amqp_uri: str | None = None) -> subprocess.Popen[str]:
        """``manage.py send_outbox`` in a process of its own."""
        uri = amqp_uri or self.amqp_uri
        settings = {
            "DATABASES": {"default": self.database, "outbox": self.database},
            "MAIL_SERVICE": {"AMQP_URI": uri, "TIMEOUT": TIMEOUT_S},
        }
        paths = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.outbox_project", "send_outbox", *arguments],
            env={**os.environ, "PYTHONPATH": paths, "PROJECT": json.dumps(settings), "CRASH_AT": crash_at},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """End what is still running."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=10)


def queued(amqp_uri: str, lane: str = "normal") -> list[Envelope]:
    """Take all mails out of a lane's work queue."""
    with kombu.Connection(amqp_uri) as connection:
        queue = topology.lane_queue(lane)(connection.default_channel)
        try:
            queue.queue_declare(passive=True)
        except amqp.exceptions.NotFound:
            return []
        return [Envelope.parse(message.body) for message in iter(lambda: queue.get(no_ack=True), None)]


def queued_ids(amqp_uri: str) -> list[str]:
    return [mail.id for mail in queued(amqp_uri)]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """An empty database, as Django's settings have it."""
    if request.param == "sqlite":
        options = {"timeout": 20}
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "outbox.db"), "OPTIONS": options}
    url = urlsplit(request.getfixturevalue("postgresql_url"))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": url.hostname,
        "PORT": url.port,
        "USER": url.username,
        "NAME": url.path[1:],
    }


@pytest.fixture
def tables(database: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The database with the outbox's table, known to this process as ``outbox``."""
    with ExitStack() as stack:
        stack.enter_context(
            override_settings(
                INSTALLED_APPS=project.INSTALLED_APPS, DATABASE_ROUTERS=project.DATABASE_ROUTERS, USE_TZ=True
            )
        )
        connections.settings["outbox"] = connections.configure_settings({"default": {}, "outbox": dict(database)})[
            "outbox"
        ]
        stack.callback(_forget_database)
        call_command("migrate", database="outbox", verbosity=0)
        yield database


def _forget_database() -> None:
    connections["outbox"].close()
    del connections["outbox"]
    del connections.settings["outbox"]


@pytest.fixture
def outbox(tables: dict[str, Any], amqp_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outbox]:
    monkeypatch.setattr(claiming, "MARGIN_S", 0.5)
    with override_settings(MAIL_SERVICE={"AMQP_URI": amqp_uri, "TIMEOUT": TIMEOUT_S}):
        outbox = Outbox(tables, amqp_uri)
        yield outbox
        outbox.stop()
    close_clients()
