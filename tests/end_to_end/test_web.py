"""Section 6: ``/metrics``, ``/health`` and ``/ready`` on nameko's WEB_SERVER_ADDRESS."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mail_service.local.process import free_port
from mail_service.local.smtp_server import Rule, SmtpServer

from ..support.messages import a_message
from ..support.postgresql import Postgresql
from ..support.service import Service, children, configuration
from ..support.waiting import eventually

RULES = (
    Rule(at="rcpt", to="refused*", reply="550 5.1.1 <refused@example.org>: no such person"),
    Rule(at="rcpt", to="later*", reply="450 4.2.0 Come back later"),
    Rule(at="end", to="cut*", accept=True, drop=True),
    Rule(at="mail", sender="locked*", reply="530 5.7.0 Authentication required for locked@example.org"),
)


@dataclass(frozen=True)
class Pages:
    """What the web server says."""

    port: int

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def refusal(self, path: str) -> str:
        """What stands on a page that says no; empty while it says yes."""
        status, body = self.get(path)
        return body if status == 503 else ""

    def value(self, name: str, **labels: str) -> float | None:
        """One sample, or None when it is not there."""
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                if sample.name == f"mail_service_{name}" and sample.labels == labels:
                    return float(sample.value)
        return None

    def are_there(self) -> bool:
        return self.get("/ready")[0] == 200


@contextmanager
def a_service(amqp_uri: str, folder: Path, *, processes: int | None = None, **mail: Any) -> Iterator[tuple[Any, Pages]]:
    pages = Pages(free_port())
    with SmtpServer(*RULES) as smtp:
        config = configuration(amqp_uri, folder, smtp_port=smtp.port, **mail)
        config["WEB_SERVER_ADDRESS"] = f"127.0.0.1:{pages.port}"
        with Service(config, folder, processes=processes) as service:
            yield service, pages


@pytest.fixture(params=[None, 2], ids=["nameko run", "two processes"])
def running(request: pytest.FixtureRequest, amqp_uri: str, tmp_path: Path) -> Iterator[tuple[Service, Pages]]:
    with a_service(amqp_uri, tmp_path, processes=request.param) as both:
        eventually(both[1].are_there, 60)
        yield both


def test_what_happens_is_counted_in_all_processes(running: tuple[Service, Pages]) -> None:
    service, pages = running

    for number in range(10):
        service.rpc.call("submit", a_message(to=[f"ann-{number}@example.org"]))
    service.rpc.call("submit", a_message(to=["refused@example.org"]))
    service.rpc.call("submit", a_message(to=["later@example.org"]))
    service.rpc.call("submit", a_message(to=["cut@example.org"]))
    service.rpc.submit(a_message(to=["bob@example.org"]))

    def ended() -> dict[str, float | None]:
        found = {status: pages.value("ended_total", status=status) for status in ("sent", "expired")}
        assert found == {"sent": 11, "expired": 2}, (found, service.log[-3000:])
        return found

    eventually(ended, 60)
    assert pages.value("ended_total", status="failed") == 1
    assert pages.value("accepted_total", door="submit") == 13
    assert pages.value("accepted_total", door="client") == 1
    assert pages.value("attempts_total", mailer="default", diagnosis="accepted") == 11
    assert pages.value("attempts_total", mailer="default", diagnosis="permanent") == 1
    assert pages.value("attempts_total", mailer="default", diagnosis="transient") == 3
    assert pages.value("attempts_total", mailer="default", diagnosis="unknown") == 3
    assert pages.value("attempt_seconds_count", mailer="default") == 18
    assert pages.value("attempt_seconds_bucket", mailer="default", le="+Inf") == 18


def test_what_waits_is_shown_by_lane_and_reason(amqp_uri: str, tmp_path: Path) -> None:
    with a_service(amqp_uri, tmp_path, schedules={"quick": {"schedule": [3_600_000], "limit": 1}}) as (service, pages):
        service.rpc.call("submit", a_message(to=["later@example.org"]), priority="bulk", tenant="secret-tenant")
        service.rpc.call("submit", a_message(from_email="locked@example.org"))

        eventually(lambda: pages.value("waiting", lane="bulk", status="deferred") == 1, 60)
        eventually(lambda: pages.value("waiting", lane="normal", status="held") == 1, 60)
        eventually(lambda: pages.value("held", reason="configuration") == 1, 60)
        assert pages.value("waiting", lane="high", status="held") == 0
        assert (pages.value("oldest_waiting_seconds", lane="bulk") or 0) > 0
        assert pages.value("oldest_waiting_seconds", lane="high") == 0
        assert pages.value("queue_messages", queue="bulk") == 0
        assert pages.value("queue_consumers", queue="bulk") == 1
        text = pages.get("/metrics")[1]
        assert "@" not in text
        assert "secret-tenant" not in text


def test_ready_and_health_of_a_sound_service(running: tuple[Service, Pages]) -> None:
    service, pages = running

    status, body = pages.get("/ready")
    assert (status, set(json.loads(body).values())) == (200, {True})
    status, body = pages.get("/health")
    assert status == 200
    assert json.loads(body).keys() == service.rpc.call("health").keys()
    assert pages.get("/nothing")[0] == 404


def test_health_is_503_when_a_mailer_is_not_fine_and_shows_no_address(amqp_uri: str, tmp_path: Path) -> None:
    with a_service(amqp_uri, tmp_path) as (service, pages):
        service.rpc.call("submit", a_message(from_email="locked@example.org"))

        body = eventually(lambda: pages.refusal("/health"), 60)

        assert not json.loads(body)["mailer default"]["ok"]
        assert "locked@" not in body
        assert pages.get("/ready")[0] == 200


def test_not_ready_while_the_database_is_away(
    amqp_uri: str, tmp_path: Path, postgresql: Postgresql, postgresql_url: str
) -> None:
    with a_service(amqp_uri, tmp_path, database=postgresql_url) as (_, pages):
        eventually(pages.are_there, 60)

        postgresql.kill9()

        body = eventually(lambda: pages.refusal("/ready"), 60)
        assert json.loads(body)["database"] is False
        assert json.loads(body)["broker"] is True
        eventually(lambda: (pages.value("errors_total", part="database") or 0) > 0, 60)
        eventually(lambda: pages.value("up", part="database") == 0, 60)

        postgresql.start()
        eventually(pages.are_there, 60)


def test_another_process_takes_over_and_no_number_falls(amqp_uri: str, tmp_path: Path) -> None:
    with a_service(amqp_uri, tmp_path, processes=2) as (service, pages):
        eventually(pages.are_there, 60)
        for _ in range(5):
            service.rpc.call("submit", a_message())
        eventually(lambda: pages.value("ended_total", status="sent") == 5, 60)
        listener = _listener(service, pages.port)

        assert listener is not None
        os.kill(listener, signal.SIGKILL)

        eventually(lambda: _listener(service, pages.port) not in {None, listener}, 60)
        eventually(lambda: (pages.value("ended_total", status="sent") or 0) >= 5, 60)


def _listening(pid: int) -> list[str]:
    """The local addresses at which *pid* listens."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    sockets = {file.readlink().name for file in Path(f"/proc/{pid}/fd").glob("*") if file.is_symlink()}
    return [line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets]


