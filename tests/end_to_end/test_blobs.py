"""Attachments that are too large for RabbitMQ 4: in the blob store while their mail is on its way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from mail_service.client import MailClient
from mail_service.errors import InvalidMessage, NotFound
from mail_service.local.node import Node
from mail_service.message.references import owner_of

from ..support.messages import a_message, in_base64
from ..support.waiting import eventually
from .conftest import PEOPLE, House, open_house

#: larger than RabbitMQ 4 takes
LARGE = os.urandom(15_000_000)
MAX_SIZE = 25_000_000


@pytest.fixture(scope="module")
def large_house(rabbitmq_4: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    rabbitmq_4.add_vhosts("large")
    folder = tmp_path_factory.mktemp("large")
    with ExitStack() as stack:
        yield open_house(
            stack,
            rabbitmq_4.uri("large"),
            folder,
            f"sqlite:///{folder / 'mail.db'}",
            max_size=MAX_SIZE,
            attempt_timeout=60,
            blobs={"folder": str(folder / "blobs"), "above": 500_000},
        )


@pytest.fixture
def client(large_house: House) -> Iterator[MailClient]:
    blobs = {"folder": str(_folder(large_house)), "above": 500_000}
    with MailClient(large_house.amqp_uri, timeout=20, blobs=blobs) as client:
        yield client


def _folder(house: House) -> Path:
    return Path(house.service.config["mail"]["blobs"]["folder"])


def blobs_of(house: House, mail_id: str) -> list[Path]:
    return [path for path in (_folder(house) / owner_of(mail_id)).glob("*") if path.is_file()]


def status(client: MailClient, mail_id: str) -> str:
    """That of a mail that perhaps no worker has seen yet."""
    try:
        return str(client.status(mail_id)["status"])
    except NotFound:
        return "queued"


def with_file(content: bytes, *to: str) -> dict[str, Any]:
    file = {"filename": "large.bin", "content": in_base64(content), "mimetype": "application/octet-stream"}
    return a_message(to=list(to), attachments=[file])


def received(house: House, address: str) -> bytes:
    (mail,) = house.mails_to(address)
    (attachment,) = message_from_bytes(mail.data, policy=policy.default).iter_attachments()
    content: bytes = attachment.get_content()
    return content


@pytest.mark.parametrize("hand_in", ["send", "submit"])
def test_a_client_hands_in_what_rabbitmq_would_not_take(large_house: House, client: MailClient, hand_in: str) -> None:
    once = large_house.person("once")

    answer = getattr(client, hand_in)(with_file(LARGE, once), id=f"large-{hand_in}", backoff="quick")
    eventually(lambda: status(client, answer["id"]) == "sent", 30)

    assert client.status(answer["id"])["attempts"] == 2
    assert received(large_house, once) == LARGE
    assert not blobs_of(large_house, answer["id"])


def test_a_mail_that_comes_over_rpc_leaves_its_attachments_too(large_house: House) -> None:
    """A request has to fit into RabbitMQ itself; what is accepted of it is small, for each of its copies."""
    later = large_house.person("later")
    content = LARGE[:1_000_000]

    large_house.rpc.submit(with_file(content, later), id="over-rpc", backoff="hourly")
    eventually(lambda: large_house.rpc.status("over-rpc")["status"] == "deferred")

    assert [path.read_bytes() for path in blobs_of(large_house, "over-rpc")] == [content]


def test_an_entry_of_the_error_log_keeps_its_attachments_for_a_replay(large_house: House, client: MailClient) -> None:
    refused = large_house.person("spam")
    client.submit(with_file(LARGE, refused), id="refused")
    eventually(lambda: status(client, "refused") == "failed", 30)
    entry = client.call("error", "refused")
    large_house.smtp.script()

    try:
        assert client.call("replay", "refused") == ["refused"]
        eventually(lambda: status(client, "refused") == "sent", 30)
    finally:
        large_house.smtp.script(*PEOPLE)

    assert entry["message"]["attachments"][0]["content"]["size"] == len(LARGE)
    assert received(large_house, refused) == LARGE
    assert not blobs_of(large_house, "refused")


def test_a_blob_that_is_gone_ends_its_mail_in_the_error_log(large_house: House, client: MailClient) -> None:
    ann = large_house.person()
    later = large_house.person("later")
    client.submit(with_file(LARGE[:600_000], later, ann), id="gone", backoff="hourly")
    eventually(lambda: status(client, "gone") == "deferred", 20)
    for path in blobs_of(large_house, "gone"):
        path.unlink()

    client.call("retry_now", recipient=later)

    eventually(lambda: status(client, "gone") == "partly_sent", 20)
    record = client.status("gone")
    attempts = client.call("error", "gone")["attempts"]
    assert "attachments[0].content (600,000 bytes) is not in the blob store" in record["error"]
    assert attempts[-1]["diagnosis"] == "permanent"
    assert [len(large_house.mails_to(person)) for person in (ann, later)] == [1, 0]


def test_without_a_store_a_client_is_told_so(large_house: House) -> None:
    with MailClient(large_house.amqp_uri, timeout=20) as client, pytest.raises(InvalidMessage, match=r"mail\.blobs"):
        client.submit(with_file(LARGE, large_house.person()))


def test_large_mail_does_not_pile_up_in_a_worker(large_house: House, client: MailClient) -> None:
    """Twelve mails at once, of which a worker that reads all of them needs 700 MB."""
    people = [large_house.person() for _ in range(12)]
    for number, person in enumerate(people):
        client.submit(with_file(LARGE, person), id=f"pile-{number}")

    eventually(lambda: all(status(client, f"pile-{number}") == "sent" for number in range(12)), 60)

    assert _peak_mb(large_house.service.pid) < 500


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))
