"""
Four providers at once: what the mail of one that is fine notices of one that refuses our key, one that asks for
patience and one that hangs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kombu import Connection

from benchmarks.figures import until
from benchmarks.servers import running
from mail_service import topology
from mail_service.client import MailClient
from mail_service.local.http_server import HttpServer, Request, Rule

#: mails of each provider before the latency is measured, and mails that it is measured with
BEFORE, SINGLE = 50, 200
EVERY_S = 0.05

YES = Rule(status=200, body={"id": "id-$number"})
PROVIDERS = {
    "fine": [YES],
    "denied": [Rule(status=401, body={"name": "invalid_api_key"})],
    "throttled": [Rule(status=429, times=10, headers={"Retry-After": "3"}, body={"name": "rate_limit_exceeded"}), YES],
    "hanging": [Rule(hang_s=60, status=200, body={"id": "late"})],
}


def seconds_of_the_fine_one(amqp_uri: str, folder: Path, mails: int, *, alone: bool) -> float:
    """From its first request to its last, with all mail queued before the service starts, one of each in turn."""
    names = ["fine"] if alone else list(PROVIDERS)
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(HttpServer(*PROVIDERS[name])) for name in PROVIDERS}
        with Connection(amqp_uri) as connection:
            topology.declare_lane(connection, "normal")
        with MailClient(amqp_uri, timeout=60) as client:
            client.submit_many([_mail(number, name) for number in range(mails) for name in names])
        with running(amqp_uri, folder, _mailers(servers)):
            requests = _await(servers["fine"], mails)
            return requests[-1].time - requests[0].time


def latency_of_the_fine_one(amqp_uri: str, folder: Path, *, alone: bool) -> list[float]:
    """
    Seconds from before each of its mails is handed in, one at a time, to its request.

    Meanwhile the others are handed as many mails, to be held or refused.
    """
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(HttpServer(*PROVIDERS[name])) for name in PROVIDERS}
        client = stack.enter_context(MailClient(amqp_uri, timeout=60))
        stack.enter_context(running(amqp_uri, folder, _mailers(servers)))
        others = [] if alone else [name for name in PROVIDERS if name != "fine"]
        client.submit_many([_mail(number, name) for number in range(BEFORE) for name in ["fine", *others]])
        _await(servers["fine"], BEFORE)
        began = {}
        for number in range(BEFORE, BEFORE + SINGLE):
            next_s = time.monotonic() + EVERY_S
            began[f"m{number}@example.org"] = time.time()
            client.submit_many([_mail(number, name) for name in ["fine", *others]])
            time.sleep(max(0.0, next_s - time.monotonic()))
        came = {request.json["to"][0]: request.time for request in _await(servers["fine"], BEFORE + SINGLE)}
        return [came[who] - moment for who, moment in began.items()]


def _await(server: HttpServer, mails: int) -> Sequence[Request]:
    return until(server.requests, lambda requests: len(requests) >= mails, f"{mails} mails")


def _mail(number: int, mailer: str) -> dict[str, Any]:
    return {
        "subject": f"Benchmark {number}",
        "body": "Text",
        "from_email": "sender@example.org",
        "to": [f"m{number}@example.org"],
        "options": {"mailer": mailer},
    }


def _mailers(servers: dict[str, HttpServer]) -> dict[str, Any]:
    mailers = {
        name: {
            "BACKEND": "anymail.backends.resend.EmailBackend",
            "OPTIONS": {"api_key": "key", "api_url": server.url, "requests_timeout": 5},
        }
        for name, server in servers.items()
    }
    return mailers | {"default": mailers["fine"]}