def _listener(service: Service, port: int) -> int | None:
    """The pid of the child that listens on *port*."""
    return next((pid for pid in children(service.pid) if f"0100007F:{port:04X}" in _listening(pid)), None)


def test_a_taken_port_keeps_no_mail_from_flowing_and_is_used_when_it_is_free(amqp_uri: str, tmp_path: Path) -> None:
    with socket.socket() as taken, SmtpServer() as smtp:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        pages = Pages(taken.getsockname()[1])
        config = configuration(amqp_uri, tmp_path, smtp_port=smtp.port)
        config["WEB_SERVER_ADDRESS"] = f"127.0.0.1:{pages.port}"
        with Service(config, tmp_path) as service:
            assert service.rpc.send(a_message(), timeout=20)["status"] == "sent"
            eventually(lambda: f"WEB_SERVER_ADDRESS 127.0.0.1:{pages.port} cannot be used" in service.log)

            taken.close()

            eventually(pages.are_there, 60)
            assert service.log.count("cannot be used") == 1
            assert service.stop() == 0


def test_a_client_that_hangs_or_talks_nonsense_does_no_harm(running: tuple[Service, Pages]) -> None:
    service, pages = running

    with (
        socket.create_connection(("127.0.0.1", pages.port)),
        socket.create_connection(("127.0.0.1", pages.port)) as rude,
    ):
        rude.sendall(b"\x00\xff nonsense\r\n\r\n")
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        rude.close()

        assert eventually(pages.are_there)
        assert service.rpc.send(a_message(), timeout=20)["status"] == "sent"
        assert service.stop() == 0


def test_without_an_address_nobody_listens_and_nothing_is_counted(amqp_uri: str, tmp_path: Path) -> None:
    with SmtpServer() as smtp:
        config = configuration(amqp_uri, tmp_path, smtp_port=smtp.port)
        with Service(config, tmp_path) as service:
            assert service.rpc.send(a_message(), timeout=20)["status"] == "sent"

            assert not _listening(service.pid)
