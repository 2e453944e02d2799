"""A broker whose certificate is not in order is not spoken to, neither by the service nor by clients."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mail_service import tls, topology
from mail_service.client import MailClient
from mail_service.errors import ConfigurationError, Unavailable
from mail_service.local.node import Node, temporary_node
from mail_service.local.process import free_port
from mail_service.local.rabbitmq import installed_or_install
from mail_service.local.smtp_server import Rule, SmtpServer
from tests.hazards.stacks import Probe, Real, both, consumers, depth, put
from tests.support.messages import a_message
from tests.support.service import configuration
from tests.support.waiting import eventually

from .certificates import WRONG, Certificates

LANE = topology.lane_queue_name("normal")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsNode:
    """A RabbitMQ node that speaks TLS on a port of its own."""

    node: Node
    certificates: Certificates
    #: of the TLS port
    amqp_uri: str

    @property
    def plain(self) -> str:
        return self.node.amqp_uri

    @property
    def ssl(self) -> dict[str, Any]:
        """AMQP_SSL as people write it: the authority and nothing else."""
        return {"ca_certs": str(self.certificates.ca)}

    def show(self, kind: str) -> None:
        """From now on the node has this certificate; Erlang remembers files for two minutes by itself."""
        if self.certificates.kind != kind:
            self.certificates.use(kind)
            self.node.ctl("eval", "ssl:clear_pem_cache().")


@pytest.fixture(scope="module")
def tls_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsNode]:
    programs = installed_or_install()
    if programs is None:
        pytest.skip("no RabbitMQ: install the package rabbitmq-server")
    folder = tmp_path_factory.mktemp("tls")
    certificates = Certificates(folder)
    port = free_port()
    settings = {
        "listeners.ssl.1": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": str(certificates.ca),
        "ssl_options.certfile": str(certificates.certificate),
        "ssl_options.keyfile": str(certificates.key),
        "ssl_options.verify": "verify_none",
    }
    with temporary_node(folder, programs, settings=settings) as node:
        yield TlsNode(node=node, certificates=certificates, amqp_uri=f"amqp://guest:guest@127.0.0.1:{port}//")


@both("15: AMQP_SSL is ignored when a message is put off")
def test_a_retry_uses_tls_where_the_consumer_does(stack: str, tls_node: TlsNode, tmp_path: Path) -> None:
    # stock nameko knows no name of a certificate's
    tls_node.show("right")
    config = {"AMQP_SSL": {**tls_node.ssl, "cert_reqs": int(ssl.CERT_REQUIRED), "server_hostname": "localhost"}}
    with Probe(stack, tls_node.amqp_uri, tmp_path, config=config, from_outside=tls_node.plain) as probe:
        put(tls_node.plain, "probe", {"id": stack, "retries": 2})

        probe.until(lambda: probe.noted("done", stack), 20)


def test_the_service_waits_for_a_broker_with_a_certificate_in_order(
    tls_node: TlsNode, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    """And then delivers and retries over TLS; the mail that waited is the one that was there before."""
    smtp_server.script(Rule(at="rcpt", reply="450 4.2.0 later", times=1))
    with MailClient(tls_node.plain) as client:
        client.submit(a_message())
    config = configuration(tls_node.amqp_uri, tmp_path, smtp_port=smtp_server.port)
    tls_node.show("expired")
    with closing(Real(config | {"AMQP_SSL": tls_node.ssl}, tmp_path)) as service:
        service.start(wait=False)
        for kind, why in WRONG.items():
            tls_node.show(kind)
            refused = re.compile(rf"cannot be reached \(SSLCertVerificationError: .*({why})", re.IGNORECASE)
            service.until(lambda refused=refused: refused.search(service.log), 30)  # type: ignore[misc]
            assert consumers(tls_node.plain, LANE) == 0
        assert depth(tls_node.plain, LANE) == 1
        assert not smtp_server.accepted()

        tls_node.show("right")

        service.until(smtp_server.accepted, 30)
        assert len(smtp_server.fired()) == 1
        assert "guest:guest" not in service.log


@pytest.mark.parametrize(("kind", "why"), WRONG.items(), ids=WRONG)
def test_a_client_hands_nothing_to_a_broker_whose_certificate_is_not_in_order(
    kind: str, why: str, tls_node: TlsNode
) -> None:
    before = depth(tls_node.plain, LANE)
    tls_node.show(kind)

    for scheme in ("amqp", "amqps"):
        uri = tls_node.amqp_uri.replace("amqp://", f"{scheme}://")
        with MailClient(uri, ssl=tls_node.ssl, timeout=5) as client:
            for hand_in in (client.submit, client.send):
                with pytest.raises(Unavailable, match=rf"(?i)over TLS: .*({why})"):
                    hand_in(a_message())

    assert depth(tls_node.plain, LANE) == before


@pytest.mark.parametrize("options", [{}, {"server_hostname": "localhost"}, {"cert_reqs": "CERT_REQUIRED"}])
def test_a_client_hands_mail_to_a_broker_whose_certificate_is_in_order(
    options: dict[str, Any], tls_node: TlsNode
) -> None:
    tls_node.show("right")
    before = depth(tls_node.plain, LANE)

    for host in ("127.0.0.1", "localhost"):
        with MailClient(tls_node.amqp_uri.replace("127.0.0.1", host), ssl=tls_node.ssl | options) as client:
            client.submit(a_message())

    assert eventually(lambda: depth(tls_node.plain, LANE) == before + 2)


def test_each_of_several_brokers_has_to_show_its_own_name(tls_node: TlsNode) -> None:
    """The second address of a URI is looked for in the second one's certificate."""
    from mail_service.amqp import connecting

    tls_node.show("right")
    nowhere = "amqp://guest:guest@nowhere.invalid:5671//"
    config = {"AMQP_URI": f"{nowhere};{tls_node.amqp_uri}", "AMQP_SSL": tls_node.ssl}
    with connecting.connection(config) as connection:
        # it begins with any of them
        assert connection.ssl["server_hostname"] == connection.hostname
        connection.ensure_connection(max_retries=3, interval_start=0)

        assert connection.ssl["server_hostname"] == "127.0.0.1"
        assert connection.connected


