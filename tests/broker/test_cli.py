"""The command line as a process, against a real broker with an answering service, none, or a broker that is away."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kombu
import pytest

from ..support.messages import a_message
from ..support.outages import Proxy
from ..support.responder import RPC_QUEUE, RemoteFault, Responder

ROOT = Path(__file__).parents[2]

Run = Callable[..., subprocess.CompletedProcess[str]]


def run_in(folder: Path, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``mail-service``; a command that hangs fails the test."""
    return subprocess.run(
        [sys.executable, "-m", "mail_service.cli", *args],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture
def run(amqp_uri: str, tmp_path: Path) -> Run:
    """Run a command with a configuration for this test's broker."""
    configure(tmp_path, amqp_uri)
    return lambda *args, **kwargs: run_in(tmp_path, *args, **kwargs)


def configure(folder: Path, amqp_uri: str) -> None:
    (folder / "config.yaml").write_text(f"AMQP_URI: {amqp_uri}\n")


def failed_in_one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def test_a_message_from_standard_input_is_sent_with_its_options_and_the_record_printed(run: Run, amqp_uri: str) -> None:
    record = {"id": "m1", "status": "sent", "recipients": {"ann@example.org": {"status": "sent"}}}
    with Responder(amqp_uri, send=lambda _message, **_options: record) as service:
        done = run(
            "send", "-", "--option", "id=m1", "--option", "priority=high", "--json", stdin=json.dumps(a_message())
        )

    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, record, "")
    assert service.requests[0].args == [a_message()]
    assert service.requests[0].kwargs == {"id": "m1", "priority": "high"}


def test_a_failed_delivery_fails_the_command(run: Run, amqp_uri: str) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        raise RemoteFault("DeliveryFailed", "550 5.1.1 no such user")

    with Responder(amqp_uri, send=fail):
        done = run("send", "-", stdin=json.dumps(a_message()))

    assert failed_in_one_line(done) == "Error: 550 5.1.1 no such user"


def test_the_error_log_is_worked_on_over_the_broker(run: Run, amqp_uri: str) -> None:
    with Responder(amqp_uri, errors=lambda **filters: [filters], replay=lambda *ids, **filters: [*ids, *filters]):
        listed = run("errors", "list", "--status", "failed", "--limit", "5", "--json")
        replayed = run("errors", "replay", "m1", "m2")
        all_replayed = run("errors", "replay", "--all")

    assert json.loads(listed.stdout) == [{"status": "failed", "limit": 5}]
    assert replayed.stdout == "m1\nm2\n2 on its way again\n"
    assert all_replayed.stdout.startswith("all\n")


@pytest.mark.parametrize("declared", [False, True], ids=["never ran", "stopped"])
def test_a_service_that_is_not_running_is_told_at_once_and_is_asked_nothing(
    run: Run, amqp_uri: str, declared: bool
) -> None:
    with kombu.Connection(amqp_uri) as connection:
        queue = RPC_QUEUE(connection.default_channel)
        if declared:
            queue.declare()

        start = time.monotonic()
        done = run("errors", "discard", "--all", "--timeout", "30")

        assert "not running" in failed_in_one_line(done)
        assert time.monotonic() - start < 15
        assert not declared or queue.queue_declare(passive=True).message_count == 0


def test_a_broker_that_is_away_is_told_in_one_line_without_the_password(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    configure(tmp_path, f"amqp://me:secret@127.0.0.1:{port}//")

    line = failed_in_one_line(run_in(tmp_path, "health"))

    assert f"127.0.0.1:{port} cannot be reached" in line
    assert "secret" not in line


def test_a_broker_that_hangs_ends_the_command_in_time(amqp_uri: str, tmp_path: Path) -> None:
    with Proxy(amqp_uri) as proxy:
        configure(tmp_path, proxy.amqp_uri)
        proxy.freeze()

        assert "does not answer" in failed_in_one_line(run_in(tmp_path, "status", "m1", "--timeout", "1"))


def test_an_answer_that_does_not_come_ends_the_command_in_time(run: Run, amqp_uri: str) -> None:
    with kombu.Connection(amqp_uri) as connection, connection.Consumer([RPC_QUEUE], callbacks=[lambda *_: None]):
        assert "no answer to 'health' within 0.5 s" in failed_in_one_line(run("health", "--timeout", "0.5"))


def test_a_configuration_with_mistakes_lists_them_all(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mail:\n  mailer: {}\n  hold_probe: never\n")

    done = run_in(tmp_path, "check-config")

    assert done.returncode == 1
    assert "mail.mailer" in done.stderr
    assert "mail.hold_probe" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_projects_own_configuration_is_fine() -> None:
    done = run_in(ROOT, "check-config", "--json")

    assert done.returncode == 0, done.stderr
    assert "default" in json.loads(done.stdout)["mail"]["mailers"]
