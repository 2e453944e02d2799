"""Hazards 10, 16 and 15: the broker is away, resets a connection, or speaks TLS."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from mail_service import topology
from mail_service.client import MailClient
from mail_service.local.node import Node
from mail_service.local.smtp_server import Rule, SmtpServer
from tests.support.messages import a_message
from tests.support.outages import Proxy
from tests.support.service import configuration
from tests.support.waiting import eventually

from .stacks import Probe, Real, both, consumers, depth, put

LANE = topology.lane_queue_name("normal")


@both("16: a retry while the broker is down ends the process, or leaves it alive and useless")
def test_a_retry_survives_a_broker_that_is_down(stack: str, amqp_uri: str, tmp_path: Path, rabbitmq: Node) -> None:
    gate = tmp_path / "gate"
    with Probe(stack, amqp_uri, tmp_path) as probe:
        put(amqp_uri, "probe", {"id": "mail", "gate": str(gate), "retries": 2})
        probe.until(lambda: probe.noted("started"))
        rabbitmq.stop()
        gate.touch()
        probe.until(lambda: "stays in probe" in probe.log or "OperationalError" in probe.log, 30)
        rabbitmq.start()

        probe.until(lambda: probe.noted("done"), 30)


@both("10: an acknowledgement on a reset socket ends the process")
def test_an_acknowledgement_on_a_reset_socket_leaves_the_process_alive(
    stack: str, amqp_uri: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with Proxy(amqp_uri) as proxy, Probe(stack, proxy.amqp_uri, tmp_path) as probe:
        # nobody notices the reset before the acknowledgement: the handler keeps the event loop from running
        put(amqp_uri, "probe", {"id": "mail", "gate": str(gate), "blocks": True})
        probe.until(lambda: probe.noted("started"))
        proxy.reset()
        eventually(lambda: proxy.is_idle)
        gate.touch()

        probe.until(lambda: probe.noted("started") == 2 and probe.noted("done") == 2)
        probe.until(lambda: consumers(amqp_uri, "probe") == 1 and depth(amqp_uri, "probe") == 0)


@pytest.mark.parametrize("moment", ["while it consumes", "while it declares"])
def test_a_connection_that_leads_nowhere_is_given_up_for_a_new_one(
    moment: str, amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    """Nobody answers and nobody hangs up, as behind a router that has forgotten us: only the heartbeats tell."""
    with Proxy(amqp_uri) as proxy, MailClient(amqp_uri) as client:
        config = configuration(proxy.amqp_uri, tmp_path, smtp_port=smtp_server.port) | {"HEARTBEAT": 4}
        with closing(Real(config, tmp_path)) as service:
            if moment == "while it declares":
                # of several thousand
                proxy.strand_after = 2500
            service.start(wait=False)
            if moment == "while it consumes":
                service.until(lambda: consumers(amqp_uri, LANE), 30)
                proxy.strand()

            client.submit(a_message(to=["ann@example.org"]))
            service.until(smtp_server.accepted, 30)


def test_sigterm_is_obeyed_while_all_connections_lead_nowhere(
    amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    with Proxy(amqp_uri) as proxy:
        config = configuration(proxy.amqp_uri, tmp_path, smtp_port=smtp_server.port)
        with Real(config, tmp_path) as service:
            service.until(lambda: consumers(amqp_uri, LANE), 30)
            proxy.strand()

            assert service.stop(timeout=30) == 0


def test_mails_that_fail_while_the_broker_is_down_are_all_retried(
    amqp_uri: str, tmp_path: Path, rabbitmq: Node, smtp_server: SmtpServer
) -> None:
    """Hazard 16, on a lane: refused once, at a moment when nobody can put the next copy anywhere."""
    recipients = [f"to{number}@example.org" for number in range(10)]
    smtp_server.script(Rule(at="rcpt", to="*", reply="450 4.2.0 later", hang_s=3, times=1))
    with Real(configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port), tmp_path) as service:
        for recipient in recipients:
            service.rpc.submit(a_message(to=[recipient]), id=recipient)
        service.until(lambda: len(smtp_server.fired()) == 10)
        rabbitmq.kill9()
        service.until(lambda: "stays in" in service.log, 30)
        rabbitmq.start()

        service.until(lambda: len(smtp_server.accepted()) >= 10, 40)
        service.until(lambda: all(service.rpc.status(each)["status"] == "sent" for each in recipients))
        assert sorted(mail.rcpt_tos[0] for mail in smtp_server.accepted()) == sorted(recipients)
        assert depth(amqp_uri, LANE) == 0