OPTIONS: dict[str, tuple[Any, bool, Any]] = {
    "nothing": (None, False, False),
    "false": (False, False, False),
    "true": (True, False, {"server_hostname": "mq.example"}),
    "by the URL": (None, True, {"server_hostname": "mq.example"}),
    "an authority": ({"ca_certs": "ca"}, False, {"ca_certs": "ca", "server_hostname": "mq.example"}),
    "a name": ({"server_hostname": "other"}, False, {"server_hostname": "other"}),
    "no check": ({"cert_reqs": "CERT_NONE"}, False, {"cert_reqs": ssl.CERT_NONE}),
    "a number, as in nameko's examples": ({"cert_reqs": 0}, True, {"cert_reqs": ssl.CERT_NONE}),
    "a context": ({"context": {"check_hostname": False}}, False, {"context": {"check_hostname": False}}),
}


@pytest.mark.parametrize(("given", "is_asked_for", "options"), OPTIONS.values(), ids=OPTIONS)
def test_the_name_in_the_certificate_is_that_of_the_host_unless_somebody_says_otherwise(
    given: Any, is_asked_for: bool, options: Any
) -> None:
    assert tls.options(given, "mq.example", is_asked_for=is_asked_for) == options


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("yes", "AMQP_SSL: expected true"),
        ({"ca_cert": "x"}, "AMQP_SSL.ca_cert: unknown key"),
        ({"ca_certs": "/nowhere.pem"}, "AMQP_SSL.ca_certs: expected the path"),
        ({"ca_certs": "9" * 5000}, "AMQP_SSL.ca_certs: expected the path"),
        ({"cert_reqs": "CERT_MAYBE"}, "AMQP_SSL.cert_reqs: expected one of CERT_NONE"),
        ({"cert_reqs": [1]}, "AMQP_SSL.cert_reqs: expected one of CERT_NONE"),
        ({"server_hostname": 5}, "AMQP_SSL.server_hostname: expected the name"),
        ({5: 5}, "AMQP_SSL.5: unknown key"),
    ],
)
def test_a_mistake_in_the_tls_options_is_told_before_anybody_connects(given: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        MailClient("amqp://localhost", ssl=given)
