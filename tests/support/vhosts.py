"""A fresh RabbitMQ virtual host for each test, so that no test sees another's queues."""

from __future__ import annotations

import base64
import itertools
import os
import urllib.request
from typing import Protocol
from urllib.parse import quote, urlsplit, urlunsplit

from mail_service.local.node import Node


class Vhosts(Protocol):
    def fresh(self) -> str:
        """Give the AMQP URI of a virtual host that nobody has used."""


class NodeVhosts:
    """
    Virtual hosts of a private node.

    rabbitmqctl takes half a second each time, so they are made in stock, and used ones deleted on the same occasion.
    """

    def __init__(self, node: Node, *, batch: int = 20) -> None:
        self._node = node
        self._batch = batch
        self._numbers = itertools.count(1)
        self._stock: list[str] = []
        self._used: list[str] = []

    def fresh(self) -> str:
        if not self._stock:
            self._refill()
        self._used.append(self._stock.pop(0))
        return self._node.uri(self._used[-1])

    def _refill(self) -> None:
        if self._used:
            self._node.delete_vhosts(*self._used)
        self._used = []
        self._stock = [f"test-{number}" for number in itertools.islice(self._numbers, self._batch)]
        self._node.add_vhosts(*self._stock)


class ManagedVhosts:
    """Virtual hosts of a broker that somebody gave us, made through its management API."""

    def __init__(self, amqp_uri: str) -> None:
        parts = urlsplit(amqp_uri)
        self._uri = parts
        self._api = os.environ.get("RABBITMQ_MANAGEMENT", f"http://{parts.hostname}:15672")
        self._user = parts.username or "guest"
        login = base64.b64encode(f"{self._user}:{parts.password or 'guest'}".encode()).decode()
        self._headers = {
            "Authorization": f"Basic {login}",
            "Content-Type": "application/json",
        }
        self._numbers = itertools.count(1)
        self._made: list[str] = []
        self._call("GET", "/api/vhosts")

    def fresh(self) -> str:
        name = f"mail-service-test-{os.getpid()}-{next(self._numbers)}"
        self._made.append(name)
        self._call("PUT", f"/api/vhosts/{name}")
        allow_all = b'{"configure": ".*", "write": ".*", "read": ".*"}'
        self._call("PUT", f"/api/permissions/{name}/{quote(self._user, safe='')}", allow_all)
        return urlunsplit(self._uri._replace(path=f"/{name}"))

    def delete_all(self) -> None:
        for name in self._made:
            self._call("DELETE", f"/api/vhosts/{name}")

    def _call(self, method: str, path: str, body: bytes | None = None) -> None:
        request = urllib.request.Request(self._api + path, method=method, data=body, headers=self._headers)
        urllib.request.urlopen(request, timeout=10).close()
