"""The servers that tests ask for. Each is started once, when the first test wants it, and never a system one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from mail_service.local.http_server import HttpServer
from mail_service.local.node import Node, temporary_node
from mail_service.local.rabbitmq import installed_or_install, private_node
from mail_service.local.smtp_server import SmtpServer

from .support import rabbitmq4 as debian_rabbitmq4
from .support.messages import configure_django
from .support.postgresql import NoPostgresql, Postgresql
from .support.vhosts import ManagedVhosts, NodeVhosts, Vhosts

VAR = Path(__file__).parents[1] / "var"

# once for all tests of a process, whichever are collected first
configure_django()


def _unavailable(reason: str) -> NoReturn:
    """Skip on somebody's own machine; in CI a missing server is a failure, since nobody reads the skips there."""
    if os.environ.get("CI", "").lower() in {"true", "1"}:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def rabbitmq_3() -> Iterator[Node]:
    """The private node of the RabbitMQ that this machine has; on Debian 12 that is 3.10."""
    programs = installed_or_install()
    if programs is None:
        _unavailable("no RabbitMQ: install the package rabbitmq-server")
    with private_node(VAR, programs) as node:
        yield node


@pytest.fixture(scope="session")
def rabbitmq_4() -> Iterator[Node]:
    """A private node of RabbitMQ 4."""
    try:
        programs = debian_rabbitmq4.unpacked(VAR / "rabbitmq4")
    except debian_rabbitmq4.Impossible as error:
        _unavailable(str(error))
    with temporary_node(programs.root / "nodes", programs) as node:
        yield node


@pytest.fixture(scope="session")
def rabbitmq(rabbitmq_3: Node) -> Node:
    """The node for tests that need one and do not care which."""
    return rabbitmq_3


@pytest.fixture(params=["rabbitmq_3", "rabbitmq_4"])
def broker(request: pytest.FixtureRequest) -> Node:
    """Runs the test on both versions of RabbitMQ. ``amqp_uri`` is then on this node."""
    node = request.getfixturevalue(request.param)
    assert isinstance(node, Node)
    return node


@pytest.fixture(scope="session")
def _vhosts() -> Iterator[dict[int, Vhosts]]:
    """The stock of virtual hosts of each node, by the node's ``id``; that of a given broker under 0."""
    stocks: dict[int, Vhosts] = {}
    with ExitStack() as stack:
        given = os.environ.get("AMQP_URI")
        if given:
            try:
                managed = ManagedVhosts(given)
            except OSError:
                # without a management API its queues would be shared by all tests, and with whoever uses it
                pass
            else:
                stack.callback(managed.delete_all)
                stocks[0] = managed
        yield stocks


@pytest.fixture
def amqp_uri(request: pytest.FixtureRequest, _vhosts: dict[int, Vhosts]) -> Iterator[str]:
    """
    The address of a virtual host of this test's own.

    On the node of ``broker`` if the test asks for that; else on the broker of ``AMQP_URI`` where it has a management
    API; else on ``rabbitmq``. A node that the test crashed or paused runs again afterwards.
    """
    wants_node = {"broker", "rabbitmq", "rabbitmq_3", "rabbitmq_4"} & set(request.fixturenames)
    if 0 in _vhosts and not wants_node:
        yield _vhosts[0].fresh()
        return
    node = request.getfixturevalue("broker" if "broker" in request.fixturenames else _named_node(wants_node))
    yield _vhosts.setdefault(id(node), NodeVhosts(node)).fresh()
    if node.is_alive:
        node.resume()
    else:
        node.start()


def _named_node(wanted: set[str]) -> str:
    return "rabbitmq_4" if wanted == {"rabbitmq_4"} else "rabbitmq"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    """A private PostgreSQL server."""
    try:
        server = Postgresql()
    except NoPostgresql as error:
        _unavailable(str(error))
    with server:
        yield server


@pytest.fixture
def postgresql_url(postgresql: Postgresql) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database of this test's own."""
    yield postgresql.fresh_database()
    if postgresql.is_alive:
        postgresql.resume()
    else:
        postgresql.start()


@pytest.fixture(scope="session")
def _smtp_process() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        yield server


@pytest.fixture
def smtp_server(_smtp_process: SmtpServer) -> Iterator[SmtpServer]:
    """An SMTP server that accepts everything until ``script`` says otherwise. Other settings: make an SmtpServer."""
    _smtp_process.script()
    _smtp_process.forget()
    yield _smtp_process
    if _smtp_process.is_alive:
        _smtp_process.resume()
    else:
        _smtp_process.start()


@pytest.fixture(scope="session")
def _http_process() -> Iterator[HttpServer]:
    with HttpServer() as server:
        yield server


@pytest.fixture
def http_server(_http_process: HttpServer) -> Iterator[HttpServer]:
    """An HTTP server that knows no path until ``script`` says otherwise. With TLS: make an HttpServer."""
    _http_process.script()
    _http_process.forget()
    yield _http_process
    if _http_process.is_alive:
        _http_process.resume()
    else:
        _http_process.start()
