"""Hazard 7: RabbitMQ 4 takes messages of up to 16 MiB, and closes the channel of whoever publishes a larger one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mail_service import topology
from mail_service.errors import InvalidMessage, MailServiceError
from mail_service.local.node import Node
from tests.support.amqp import connected
from tests.support.messages import a_message
from tests.support.service import Service, configuration
from tests.support.waiting import eventually

from .retries import declare_levels, final_record, stock

LARGEST = 16 * 1024 * 1024


def a_message_of(size: int) -> dict[str, object]:
    return a_message(body="x" * size)


def a_service(stack: str, amqp_uri: str, folder: Path) -> Service:
    mailers = {"default": {"BACKEND": "mail_service.mailers.rehearsal.EmailBackend"}}
    module = "mail_service.service" if stack == "ours" else "tests.hazards.stock_door"
    return Service(configuration(amqp_uri, folder, mailers=mailers), folder, module=module)


@pytest.fixture(autouse=True)
def _stock_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    # read by the stock service's module
    monkeypatch.setenv("STACK", "stock")


@pytest.mark.parametrize("stack", [stock("7: the caller sees the broker's error", "stock"), "ours"])
def test_a_mail_that_fits_into_the_request_but_not_into_a_queue_is_refused(
    rabbitmq_4: Node, amqp_uri: str, stack: str, tmp_path: Path
) -> None:
    with a_service(stack, amqp_uri, tmp_path) as service, pytest.raises(MailServiceError) as refused:
        service.rpc.call("submit", a_message_of(LARGEST - 500), timeout=20)

    assert isinstance(refused.value, InvalidMessage)
    assert refused.value.field == "message"
    assert "16,777,216" in str(refused.value)


def test_a_mail_that_is_too_large_disturbs_no_other(rabbitmq_4: Node, amqp_uri: str, tmp_path: Path) -> None:
    with a_service("ours", amqp_uri, tmp_path) as service, ThreadPoolExecutor(4) as threads:
        mails = [threads.submit(service.rpc.call, "submit", a_message(), id=str(number)) for number in range(40)]
        too_large = [
            threads.submit(service.rpc.call, "submit", a_message_of(LARGEST - 500), timeout=20) for _ in range(2)
        ]
        mails += [threads.submit(service.rpc.call, "submit", a_message(), id=str(number)) for number in range(40, 80)]

        assert [mail.result()["status"] for mail in mails] == ["queued"] * 80
        assert all(isinstance(each.exception(), InvalidMessage) for each in too_large)
        for number in range(80):
            assert final_record(service, str(number))["attempts"] == 1
        assert "LinkDown" not in service.log


def test_a_request_that_is_too_large_is_refused_by_the_client(rabbitmq_4: Node, amqp_uri: str, tmp_path: Path) -> None:
    with a_service("ours", amqp_uri, tmp_path) as service:
        for hand_in in (service.rpc.submit, service.rpc.send):
            with pytest.raises(InvalidMessage, match="message"):
                hand_in(a_message_of(LARGEST + 1000))

        assert service.rpc.send(a_message())["status"] == "sent"


@contextmanager
def largest_message(node: Node, size: int) -> Iterator[None]:
    """The node takes no larger messages, on channels that are opened from now on."""
    node.ctl("eval", f"application:set_env(rabbit, max_message_size, {size}).")
    try:
        yield
    finally:
        node.ctl("eval", "application:set_env(rabbit, max_message_size, 134217728).")


def test_a_broker_with_a_lower_limit_is_believed(rabbitmq_3: Node, amqp_uri: str, tmp_path: Path) -> None:
    with largest_message(rabbitmq_3, 500_000), a_service("ours", amqp_uri, tmp_path) as service:
        for _ in range(2):
            with pytest.raises(InvalidMessage, match="500,000"):
                service.rpc.call("submit", a_message_of(499_700), timeout=20)

        assert service.rpc.send(a_message())["status"] == "sent"


def test_the_largest_mail_can_be_deferred(rabbitmq_4: Node, amqp_uri: str, tmp_path: Path) -> None:
    """And be partly delivered before, whose record, 100 bytes a recipient, its later copies have no room for."""
    accepted = [f"someone-{number}@example.org" for number in range(5000)]
    message = {**a_message_of(LARGEST - 512 * 1024), "to": ["transient-2@example.org", *accepted]}
    with a_service("ours", amqp_uri, tmp_path) as service:
        service.rpc.call("submit", message, id="large", timeout=20)
        record = final_record(service, "large", 30)

    assert (record["status"], record["attempts"]) == ("sent", 3)


def test_the_largest_mail_that_a_client_hands_over_can_be_deferred(
    rabbitmq_4: Node, amqp_uri: str, tmp_path: Path
) -> None:
    """Our later copies of it are not larger, other letters than ASCII included."""
    message = {**a_message(body=""), "to": ["transient-2@example.org"]}
    message["body"] = "Ж" * ((LARGEST - 256 * 1024 - 1000) // 2)
    with a_service("ours", amqp_uri, tmp_path) as service:
        answer = service.rpc.submit(message)
        record = final_record(service, answer["id"], 30)

    assert (record["status"], record["attempts"]) == ("sent", 3)


def test_a_copy_carries_no_content_in_its_headers(rabbitmq: Node, amqp_uri: str, tmp_path: Path) -> None:
    """A header block of more than 128 kB ends the connection."""
    recipients = [f"transient-{number}@example.org" for number in range(1000)]
    declare_levels(amqp_uri, [62_000, 68_000])
    service = a_service("ours", amqp_uri, tmp_path)
    service.config["mail"]["schedules"]["quick"] = {"schedule": [60_000], "limit": 2}
    with service:
        service.rpc.submit(a_message(to=recipients), id="waits", tenant="t" * 200)
        with connected(amqp_uri) as connection:
            channel = connection.channel()
            # 60 s and the jitter are at most 64.8 s
            levels = [topology.delay_name(level) for level in (62_000, 68_000)]
            copy: Any = eventually(lambda: next(filter(None, map(channel.basic_get, levels)), None), 20)
            channel.basic_reject(copy.delivery_tag, requeue=True)

    assert len(json.dumps(copy.headers)) < 1000
    ours = {name for name in copy.headers if not name.startswith("x-")}
    assert ours <= {topology.ATTEMPTS, topology.GENERATION, topology.SUBMITTED, topology.TENANT}
