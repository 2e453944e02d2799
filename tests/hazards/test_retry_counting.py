"""Hazard 1: RabbitMQ 4 ignores the ``x-death`` of a republished message, so retries counted by it never end."""

from __future__ import annotations

from pathlib import Path

import pytest

from mail_service.local.node import Node
from tests.support.messages import a_message
from tests.support.service import Service, configuration
from tests.support.waiting import eventually

from .retries import DECORATED, Retrying, declare_levels, final_record, rows, stock

#: what retrying_service.py raises, and its retries
LIMITS = {"own": 3, "own dynamic": 4, "fixed": 2, "impatient": 3, "dynamic": 5}
DECORATED_LIMIT = 2
#: of their delays from 20 to 150 ms with jitter
LEVELS_MS = (100, 110, 150, 160, 180)


@pytest.mark.parametrize(
    ("broker", "stack"),
    [
        pytest.param("rabbitmq_3", "stock", id="3-stock"),
        pytest.param("rabbitmq_3", "ours", id="3-ours"),
        stock("1: retries never end on RabbitMQ 4", "rabbitmq_4", "stock"),
        pytest.param("rabbitmq_4", "ours", id="4-ours"),
    ],
    indirect=["broker"],
)
def test_a_message_is_attempted_once_more_than_its_backoff_allows_retries(
    broker: Node, amqp_uri: str, stack: str, tmp_path: Path
) -> None:
    expected = {name: limit + 1 for name, limit in LIMITS.items()} | {"decorated": DECORATED_LIMIT + 1}
    declare_levels(amqp_uri, LEVELS_MS)
    with Retrying(stack, amqp_uri, tmp_path) as service:
        service.give(*({"id": name, "raises": name} for name in LIMITS))
        service.give({"id": "decorated"}, queue=DECORATED)
        eventually(lambda: all(len(service.attempts(name)) >= count for name, count in expected.items()), 20)
        # when one that is given later has come to its end, those before it would have gone on if they could
        service.give({"id": "marker", "raises": "dynamic"})
        eventually(lambda: len(service.attempts("marker")) >= expected["dynamic"])

        assert {name: len(service.attempts(name)) for name in expected} == expected
        if stack == "ours":
            eventually(lambda: len(rows(service, "select 1 from mail")) == len(expected) + 1)
            stored = rows(service, "select status, error, content from mail")
            assert {status for status, _, _ in stored} == {"expired"}
            assert all("aborted after" in error for _, error, _ in stored)
            assert b'{"id": "own", "raises": "own"}' in {content for _, _, content in stored}


def test_every_schedule_of_the_service_makes_exactly_its_attempts(broker: Node, amqp_uri: str, tmp_path: Path) -> None:
    schedules = {
        "once": {"schedule": [50], "limit": 1},
        "impatient": {"schedule": [50, 100, 150], "limit": 3},
        "growing": {"first": 20, "factor": 2, "longest": 100, "limit": 5},
    }
    mailers = {
        "default": {"BACKEND": "mail_service.mailers.rehearsal.EmailBackend"},
        "own": {"BACKEND": "tests.hazards.own_backoff.EmailBackend"},
    }
    config = configuration(amqp_uri, tmp_path, schedules=schedules, mailers=mailers, backoff={"submit": "once"})

    with Service(config, tmp_path) as service:
        for name in schedules:
            service.rpc.submit(a_message(to="transient@example.org"), id=name, backoff=name)
        service.rpc.submit(a_message(), id="own", mailer="own", backoff="growing")
        records = {name: final_record(service, name) for name in [*schedules, "own"]}

    assert {name: record["status"] for name, record in records.items()} == dict.fromkeys(records, "expired")
    assert {name: record["attempts"] for name, record in records.items()} == {
        "once": 2,
        "impatient": 4,
        "growing": 6,
        "own": 3,
    }


def test_a_backoff_that_is_wrong_itself_does_not_keep_its_mail_going_round(amqp_uri: str, tmp_path: Path) -> None:
    mailers = {
        "default": {"BACKEND": "tests.hazards.own_backoff.MistakenBackend"},
        "endless": {"BACKEND": "tests.hazards.own_backoff.EndlessBackend"},
    }

    with Service(configuration(amqp_uri, tmp_path, mailers=mailers), tmp_path) as service:
        service.rpc.submit(a_message(), id="mistaken")
        service.rpc.submit(a_message(), id="endless", mailer="endless")
        mistaken = final_record(service, "mistaken")
        eventually(lambda: service.rpc.status("endless")["status"] == "deferred")
        endless = service.rpc.status("endless")

        assert (mistaken["status"], mistaken["attempts"]) == ("failed", 1)
        assert "ZeroDivisionError" in mistaken["error"]
        assert endless["attempts"] == 1
        assert endless["next_attempt_at"] > endless["submitted_at"]
