"""Hazard 5: a classic delay queue in front of a quorum queue loses messages when the broker is killed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from mail_service import topology
from mail_service.local.node import Node
from tests.support.amqp import connected, is_on_disk
from tests.support.waiting import eventually

from .retries import WORK, Retrying, depth, publish, queues, stock, take

LANES = ("first", "second")


@pytest.mark.parametrize("stack", [stock("5: classic delay queues, which hand over at most once", "stock"), "ours"])
def test_what_waits_for_a_quorum_queue_is_handed_over_at_least_once(
    rabbitmq: Node, amqp_uri: str, stack: str, tmp_path: Path
) -> None:
    """The loss itself (0 to 8,105 of 15,000 messages) is a matter of chance; what allows it is not."""
    with Retrying(stack, amqp_uri, tmp_path) as service:
        service.give({"id": "1", "raises": "own"})
        eventually(lambda: len(service.attempts("1")) == 4)
        found = queues(rabbitmq, amqp_uri)

    assert "x-queue-type=quorum" in found[WORK]
    delays = [arguments for arguments in found.values() if "x-dead-letter-exchange" in arguments]
    assert delays
    for arguments in delays:
        assert "x-queue-type=quorum" in arguments
        assert "x-dead-letter-strategy=at-least-once" in arguments
        assert "x-overflow=reject-publish" in arguments
        assert "x-expires" not in arguments


@pytest.mark.slow
def test_kill_9_of_the_broker_while_delayed_messages_expire_loses_none(broker: Node, amqp_uri: str) -> None:
    level, number = 3000, 2000
    expected = {lane: {f"{lane}-{index}" for index in range(number)} for lane in LANES}
    _declare(broker, amqp_uri, level)

    for lane in LANES:
        publish(amqp_uri, lane, *(body.encode() for body in expected[lane]), exchange=topology.delay_name(level))
    eventually(lambda: depth(amqp_uri, LANES[0]) > 0)
    broker.kill9()
    broker.start()

    arrived: dict[str, set[str]] = {lane: set() for lane in LANES}
    eventually(lambda: _collect(amqp_uri, arrived) == 2 * number or None, 25, every_s=0.2)
    assert arrived == expected


def _declare(broker: Node, amqp_uri: str, level: int) -> None:
    """The lanes and a level, used once and safely on disk."""
    lanes = [topology.work_queue(lane) for lane in LANES]
    with connected(amqp_uri) as connection:
        topology.declare(connection, [topology.parked_queue(), *lanes])
        topology.declare_delays(connection, [level])
    for lane in LANES:
        publish(amqp_uri, lane, b"first", exchange=topology.delay_name(level))
    for queue in [*lanes, topology.delay_queue(level)]:
        eventually(partial(is_on_disk, broker, queue), 20)
    for lane in LANES:
        take(amqp_uri, lane)


def _collect(amqp_uri: str, arrived: dict[str, set[str]]) -> int:
    with connected(amqp_uri) as connection:
        channel = connection.channel()
        for lane, bodies in arrived.items():
            while message := channel.basic_get(lane):
                bodies.add(message.body)
                channel.basic_ack(message.delivery_tag)
    return sum(map(len, arrived.values()))
