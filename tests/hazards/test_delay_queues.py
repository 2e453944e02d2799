"""Hazards 2 to 4 and 8: how many delay queues there are, who declares them when, and that they stay."""

from __future__ import annotations

import subprocess
from itertools import chain
from pathlib import Path

import kombu
import pytest

from mail_service import topology
from mail_service.local.node import Node
from tests.support.amqp import connected
from tests.support.service import Service, configuration
from tests.support.waiting import eventually

from .retries import (
    DECORATED,
    WORK,
    Retrying,
    begun,
    declarations,
    declare_levels,
    depth,
    queues,
    set_clock,
    stock,
    take,
)

#: nameko-amqp-retry leases a delay queue for its delay and five seconds
LEASE_MS = 5000


def delay_queues(node: Node, amqp_uri: str) -> dict[str, str]:
    """The arguments of every queue that is neither a work queue nor for what failed."""
    return {
        name: arguments
        for name, arguments in queues(node, amqp_uri).items()
        if name not in (WORK, DECORATED, topology.PARKED)
    }


@pytest.mark.parametrize("stack", [stock("2: one queue for each distinct expiration", "stock"), "ours"])
def test_many_retries_with_the_default_jitter_need_few_queues(
    rabbitmq: Node, amqp_uri: str, stack: str, tmp_path: Path
) -> None:
    """
    400 delays of 1000 ms with a sigma of 100 ms lie within 600 and 1400 ms, but for one in some thousands: eleven
    levels, from 620 to 1500, where the stock package has some thirty queues for them alone. What comes back meanwhile
    needs the levels from 1600 to 2700.
    """
    with Retrying(stack, amqp_uri, tmp_path) as service:
        service.give(*({"id": str(number), "raises": "default"} for number in range(400)))
        eventually(lambda: len(service.attempts()) >= 400, 60)
        eventually(lambda: depth(amqp_uri, WORK) == 0 and delay_queues(rabbitmq, amqp_uri), 60)

        found = delay_queues(rabbitmq, amqp_uri)

    assert len(found) <= 20


@pytest.mark.parametrize(
    "stack", [stock("3: declares exchange, queue and binding at every republish", "stock"), "ours"]
)
def test_a_republish_declares_nothing(rabbitmq: Node, amqp_uri: str, stack: str, tmp_path: Path) -> None:
    declare_levels(amqp_uri, [100])
    with Retrying(stack, amqp_uri, tmp_path) as service:
        # each process looks for a level when it first uses it
        service.give({"id": "first", "raises": "fixed"})
        eventually(lambda: len(service.attempts()) == 3, 20)
        before = declarations(rabbitmq)
        service.give(*({"id": f"then {number}", "raises": "fixed"} for number in range(100)))
        eventually(lambda: len(service.attempts()) == 303, 20)

        declared = declarations(rabbitmq) - before

    # one connection is the test's own
    assert declared <= 5


def test_no_queue_of_the_service_expires_or_drops_what_is_returned(
    rabbitmq: Node, amqp_uri: str, tmp_path: Path
) -> None:
    with Service(configuration(amqp_uri, tmp_path, event_sources=["shop"]), tmp_path):
        ours = {name: text for name, text in queues(rabbitmq, amqp_uri).items() if name.startswith("mail.")}

    assert {topology.PARKED, topology.EVENTS, *chain(*map(topology.queue_names, topology.LANES))} <= ours.keys()
    for name, arguments in ours.items():
        assert "x-queue-type=quorum" in arguments, name
        assert "x-expires" not in arguments, name
        if not name.startswith("mail.delay."):
            assert "x-delivery-limit=" in arguments, name
            assert "x-delivery-limit=-" not in arguments, name


def alarm(node: Node) -> None:
    node.ctl("eval", "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}).")
    eventually(lambda: "memory" in node.ctl("eval", "rabbit_alarm:get_alarms()."))


def no_alarm(node: Node) -> None:
    node.ctl("eval", "rabbit_alarm:clear_alarm({resource_limit, memory, node()}).")


@pytest.mark.slow
@pytest.mark.parametrize("stack", [stock("4: the queue expires before the publish lands", "stock"), "ours"])
def test_a_republish_that_a_memory_alarm_held_up_arrives(
    rabbitmq: Node, amqp_uri: str, stack: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    declare_levels(amqp_uri, [100])
    with Retrying(stack, amqp_uri, tmp_path) as service:
        service.give({"id": "blocked", "raises": "fixed", "gate": str(gate)})
        eventually(lambda: service.attempts("blocked"))
        # nobody can publish during the alarm, and to set it takes a second
        set_clock(amqp_uri, LEASE_MS + 3000)
        alarm(rabbitmq)
        try:
            gate.touch()
            # longer than a lease that begins now
            take(amqp_uri, "clock")
        finally:
            no_alarm(rabbitmq)

        eventually(lambda: len(service.attempts("blocked")) >= 3 or not service.is_alive)
        assert service.is_alive
        assert len(service.attempts("blocked")) == 3


def _declare_otherwise(amqp_uri: str, name: str) -> None:
    """As a classic queue, with whatever exchange it would be bound to."""
    with connected(amqp_uri) as connection:
        kombu.Queue(name, durable=True)(connection.channel()).declare()


def _ends(service: Service, *, within_s: float = 15) -> int:
    try:
        return service.process.wait(within_s)
    except subprocess.TimeoutExpired:
        raise AssertionError("it runs on") from None


@pytest.mark.parametrize(
    ("queue", "command"),
    [
        (topology.lane_queue_name("bulk"), "nameko run"),
        (topology.PARKED, "nameko run"),
        (topology.EVENTS, "nameko run"),
        (topology.delay_name(100), "nameko run"),
        (topology.lane_queue_name("high"), "mail-service run"),
    ],
)
def test_a_queue_with_other_arguments_ends_the_start_and_is_named(
    rabbitmq: Node, amqp_uri: str, queue: str, command: str, tmp_path: Path
) -> None:
    _declare_otherwise(amqp_uri, queue)
    config = configuration(amqp_uri, tmp_path, event_sources=["shop"])
    service = Service(config, tmp_path, processes=2 if command == "mail-service run" else None)

    with begun(service):
        status = _ends(service)

    assert status != 0
    assert f"queue '{queue}' exists in this virtual host with other arguments" in service.log
    assert "delete it" in service.log


@pytest.mark.parametrize("stack", [stock("8: it tries again for ever", "stock"), "ours"])
def test_a_users_own_queue_with_other_arguments_ends_the_start_and_is_named(
    rabbitmq: Node, amqp_uri: str, stack: str, tmp_path: Path
) -> None:
    _declare_otherwise(amqp_uri, WORK)
    service = Retrying(stack, amqp_uri, tmp_path)

    with begun(service):
        eventually(lambda: not service.is_alive or "PRECONDITION_FAILED" in service.log, 15)
        status = _ends(service, within_s=3)

    assert status != 0
    assert f"queue '{WORK}' exists in this virtual host with other arguments" in service.log
