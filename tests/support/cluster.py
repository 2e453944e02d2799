"""Three RabbitMQ nodes in one cluster on one machine: each with an address, a folder and data of its own."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mail_service.local.node import Installation, Neighbourhood, Node
from mail_service.local.process import free_port

SIZE = 3


@dataclass(frozen=True, slots=True)
class Cluster:
    """The nodes, of which any may be killed and started again."""

    nodes: list[Node]

    @property
    def uri(self) -> str:
        """All of them, to be tried in turn."""
        return ";".join(node.uri("/") for node in self.nodes)

    def uri_from(self, first: Node) -> str:
        """The same, *first* in front."""
        return ";".join(node.uri("/") for node in sorted(self.nodes, key=lambda node: node is not first))

    def leader(self, queue: str) -> Node:
        """The node that leads a quorum queue. Asked at any that runs."""
        name = self._ask(queue, "element(2, amqqueue:get_pid(Q))")
        return next(node for node in self.nodes if node.name == name)

    def replicas(self, queue: str) -> int:
        """How many nodes have a quorum queue."""
        return int(self._ask(queue, "length(maps:get(nodes, amqqueue:get_type_state(Q)))"))

    def _ask(self, queue: str, expression: str) -> str:
        # list_queues would have the other nodes connect to rabbitmqctl, which listens to nobody
        find = f'{{ok, Q}} = rabbit_amqqueue:lookup({{resource, <<"/">>, queue, <<"{queue}">>}})'
        return self._alive.ctl("eval", f"{find}, {expression}.").strip("'")

    @property
    def _alive(self) -> Node:
        return next(node for node in self.nodes if node.is_alive)


@contextmanager
def a_cluster(programs: Installation) -> Iterator[Cluster]:
    """Run three nodes that know each other, and stop and remove them."""
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=programs.root / "tmp"))
    hood = Neighbourhood(distribution_port=free_port(), cookie=secrets.token_hex(16))
    hosts = [f"127.0.0.{number}" for number in range(1, SIZE + 1)]
    nodes = [
        Node(folder / host, programs, name=f"mail_service@{host}", host=host, neighbourhood=hood) for host in hosts
    ]
    try:
        with ThreadPoolExecutor(SIZE) as threads:
            list(threads.map(Node.start, nodes))
        for node in nodes[1:]:
            _join(node, nodes[0])
        yield Cluster(nodes)
    finally:
        for node in nodes:
            node.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _join(node: Node, other: Node) -> None:
    """By one command: rabbitmqctl's own way takes three, of a second each."""
    node.ctl("eval", f"rabbit:stop(), ok = rabbit_mnesia:join_cluster('{other.name}', disc), rabbit:start().")
