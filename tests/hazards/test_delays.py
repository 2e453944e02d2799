"""Hazard 6: a delay neither waits behind a longer one nor ends early; and what waits returns to where it came from."""

from __future__ import annotations

from pathlib import Path

import kombu
import pytest

from mail_service import topology
from mail_service.local.node import Node
from tests.support.amqp import connected
from tests.support.waiting import eventually

from .retries import Retrying, declare_levels, publish, queues, stock, take

LATE_MS, SOON_MS = 1500, 200


def delay(stack: str, amqp_uri: str, body: bytes, target: str, delay_ms: int) -> None:
    """Ours, or as everybody does it with kombu: one queue, and an expiration for each message."""
    if stack == "ours":
        publish(amqp_uri, target, body, exchange=topology.delay_name(topology.level_for(delay_ms)))
    else:
        publish(amqp_uri, "retry", body, expiration=str(delay_ms))


@pytest.mark.parametrize("stack", [stock("6: a message waits behind a longer delay", "stock"), "ours"])
def test_a_short_delay_does_not_wait_for_a_long_one(broker: Node, amqp_uri: str, stack: str) -> None:
    with connected(amqp_uri) as connection:
        topology.declare(connection, [topology.parked_queue(), topology.work_queue("target")])
        topology.declare_delays(connection, [topology.level_for(LATE_MS), topology.level_for(SOON_MS)])
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "target"}
        kombu.Queue("retry", durable=True, queue_arguments=arguments)(connection.channel()).declare()

    delay(stack, amqp_uri, b"late", "target", LATE_MS)
    delay(stack, amqp_uri, b"soon", "target", SOON_MS)

    assert [take(amqp_uri, "target").body for _ in range(2)] == ["soon", "late"]


@pytest.mark.parametrize(
    ("broker", "stack"),
    [
        stock("6: the jitter makes half of the delays too short", "rabbitmq_3", "stock"),
        ("rabbitmq_3", "ours"),
        ("rabbitmq_4", "ours"),
    ],
    indirect=["broker"],
)
def test_a_retry_comes_neither_early_nor_late(broker: Node, amqp_uri: str, stack: str, tmp_path: Path) -> None:
    """Never before its delay, and at most 25 % and 2 s after it."""
    delays_s = {"short": 0.3, "long": 2.0}
    declare_levels(amqp_uri, [300, 330, 2000, 2200])
    with Retrying(stack, amqp_uri, tmp_path) as service:
        names = [f"{name}-{number}" for number in range(10) for name in delays_s]
        service.give(*({"id": name, "raises": name.partition("-")[0]} for name in names))
        eventually(lambda: len(service.attempts()) >= 2 * len(names))
        attempts = {name: service.attempts(name) for name in names}

    waits = {name: second - first for name, (first, second, *_) in attempts.items()}
    early = {name: wait for name, wait in waits.items() if wait < delays_s[name.partition("-")[0]]}
    late = {name: wait for name, wait in waits.items() if wait > delays_s[name.partition("-")[0]] * 1.25 + 2}
    assert not early
    assert not late


def test_lanes_share_the_delay_levels(broker: Node, amqp_uri: str) -> None:
    """The fanout exchange leaves the routing key alone, and that is where RabbitMQ sends what has expired."""
    lanes = [topology.lane_queue_name(lane) for lane in topology.LANES]
    with connected(amqp_uri) as connection:
        topology.declare_all(connection, [], [100])
    before = queues(broker, amqp_uri)

    for lane in lanes:
        publish(amqp_uri, lane, lane.encode(), exchange=topology.delay_name(100))

    assert [take(amqp_uri, lane).body for lane in lanes] == lanes
    assert queues(broker, amqp_uri) == before
