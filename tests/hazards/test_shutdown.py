"""Hazard 21: SIGTERM finishes what is in flight, in time, and nobody is mailed twice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mail_service import topology
from mail_service.local.node import Node
from mail_service.local.smtp_server import Rule, SmtpServer
from tests.support.messages import a_message
from tests.support.postgresql import Postgresql
from tests.support.service import configuration

from .stacks import Caller, Probe, Real, both, depth, put, rows

LANE = topology.lane_queue_name("normal")
#: what the contract gives a process after SIGTERM, seconds
LONGEST_STOP_S = 30


@both("21: the connection is closed before those in flight have acknowledged")
def test_what_is_in_flight_at_sigterm_is_finished_and_acknowledged(stack: str, amqp_uri: str, tmp_path: Path) -> None:
    with Probe(stack, amqp_uri, tmp_path) as probe:
        for number in range(3):
            put(amqp_uri, "probe", {"id": number, "seconds": 3})
        probe.until(lambda: probe.noted("started") == 3)

        assert probe.stop() == 0
        assert probe.noted("done") == 3
        assert depth(amqp_uri, "probe") == 0


@both("21: an rpc request in flight is answered and delivered again")
def test_an_rpc_request_in_flight_at_sigterm_is_answered_once(stack: str, amqp_uri: str, tmp_path: Path) -> None:
    with Probe(stack, amqp_uri, tmp_path) as probe, Caller(amqp_uri) as caller:
        asked = caller.request("probe.ask", {"id": "request", "seconds": 3})
        probe.until(lambda: probe.noted("started"))

        assert probe.stop() == 0
        assert depth(amqp_uri, "rpc-probe") == 0
        assert asked in caller.order()


@pytest.mark.parametrize("processes", [None, 2])
def test_nobody_is_mailed_twice_by_a_restart(
    processes: int | None, amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    smtp_server.script(Rule(at="end", hang_s=2))
    config = configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port)
    recipients = [f"to{number}@example.org" for number in range(6)]
    with Real(config, tmp_path, processes=processes) as service, Caller(amqp_uri) as caller:
        for recipient in recipients[1:]:
            service.rpc.submit(a_message(to=[recipient]))
        asked = caller.request("mail_service.send", a_message(to=recipients[:1]))
        service.until(lambda: len(smtp_server.fired()) == 6)

        assert service.stop() == 0
        assert depth(amqp_uri, LANE) == 0
        assert asked in caller.order()

        service.start()
        smtp_server.script()
        assert service.rpc.send(a_message(to=["last@example.org"]))["status"] == "sent"
        assert sorted(mail.rcpt_tos[0] for mail in smtp_server.accepted()) == sorted([*recipients, "last@example.org"])


def test_an_attempt_that_hangs_is_cut_short_and_its_outcome_unknown(
    amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    smtp_server.script(Rule(at="end", hang_s=100))
    config = configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port)
    config["mail"]["mailers"]["default"]["OPTIONS"]["timeout"] = 90
    # fewer workers than mails: those that wait for one belong to the next process
    config["max_workers"] = 2
    with Real(config, tmp_path) as service:
        for number in range(4):
            service.rpc.submit(a_message(subject=str(number)), id=str(number))
        service.until(lambda: len(smtp_server.fired()) == 2)
        in_flight = [
            mail_id for (mail_id,) in rows(tmp_path / "mail.db", "select id from mail where owner is not null")
        ]
        began = time.monotonic()

        assert service.stop() == 0
        assert time.monotonic() - began < LONGEST_STOP_S
        known = rows(tmp_path / "mail.db", "select mail_id, diagnosis from attempt")
        assert sorted(known) == sorted((mail_id, "unknown") for mail_id in in_flight)
        assert not rows(tmp_path / "mail.db", "select id from mail where owner is not null")

        smtp_server.script()
        service.start()
        service.until(lambda: len(smtp_server.accepted()) == 4)
        assert not rows(tmp_path / "mail.db", "select id from mail where deaths > 0")


@pytest.mark.parametrize("how", ["stop", "pause"])
def test_sigterm_is_obeyed_in_time_while_the_broker_is_away(
    how: str, amqp_uri: str, tmp_path: Path, rabbitmq: Node, smtp_server: SmtpServer
) -> None:
    """Also with mails in flight whose next copies cannot be put anywhere."""
    smtp_server.script(Rule(at="rcpt", reply="450 4.2.0 later", hang_s=2, times=3))
    with Real(configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port), tmp_path) as service:
        for number in range(3):
            service.rpc.submit(a_message(subject=str(number)))
        service.until(lambda: len(smtp_server.fired()) == 3)
        getattr(rabbitmq, how)()
        began = time.monotonic()

        assert service.stop() == 0
        assert time.monotonic() - began < LONGEST_STOP_S

        rabbitmq.resume() if how == "pause" else rabbitmq.start()
        service.start()
        service.until(lambda: len(smtp_server.accepted()) == 3)


@pytest.mark.parametrize("processes", [None, 2])
def test_sigterm_is_obeyed_while_it_still_looks_for_the_broker(processes: int | None, tmp_path: Path) -> None:
    config = configuration("amqp://guest:guest@127.0.0.1:1//", tmp_path)
    with Stopped(config, tmp_path, processes=processes) as service:
        service.until(lambda: "cannot be reached" in service.log)

        assert service.stop() == 0


class Stopped(Real):
    """Started without waiting for an answer that cannot come."""

    def start(self, *, wait: bool = True) -> None:
        super().start(wait=False)


def test_sigterm_is_obeyed_while_mails_wait_for_the_database(
    amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer, postgresql: Postgresql, postgresql_url: str
) -> None:
    config = configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port, database=postgresql_url)
    with Real(config, tmp_path) as service:
        postgresql.kill9()
        for number in range(3):
            service.rpc.submit(a_message(subject=str(number)))
        service.until(lambda: depth(amqp_uri, LANE) == 0)

        assert service.stop() == 0
        assert depth(amqp_uri, LANE) == 3

        postgresql.start()
        service.start()
        service.until(lambda: len(smtp_server.accepted()) == 3)
