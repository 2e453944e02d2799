"""Four providers at once: one refuses our key, one asks for patience, one hangs, one is fine and must not notice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mail_service.local.http_server import HttpServer, Rule

from ..support.postgresql import Postgresql
from ..support.waiting import eventually
from .conftest import House, open_house
from .test_holds import changes_of
from .test_rpc_methods import mail

COUNT = 150
YES = Rule(status=200, body={"id": "id-$number"})
#: how each behaves at first
AT_FIRST = {
    "fine": [YES],
    "denied": [Rule(status=401, body={"statusCode": 401, "name": "invalid_api_key", "message": "API key is invalid"})],
    "throttled": [
        Rule(
            status=429,
            times=15,
            headers={"Retry-After": "3"},
            body={"statusCode": 429, "name": "rate_limit_exceeded", "message": "Too many requests"},
        ),
        YES,
    ],
    "hanging": [Rule(hang_s=60, status=200, body={"id": "late"})],
}


@pytest.fixture
def servers() -> Iterator[dict[str, HttpServer]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(HttpServer(*rules)) for name, rules in AT_FIRST.items()}


@pytest.fixture
def house(servers: dict[str, HttpServer], amqp_uri: str, postgresql: Postgresql, tmp_path: Path) -> Iterator[House]:
    mailers: dict[str, Any] = {
        name: {
            "BACKEND": "anymail.backends.resend.EmailBackend",
            "OPTIONS": {"api_key": "key", "api_url": server.url, "requests_timeout": 2},
        }
        for name, server in servers.items()
    }
    patient = {"quick": {"schedule": [500, 1000, 2000], "limit": 0, "max_age": 600_000}}
    with ExitStack() as stack:
        yield open_house(
            stack,
            amqp_uri,
            tmp_path,
            postgresql.fresh_database(),
            processes=2,
            more_mailers=mailers,
            schedules=patient,
            hold_probe=2,
        )


def taken(server: HttpServer) -> Counter[str]:
    """How often each recipient's mail was accepted: a repeat with the same key is no second mail."""
    keys = {
        (request.json["to"][0], request.headers["idempotency-key"])
        for request in server.requests()
        if request.status == 200
    }
    return Counter(recipient for recipient, _ in keys)


def _have_all(server: HttpServer, everybody: Counter[str]) -> bool:
    return taken(server) == everybody


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_fine_one_does_not_wait_and_the_others_lose_and_double_nothing(
    house: House, servers: dict[str, HttpServer]
) -> None:
    people = {name: [f"{name}-{number}@example.org" for number in range(COUNT)] for name in servers}
    # one of each in turn, so that every mailer's mail stands in front of every other's
    batch = [
        mail(people[name][number], options={"id": people[name][number], "mailer": name})
        for number in range(COUNT)
        for name in servers
    ]
    for start in range(0, len(batch), 200):
        house.rpc.submit_many(batch[start : start + 200])

    eventually(lambda: len(taken(servers["fine"])) == COUNT, 60)
    statuses = Counter(
        house.rpc.status(each)["status"] for name in ("denied", "hanging") for each in people[name][-10:]
    )
    assert not statuses.keys() & {"sent", "failed", "expired"}
    eventually(lambda: ("mailer_held", "configuration") in changes_of(house.events, "denied"))
    eventually(lambda: ("mailer_held", "throttled") in changes_of(house.events, "throttled"))
    eventually(lambda: ("mailer_held", "down") in changes_of(house.events, "hanging"), 30)
    assert len(servers["denied"].requests()) < COUNT / 2

    servers["denied"].script(YES)
    servers["hanging"].script(YES)

    for name, server in servers.items():
        everybody = Counter(people[name])
        eventually(partial(_have_all, server, everybody), 90, every_s=0.2)
        for each in people[name]:
            house.becomes(each, "sent", timeout_s=60)
    assert house.rpc.errors() == []
    assert {
        house.rpc.status(each)["attempts"] for name in ("fine", "denied", "throttled") for each in people[name]
    } == {1}
