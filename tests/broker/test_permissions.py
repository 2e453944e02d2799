"""The users and permissions of docs/security.md: each of them can do its work, and nothing else."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import amqp
import kombu
import pytest

from mail_service import topology
from mail_service.client import MailClient
from mail_service.errors import NotFound, Unavailable
from mail_service.local.node import Node
from mail_service.local.smtp_server import Rule, SmtpServer
from tests.support.messages import a_message
from tests.support.outside import dispatch
from tests.support.service import Service, configuration
from tests.support.waiting import eventually

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
PASSWORD = "a b'c"
LANE = topology.lane_queue_name("normal")


@dataclass(frozen=True, slots=True)
class House:
    """A service that runs with the permissions of the page."""

    service: Service
    uri_of: Callable[[str], str]


def commands() -> list[list[str]]:
    """What the page tells people to run, with a password for each variable."""
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = re.sub(r"\\\n\s*", "", block).splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [[re.sub(r"^\$\w+$", PASSWORD, word) for word in line[1:]] for line in words if line]


@pytest.fixture(scope="module")
def house(rabbitmq_3: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    for command in commands():
        rabbitmq_3.ctl(*command)
    folder = tmp_path_factory.mktemp("permissions")

    def uri_of(user: str) -> str:
        parts = urlsplit(rabbitmq_3.uri("mail"))
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{user}:a%20b%27c@{host}"))

    with SmtpServer(Rule(at="rcpt", to="later@*", reply="450 4.2.0 later", times=1)) as smtp:
        config = configuration(uri_of("mail_service"), folder, smtp_port=smtp.port, event_sources=["orders"])
        service = Service(config, folder)
        service.start(wait=False)
        with MailClient(uri_of("operator"), timeout=10) as operator:
            eventually(lambda: _answers(operator), 60)
        try:
            yield House(service, uri_of)
        finally:
            service.stop()
            service.__exit__()
    rabbitmq_3.delete_vhosts("mail")


def _answers(client: MailClient) -> bool:
    try:
        return bool(client.call("health", timeout=2)["broker"]["ok"])
    except Unavailable:
        return False


def _status(client: MailClient, mail_id: str) -> str:
    """Empty as long as no worker has taken the mail."""
    try:
        return str(client.status(mail_id)["status"])
    except NotFound:
        return ""


def test_the_page_is_for_whoever_has_its_environment() -> None:
    assert {command[0] for command in commands()} == {
        "add_vhost",
        "add_user",
        "set_permissions",
        "set_topic_permissions",
    }
    assert not [word for command in commands() for word in command if "$" in word and not word.startswith("^")]
    assert os.environ.get("SERVICE_PASSWORD") is None


def test_every_user_can_do_its_work(house: House) -> None:
    with MailClient(house.uri_of("shop"), timeout=10) as shop, MailClient(house.uri_of("operator")) as operator:
        submitted = shop.submit(a_message(to=["later@example.org"]))
        shop.submit_many([a_message() | {"options": {"priority": each, "id": each}} for each in topology.LANES])
        for mail_id in (submitted["id"], *topology.LANES):
            eventually(lambda mail_id=mail_id: _status(operator, mail_id) == "sent", 20)  # type: ignore[misc]
        assert operator.call("purge", 1) == 0
        assert operator.call("errors") == []

    with MailClient(house.uri_of("portal"), timeout=10) as portal:
        record = portal.send(a_message())
        assert portal.status(record["id"])["status"] == "sent"

        dispatch(house.uri_of("orders"), "orders", a_message() | {"options": {"id": "by event"}})
        eventually(lambda: _status(portal, "by event") == "sent", 20)
    assert "ACCESS_REFUSED" not in house.service.log


@pytest.mark.parametrize("method", ["purge", "errors", "error", "replay", "forget", "suppress", "cancel"])
def test_who_sends_mail_cannot_operate(method: str, house: House) -> None:
    with MailClient(house.uri_of("portal"), timeout=5) as portal, pytest.raises(Unavailable, match="refuses us"):
        portal.call(method, "x")


def test_who_may_only_dispatch_events_hands_nothing_over(house: House) -> None:
    with MailClient(house.uri_of("orders"), timeout=5) as orders, pytest.raises(Unavailable, match="refuses us"):
        orders.submit(a_message())


@pytest.mark.parametrize(
    ("user", "queue"),
    [
        (user, queue)
        for user in ("shop", "portal", "operator", "orders")
        for queue in (LANE, topology.EVENTS, topology.PARKED, "rpc-mail_service")
    ],
)
def test_nobody_else_reads_mail(user: str, queue: str, house: House) -> None:
    with kombu.Connection(house.uri_of(user), connect_timeout=10) as connection, pytest.raises(amqp.AccessRefused):
        connection.default_channel.basic_get(queue)


FORBIDDEN: dict[str, tuple[str, Callable[[amqp.Channel], object]]] = {
    "requests by a topic": ("portal", lambda channel: _listen(channel, "nameko-rpc", "mail_service.#")),
    "all requests": ("portal", lambda channel: _listen(channel, "nameko-rpc", "#")),
    "requests of operators": ("operator", lambda channel: _listen(channel, "nameko-rpc", "#")),
    "events out": ("portal", lambda channel: _listen(channel, "mail_service.events", "#")),
    "a queue of its own": ("shop", lambda channel: channel.queue_declare("mine")),
    "the end of a queue": ("shop", lambda channel: channel.queue_delete(LANE)),
    "a queue emptied": ("portal", lambda channel: channel.queue_purge(LANE)),
    "mail put where it rests": ("shop", lambda channel: _publish(channel, "mail.delay.v1.510", "nowhere")),
    "an event of somebody else's": ("shop", lambda channel: _publish(channel, "orders.events", "send_email")),
    "an event of ours": ("orders", lambda channel: _publish(channel, "mail_service.events", "email_sent")),
    "mail past the events": ("orders", lambda channel: _publish(channel, "", LANE)),
    "a reply to somebody": ("shop", lambda channel: _publish(channel, "nameko-rpc", "0" * 36)),
}


@pytest.mark.parametrize(("user", "act"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_nobody_does_what_is_not_its_work(user: str, act: Callable[[amqp.Channel], object], house: House) -> None:
    options = {"confirm_publish": True}
    with (
        kombu.Connection(house.uri_of(user), connect_timeout=10, transport_options=options) as connection,
        pytest.raises(amqp.AccessRefused),
    ):
        act(connection.default_channel)


def _listen(channel: amqp.Channel, exchange: str, pattern: str) -> None:
    queue = channel.queue_declare(f"rpc.reply-mail_service_client-{pattern}", exclusive=True).queue
    channel.queue_bind(queue, exchange, pattern)


def _publish(channel: amqp.Channel, exchange: str, routing_key: str) -> None:
    channel.basic_publish(amqp.Message(b"{}"), exchange, routing_key, timeout=10)
