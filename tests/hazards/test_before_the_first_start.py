"""Hazard 27: what is published before anybody has declared a queue for it is dropped, and nobody is told."""

from __future__ import annotations

import json
from pathlib import Path

import kombu
import pytest

from mail_service import topology
from mail_service.client import MailClient
from tests.support.amqp import connected
from tests.support.messages import a_message
from tests.support.service import Service, configuration
from tests.support.waiting import eventually

from .retries import stock


def a_service(stack: str, amqp_uri: str, folder: Path) -> Service:
    backend = {
        "BACKEND": "mail_service.mailers.rehearsal.EmailBackend",
        "OPTIONS": {"folder": str(folder / "mailed")},
    }
    config = configuration(amqp_uri, folder, mailers={"default": backend}, event_sources=["shop", "crm"])
    return Service(config, folder, module="mail_service.service" if stack == "ours" else "tests.hazards.stock_door")


def dispatch(amqp_uri: str, source: str = "shop", **message: object) -> None:
    """As nameko's event dispatcher of the service *source* does it."""
    with connected(amqp_uri) as connection, connection.Producer() as producer:
        exchange = kombu.Exchange(f"{source}.events", type="topic", durable=True)
        producer.publish(
            a_message(**message), exchange=exchange, routing_key="send_email", declare=[exchange], serializer="json"
        )


def mailed(folder: Path) -> list[str]:
    """The recipients so far."""
    log = folder / "mailed" / "outbox.jsonl"
    return [json.loads(line)["to"][0] for line in log.read_text().splitlines()] if log.exists() else []


def hand_over(stack: str, amqp_uri: str, to: str) -> None:
    """As each stack has it for a program that does not want to wait."""
    if stack == "stock":
        dispatch(amqp_uri, to=[to])
        return
    with MailClient(amqp_uri) as client:
        assert client.submit(a_message(to=[to]))["status"] == "queued"


def _arrives(stack: str, amqp_uri: str, folder: Path, to: str) -> bool:
    hand_over(stack, amqp_uri, to)
    return to in mailed(folder)


@pytest.mark.parametrize("stack", [stock("27: an event before its queue exists is dropped", "stock"), "ours"])
def test_a_mail_from_before_the_first_start_is_delivered(
    stack: str, amqp_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STACK", stack)
    hand_over(stack, amqp_uri, "early@example.org")

    with a_service(stack, amqp_uri, tmp_path) as service:
        # stock nameko declares its queue a moment after the service answers
        eventually(lambda: _arrives(stack, amqp_uri, tmp_path, "late@example.org"), 20, every_s=0.5)
        assert service.is_alive
        eventually(lambda: "early@example.org" in mailed(tmp_path), 1)


def test_every_priority_can_be_handed_in_before_the_first_start(amqp_uri: str, tmp_path: Path) -> None:
    with MailClient(amqp_uri) as client:
        answers = client.submit_many({**a_message(), "options": {"priority": lane}} for lane in topology.LANES)
    assert [answer["status"] for answer in answers] == ["queued"] * 3

    with a_service("ours", amqp_uri, tmp_path):
        eventually(lambda: len(mailed(tmp_path)) == 3)


def test_an_event_waits_for_the_first_start_once_its_queue_is_declared(amqp_uri: str, tmp_path: Path) -> None:
    """Whoever deploys the source first declares the queue with it."""
    with connected(amqp_uri) as connection:
        topology.declare_events(connection, ["shop"])
    dispatch(amqp_uri)

    with a_service("ours", amqp_uri, tmp_path):
        eventually(lambda: len(mailed(tmp_path)) == 1)


def test_events_of_every_source_wait_while_the_service_is_stopped(amqp_uri: str, tmp_path: Path) -> None:
    with a_service("ours", amqp_uri, tmp_path) as service:
        service.stop()
        dispatch(amqp_uri, "shop", to=["one@example.org"])
        dispatch(amqp_uri, "crm", to=["two@example.org"])
        service.start()

        eventually(lambda: sorted(mailed(tmp_path)) == ["one@example.org", "two@example.org"])
