"""
A small service for the hazards: ``STACK=stock`` runs it on nameko's and nameko-amqp-retry's own entrypoints, else on
ours.

What its handlers do stands in each message (see ``_work``); what they did, in the file ``NOTES``, a JSON object a line.
"""

from __future__ import annotations

import json
import os
import signal
import smtplib
from collections import Counter
from pathlib import Path
from typing import Any

import eventlet
from eventlet import patcher
from kombu import Queue
from nameko.extensions import DependencyProvider
from nameko_amqp_retry import Backoff

STOCK = os.environ["STACK"] == "stock"

if STOCK:
    from nameko_amqp_retry.events import event_handler
    from nameko_amqp_retry.messaging import consume
    from nameko_amqp_retry.rpc import rpc
else:
    from mail_service.amqp.retrying import consume
    from mail_service.amqp.rpc import rpc

WORK = Queue("probe", durable=True, queue_arguments={"x-queue-type": "quorum"})

#: the C function, not eventlet's: it stops the event loop
_sleep_natively = patcher.original("time").sleep


class Impatient(Backoff):
    """Three attempts, 200 ms apart."""

    schedule = (200,)
    limit = 2
    random_sigma = 0


def note(what: str, body: dict[str, Any]) -> None:
    with Path(os.environ["NOTES"]).open("a") as notes:
        notes.write(json.dumps({"what": what, "id": body.get("id")}) + "\n")


def count(what: str, body: dict[str, Any]) -> int:
    """How often *what* was noted for this message, also by a process before this one."""
    lines = Path(os.environ["NOTES"]).read_text().splitlines()
    return Counter(lines)[json.dumps({"what": what, "id": body.get("id")})]


def _work(body: dict[str, Any]) -> str:
    """Wait for the file *gate*, sleep, mail, retry so often, fail: what *body* says."""
    note("started", body)
    gate = Path(body["gate"]) if "gate" in body else None
    while gate and not gate.exists():
        # one that blocks lets nobody else run before its result is settled
        (_sleep_natively if body.get("blocks") else eventlet.sleep)(0.02)
    if "seconds" in body:
        eventlet.sleep(body["seconds"])
    if body.get("mail"):
        _mail(body["mail"])
    if count("started", body) <= body.get("retries", 0):
        raise Impatient
    if body.get("fails"):
        raise ValueError("a mistake of the handler's")
    note("done", body)
    return "done"


def _mail(recipient: str) -> None:
    try:
        with smtplib.SMTP("127.0.0.1", int(os.environ["SMTP_PORT"]), timeout=60) as server:
            server.sendmail("sender@example.org", [recipient], b"Subject: probe\r\n\r\nprobe\r\n")
    except smtplib.SMTPRecipientsRefused as exc:
        raise Impatient from exc


def _crash_once() -> None:
    crashed = Path(os.environ["CRASHED"])
    if not crashed.exists():
        crashed.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _crash_where_told() -> None:
    """What tests/support/crashing.py does to ours: the process kills itself once, at a point of the acknowledgement."""
    from nameko.messaging import QueueConsumer
    from nameko_amqp_retry import BackoffPublisher

    def crashing(method: Any, *, before: bool) -> Any:
        def crash(*args: Any, **kwargs: Any) -> Any:
            if before:
                _crash_once()
            answer = method(*args, **kwargs)
            _crash_once()
            return answer

        return crash

    if os.environ.get("CRASH_AT") in ("accepted", "committed"):
        # there is no ledger: between the mail and the acknowledgement is one point only
        QueueConsumer.ack_message = crashing(QueueConsumer.ack_message, before=True)
    elif os.environ.get("CRASH_AT") == "republished":
        BackoffPublisher.republish = crashing(BackoffPublisher.republish, before=False)


if STOCK:
    _crash_where_told()


class Store(DependencyProvider):
    """The error log as one would write it for nameko: it stores what has expired when the worker reports its result."""

    def worker_result(self, worker_ctx: Any, result: Any = None, exc_info: Any = None) -> None:
        folder = os.environ.get("STORE")
        if STOCK and folder and exc_info and isinstance(exc_info[1], Backoff.Expired):
            with (Path(folder) / "entries").open("a") as entries:
                entries.write(json.dumps(worker_ctx.args[0]) + "\n")


class Probe:
    """The doors that the hazards are about."""

    name = "probe"

    store = Store()

    @consume(WORK)
    def work(self, body: Any) -> None:
        _work(body)

    @rpc
    def ask(self, body: Any) -> str:
        return _work(body)

    @rpc
    def ping(self) -> str:
        return "pong"

    if STOCK:

        @event_handler("shop", "send_email")
        def send_email(self, body: Any) -> None:
            _work(body)


if STOCK:

    class Careless:
        """The other setting of the same entrypoint."""

        name = "careless"

        @consume(Queue("careless", durable=True, queue_arguments={"x-queue-type": "quorum"}), requeue_on_error=True)
        def work(self, body: Any) -> None:
            _work(body)
