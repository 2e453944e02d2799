"""Hazards 10, 16 and 15: the broker is away, resets a connection, or speaks TLS."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from mail_service import topology
from mail_service.envelope import seal
from mail_service.local.node import Node, temporary_node
from mail_service.local.process import free_port
from mail_service.local.rabbitmq import installed_or_install
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
        reset(proxy)
        gate.touch()

        probe.until(lambda: probe.noted("started") == 2 and probe.noted("done") == 2)
        probe.until(lambda: consumers(amqp_uri, "probe") == 1 and depth(amqp_uri, "probe") == 0)


def reset(proxy: Proxy) -> None:
    """End every connection with RST instead of FIN."""
    for sock in list(proxy._sockets):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    proxy.cut()
    eventually(lambda: not proxy._sockets)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsNode:
    """A RabbitMQ node that speaks TLS on a port of its own."""

    node: Node
    #: of the TLS port
    amqp_uri: str
    #: nameko's AMQP_SSL for it
    ssl: dict[str, Any]
    #: the same, trusting another authority
    wrong_ssl: dict[str, Any]


@pytest.fixture(scope="module")
def tls_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsNode]:
    programs = installed_or_install()
    if programs is None:
        pytest.skip("no RabbitMQ: install the package rabbitmq-server")
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    stranger.cert_pem.write_to_path(str(folder / "stranger.pem"))
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    port = free_port()
    settings = {
        "listeners.ssl.1": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": str(folder / "ca.pem"),
        "ssl_options.certfile": str(folder / "cert.pem"),
        "ssl_options.keyfile": str(folder / "key.pem"),
        "ssl_options.verify": "verify_none",
    }
    options = {"cert_reqs": int(ssl.CERT_REQUIRED), "server_hostname": "localhost"}
    with temporary_node(folder, programs, settings=settings) as node:
        yield TlsNode(
            node=node,
            amqp_uri=f"amqp://guest:guest@127.0.0.1:{port}//",
            ssl={"ca_certs": str(folder / "ca.pem"), **options},
            wrong_ssl={"ca_certs": str(folder / "stranger.pem"), **options},
        )


@both("15: AMQP_SSL is ignored when a message is put off")
def test_a_retry_uses_tls_where_the_consumer_does(stack: str, tls_node: TlsNode, tmp_path: Path) -> None:
    plain = tls_node.node.amqp_uri
    config = {"AMQP_SSL": tls_node.ssl}
    with Probe(stack, tls_node.amqp_uri, tmp_path, config=config, from_outside=plain) as probe:
        put(plain, "probe", {"id": stack, "retries": 2})

        probe.until(lambda: probe.noted("done", stack), 20)


def test_mail_is_accepted_and_retried_over_tls(tls_node: TlsNode, tmp_path: Path, smtp_server: SmtpServer) -> None:
    """Hazard 15: every connection of the real service, with nothing declared before."""
    smtp_server.script(Rule(at="rcpt", reply="450 4.2.0 later", times=1))
    config = configuration(tls_node.amqp_uri, tmp_path, smtp_port=smtp_server.port)
    plain = tls_node.node.amqp_uri
    with closing(Real(config | {"AMQP_SSL": tls_node.ssl}, tmp_path)) as service:
        service.start(wait=False)
        service.until(lambda: consumers(plain, LANE), 30)
        put(plain, LANE, seal(a_message(), {}, door="submit").body(), content_type="application/json")

        service.until(smtp_server.accepted)
        assert len(smtp_server.fired()) == 1


def test_a_broker_with_a_certificate_of_somebody_else_is_refused(
    tls_node: TlsNode, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    config = configuration(tls_node.amqp_uri, tmp_path, smtp_port=smtp_server.port)
    plain = tls_node.node.amqp_uri
    with closing(Real(config | {"AMQP_SSL": tls_node.wrong_ssl}, tmp_path)) as service:
        service.start(wait=False)
        service.until(lambda: service.log.count("cannot be reached (SSLCertVerificationError") >= 4, 30)

        assert consumers(plain, LANE) == 0
        assert service.stop() == 0
    assert not smtp_server.accepted()
