"""Hazard 9: what is returned to its queue again and again, because it kills whoever takes it, ends in the error log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mail_service import topology
from mail_service.client import MailClient
from mail_service.delivery.settling import MOST_DEATHS
from mail_service.local.node import Node
from tests.support.amqp import connected, quorum_queue
from tests.support.messages import a_message
from tests.support.service import Service, configuration
from tests.support.waiting import eventually

from .retries import depth, final_record, publish, stock

MAILERS = {"default": {"BACKEND": "mail_service.mailers.rehearsal.EmailBackend"}}


def returned(amqp_uri: str, queue: str, most: int) -> int:
    """How often a message can be taken and returned before its queue no longer gives it, at most *most* times."""
    with connected(amqp_uri) as connection:
        channel = connection.channel()
        for count in range(most):
            message = channel.basic_get(queue) or _wait_a_little(channel, queue)
            if message is None:
                return count
            channel.basic_reject(message.delivery_tag, requeue=True)
    return most


def _wait_a_little(channel: Any, queue: str) -> Any:
    """A message that was just returned may not be back yet."""
    try:
        return eventually(lambda: channel.basic_get(queue), 1)
    except AssertionError:
        return None


@pytest.mark.parametrize(
    "stack", [stock("9: dropped in silence by RabbitMQ 4, returned for ever by 3", "stock"), "ours"]
)
def test_a_message_that_is_returned_too_often_is_parked(broker: Node, amqp_uri: str, stack: str) -> None:
    queue = topology.lane_queue("normal") if stack == "ours" else quorum_queue("mails")
    with connected(amqp_uri) as connection:
        topology.declare(connection, [topology.parked_queue(), queue])
    publish(amqp_uri, queue.name, b"poison")

    times = returned(amqp_uri, queue.name, topology.DELIVERY_LIMIT + 50)

    assert eventually(lambda: depth(amqp_uri, topology.PARKED) == 1, 2)
    assert times == topology.DELIVERY_LIMIT + 1
    assert depth(amqp_uri, queue.name) == 0


@pytest.mark.parametrize("what", ["a mail", "no mail"])
def test_what_was_parked_is_in_the_error_log(rabbitmq_4: Node, amqp_uri: str, what: str, tmp_path: Path) -> None:
    queue = topology.lane_queue_name("normal")
    with MailClient(amqp_uri) as client:
        client.submit(a_message(subject="poison"), id="poison")
    if what == "no mail":
        with connected(amqp_uri) as connection:
            connection.channel().queue_purge(queue)
        publish(amqp_uri, queue, b"\xff poison")
    assert returned(amqp_uri, queue, topology.DELIVERY_LIMIT + 50) == topology.DELIVERY_LIMIT + 1

    with Service(configuration(amqp_uri, tmp_path, mailers=MAILERS), tmp_path) as service:
        entry = eventually(lambda: service.rpc.call("errors"), 15)[0]
        whole = service.rpc.call("error", entry["id"])

        assert entry["status"] == "failed"
        assert f"returned to its queue {topology.DELIVERY_LIMIT} times" in entry["error"]
        if what == "a mail":
            assert entry["id"] == "poison"
            assert entry["recipients"]["ann@example.org"]["status"] == "failed"
            assert whole["message"]["subject"] == "poison"
            # the reason may be gone: it can be sent after all
            service.rpc.call("replay", "poison")
            assert final_record(service, "poison")["status"] == "sent"
        else:
            assert whole["message"] == {"raw": "/yBwb2lzb24="}
        assert depth(amqp_uri, topology.PARKED) == 0


@pytest.mark.slow
def test_a_mail_that_kills_the_process_is_given_up_and_those_that_die_with_it_are_delivered(
    rabbitmq: Node, amqp_uri: str, tmp_path: Path
) -> None:
    schedules = {"quick": {"schedule": [100], "limit": 20}}
    backend = {"BACKEND": "mail_service.mailers.rehearsal.EmailBackend", "OPTIONS": {"seconds": 0.4}}
    config = configuration(amqp_uri, tmp_path, mailers={"default": backend}, schedules=schedules)
    with MailClient(amqp_uri) as client:
        # in flight while the process ends, and due again at the same time as the one that ends it
        for number in range(6):
            client.submit(a_message(to="hang@example.org"), id=f"beside it {number}")
        client.submit(a_message(to="crash@example.org"), id="killer")

    with Service(config, tmp_path, processes=2) as service:
        killer = final_record(service, "killer", 60)
        service.rpc.submit(a_message(), id="after it")
        others = [final_record(service, f"beside it {number}", 20) for number in range(6)]
        others.append(final_record(service, "after it"))
        entry = service.rpc.call("error", "killer", timeout=20)

        assert killer["status"] == "failed"
        assert f"the process ended {MOST_DEATHS} times" in killer["error"]
        assert [attempt["diagnosis"] for attempt in entry["attempts"]] == [
            *["unknown"] * (MOST_DEATHS - 1),
            "permanent",
        ]
        assert {record["status"] for record in others} == {"sent"}
        assert service.log.count("is started again") == MOST_DEATHS
