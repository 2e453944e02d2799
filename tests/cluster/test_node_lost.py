"""
A node of a RabbitMQ cluster is lost while mail flows: nothing of it is lost, and all goes on by another node.

Takes a minute and three nodes, so it runs by ``make cluster``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from mail_service import topology
from mail_service.client import MailClient
from mail_service.errors import MailServiceError, NotFound
from mail_service.local.node import Installation
from mail_service.local.rabbitmq import installed_or_install
from mail_service.local.smtp_server import Rule, SmtpServer

from ..support.cluster import Cluster, a_cluster
from ..support.messages import a_message
from ..support.service import Service, configuration
from ..support.waiting import eventually

pytestmark = [
    pytest.mark.skipif(os.environ.get("CLUSTER") != "1", reason="slow: runs by `make cluster`"),
    pytest.mark.timeout(400),
]

NORMAL = topology.lane_queue_name("normal")
#: they are refused at first, so that mail waits in delay levels when the node goes
LATER = Rule(at="rcpt", to="once*", reply="450 4.2.0 Come back once", times=1)


@pytest.fixture(scope="module")
def programs() -> Installation:
    found = installed_or_install()
    if found is None:
        pytest.skip("no RabbitMQ: install the package rabbitmq-server")
    return found


@pytest.fixture(scope="module")
def cluster(programs: Installation) -> Iterator[Cluster]:
    with a_cluster(programs) as cluster:
        yield cluster


@pytest.fixture
def smtp() -> Iterator[SmtpServer]:
    with SmtpServer(LATER) as server:
        yield server


def submitted(client: MailClient, number: int) -> str:
    """Hand in a mail, as often as it takes: with the same id it stays one."""
    name = "once" if number % 5 == 0 else "ann"
    mail_id = f"{number}"

    def hand_in() -> bool:
        try:
            client.submit(a_message(to=[f"{name}-{number}@example.org"]), id=mail_id)
        except MailServiceError:
            return False
        return True

    eventually(hand_in, 60)
    return mail_id


def status_of(client: MailClient, mail_id: str) -> str:
    try:
        return str(client.status(mail_id)["status"])
    except NotFound:
        return "queued"


def test_nothing_is_lost_with_a_node(cluster: Cluster, smtp: SmtpServer, tmp_path: Path) -> None:
    config = configuration(
        cluster.uri, tmp_path, smtp_port=smtp.port, schedules={"quick": {"schedule": [3000], "limit": 10}}
    )
    with Service(config, tmp_path, processes=2) as service, ExitStack() as stack:
        assert cluster.replicas(NORMAL) == 3
        leader = cluster.leader(NORMAL)
        # all of it begins at the node that is lost
        client = stack.enter_context(MailClient(cluster.uri_from(leader), timeout=30))
        assert client.call("health")["broker"]["ok"]

        with ThreadPoolExecutor(5) as threads:
            waiting = threads.submit(client.send, a_message(to=["once-waiting@example.org"]), id="waiting")
            eventually(lambda: status_of(client, "waiting") == "deferred")
            first = list(threads.map(lambda number: submitted(client, number), range(100)))
            flowing = [threads.submit(submitted, client, number) for number in range(100, 300)]
            eventually(lambda: any(each.done() for each in flowing))
            leader.kill9()
            ids = ["waiting", *first, *(each.result() for each in flowing)]
            assert waiting.result()["status"] == "sent"

        assert client.send(a_message(to=["after@example.org"]), timeout=30)["status"] == "sent"
        eventually(lambda: all(status_of(client, mail_id) == "sent" for mail_id in ids), 60)
        taken = Counter(taken.rcpt_tos[0] for taken in smtp.accepted())
        assert len(taken) == 302
        unknown = [mail_id for mail_id in ids if _had_an_unknown_outcome(client, mail_id)]
        assert sum(taken.values()) - len(taken) <= len(unknown)
        assert cluster.leader(NORMAL) is not leader

        leader.start()
        eventually(lambda: "running" in leader.ctl("eval", "case rabbit:is_running() of true -> running end."), 30)
        assert client.send(a_message(to=["again@example.org"]), timeout=30)["status"] == "sent"
        assert service.is_alive


def _had_an_unknown_outcome(client: MailClient, mail_id: str) -> bool:
    timeline = client.call("explain", mail_id)["timeline"]
    return any("unknown" in entry["text"] for entry in timeline)
