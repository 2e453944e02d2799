from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail_service import topology
from mail_service.delivery.backoff import JITTER

LONGEST_MS = topology.LEVELS_MS[-1]


def test_levels_are_ascending_and_go_from_100_ms_to_a_week() -> None:
    assert topology.LEVELS_MS[0] == 100
    assert LONGEST_MS == 620_000_000  # 7 days and 4 hours
    assert all(lower < higher for lower, higher in pairwise(topology.LEVELS_MS))


def test_there_are_no_more_levels_than_a_broker_bears() -> None:
    """Six decades of 24 levels from 100 ms, and 20 levels up to 620 000 s."""
    assert len(topology.LEVELS_MS) == 6 * 24 + 20


def test_neighbours_and_the_jitter_stay_within_the_promised_quarter() -> None:
    widest = max(higher / lower for lower, higher in pairwise(topology.LEVELS_MS))

    assert widest == 15 / 13
    assert widest * (1 + JITTER) <= 1.25


@pytest.mark.parametrize(
    ("delay_ms", "level"),
    [
        (0, 100),
        (1, 100),
        (100, 100),
        (100.5, 110),
        (101, 110),
        (1000, 1000),
        (1001, 1100),
        (10_000, 10_000),
        (130_001, 150_000),
        (10_800_000, 11_000_000),
        (604_800_000, 620_000_000),
        (620_000_000, 620_000_000),
        (620_000_001, 620_000_000),
        (31_536_000_000, 620_000_000),
        (float("inf"), 620_000_000),
    ],
)
def test_level_for(delay_ms: float, level: int) -> None:
    assert topology.level_for(delay_ms) == level


@given(st.integers(min_value=100, max_value=LONGEST_MS))
def test_a_level_is_never_shorter_than_its_delay_and_at_most_15_4_percent_longer(delay_ms: int) -> None:
    level = topology.level_for(delay_ms)

    assert delay_ms <= level <= delay_ms * 15 / 13
    assert level in topology.LEVELS_MS


def arguments_of(queue: Any) -> dict[str, object]:
    return dict(queue.queue_arguments)


@pytest.mark.parametrize("lane", topology.LANES)
@pytest.mark.parametrize(
    ("kind", "name"), [(topology.lane_queue, "mail.send.v1"), (topology.again_queue, "mail.again.v1")]
)
def test_a_lane_parks_what_is_returned_too_often(lane: str, kind: Callable[[str], Any], name: str) -> None:
    queue = kind(lane)

    assert queue.name == f"{name}.{lane}"
    assert queue.durable
    assert arguments_of(queue) == {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "mail.parked.v1",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": topology.DELIVERY_LIMIT,
    }


def test_a_delay_level_returns_a_message_to_where_its_routing_key_says() -> None:
    queue = topology.delay_queue(1500)

    assert queue.name == queue.exchange.name == "mail.delay.v1.1500"
    assert queue.exchange.type == "fanout"
    assert queue.durable
    assert queue.exchange.durable
    assert arguments_of(queue) == {
        "x-queue-type": "quorum",
        "x-message-ttl": 1500,
        "x-dead-letter-exchange": "",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def test_the_parked_queue_keeps_what_it_has() -> None:
    arguments = arguments_of(topology.parked_queue())

    assert arguments == {"x-queue-type": "quorum", "x-delivery-limit": topology.NO_DELIVERY_LIMIT}
    # -1 makes RabbitMQ 3.10 drop a message at its first return
    assert topology.NO_DELIVERY_LIMIT > 0


def test_names_carry_their_version() -> None:
    """A queue's arguments can never be changed, so the next ones need another name."""
    names = [name for lane in topology.LANES for name in topology.queue_names(lane)]
    names += [topology.PARKED, topology.EVENTS, topology.delay_name(100)]

    assert all(f".{topology.VERSION}" in name for name in names)
    assert len(set(names)) == len(names)
