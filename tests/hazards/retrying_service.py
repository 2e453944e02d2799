"""
A small service that retries: ``STACK=stock`` runs it on nameko-amqp-retry's entrypoint, anything else on ours.

A message says in ``raises`` which Backoff its handler raises, each time. Each attempt is a line of the file
``attempts`` in the folder that the process runs in.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import eventlet
from kombu import Queue
from nameko_amqp_retry import Backoff, entrypoint_retry

STOCK = os.environ["STACK"] == "stock"

if STOCK:
    from nameko_amqp_retry.messaging import consume
else:
    from mail_service.amqp.retrying import consume
    from mail_service.delivery.backoff import backoff_class
    from mail_service.settings import DynamicSchedule, FixedSchedule

WORK = Queue("hazard", durable=True, queue_arguments={"x-queue-type": "quorum"})
DECORATED = Queue("hazard.decorated", durable=True, queue_arguments={"x-queue-type": "quorum"})


class Own(Backoff):
    """As a user writes it."""

    schedule = (50, 100)
    limit = 3
    random_sigma = 0


class OwnDynamic(Backoff):
    """The same with a formula."""

    limit = 4
    random_sigma = 0

    @classmethod
    def get_next_schedule_item(cls, index: int) -> int:
        return min(150, 25 << index)


def fixed(limit: int, *schedule_ms: int) -> type[Backoff]:
    """What ``mail.schedules`` calls ``schedule`` and ``limit``; for the stock packages the nearest they have."""
    if STOCK:
        return type("Fixed", (Backoff,), {"schedule": schedule_ms, "limit": limit, "random_sigma": 0})
    return backoff_class(FixedSchedule(name="fixed", schedule_ms=schedule_ms, limit=limit))


def jittered(delay_ms: int) -> type[Backoff]:
    """One retry, with the jitter that each stack has by default."""
    return type("Jittered", (Backoff,), {"schedule": (delay_ms,), "limit": 1}) if STOCK else fixed(1, delay_ms)


def dynamic(limit: int, first_ms: int, factor: float, longest_ms: int) -> type[Backoff]:
    """What ``mail.schedules`` calls ``first``, ``factor`` and ``longest``."""
    if STOCK:
        item = classmethod(lambda _cls, index: int(min(longest_ms, first_ms * factor**index)))
        return type("Dynamic", (Backoff,), {"get_next_schedule_item": item, "limit": limit, "random_sigma": 0})
    return backoff_class(
        DynamicSchedule(name="dynamic", first_ms=first_ms, factor=factor, longest_ms=longest_ms, limit=limit)
    )


BACKOFFS: dict[str, type[Backoff]] = {
    "own": Own,
    "own dynamic": OwnDynamic,
    "fixed": fixed(2, 50),
    "impatient": fixed(3, 50, 100, 150),
    "dynamic": dynamic(5, 20, 2, 100),
    # the packages' defaults: 1, 2, 3, 5 … seconds with a sigma of 100 ms
    "default": Backoff,
    "long": jittered(2000),
    "short": jittered(300),
}


class Hazard:
    """Retries whatever comes."""

    name = "hazard"

    @consume(WORK)
    def work(self, body: dict[str, Any]) -> None:
        attempted(body)
        while "gate" in body and not Path(body["gate"]).exists():
            eventlet.sleep(0.02)
        raise BACKOFFS[body["raises"]]

    @consume(DECORATED)
    @entrypoint_retry(retry_for=OSError, limit=2, schedule=(50,), random_sigma=0)
    def decorated(self, body: dict[str, Any]) -> None:
        attempted(body)
        raise OSError("not now")


def attempted(body: dict[str, Any]) -> None:
    with Path("attempts").open("a") as file:
        file.write(json.dumps({"id": body["id"], "at": time.time()}) + "\n")
