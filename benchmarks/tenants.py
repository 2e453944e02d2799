"""
What one tenant notices of another's burst: A hands in thousands of mails at once, then B one every 100 ms.

B's latency is from before its mail is handed in until the mail server has it. Without tenants the same mails go in the
order in which they came: that is what it is compared with.
"""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mail_service.client import MailClient
from mail_service.local.process import Child, environment
from mail_service.local.smtp_server import Rule, SmtpServer

ROOT = Path(__file__).parents[1]
LIMIT_S = 180
#: the mail server takes this long for each mail, seconds
ANSWER_S = 0.05
EVERY_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Of B's mails, seconds."""

    median: float
    longest: float
    #: A's mails a second, from the first to the last
    rate: float = 0.0


def latencies(
    amqp_uri: str, folder: Path, burst: int, seconds: float, *, with_tenants: bool
) -> tuple[Latency, Latency]:
    """B's latency on an idle service, and beside A's burst."""

    def options(name: str) -> dict[str, Any]:
        return {"tenant": name} if with_tenants else {}

    with contextlib.ExitStack() as stack:
        smtp = stack.enter_context(SmtpServer(Rule(at="end", hang_s=ANSWER_S)))
        path = folder / "tenants.yaml"
        path.write_text(yaml.safe_dump(_config(amqp_uri, folder, smtp.port)))
        argv = [sys.executable, "-m", "mail_service.cli", "run", "--config", str(path), "--processes", "2"]
        service = Child(argv, env=environment(PYTHONPATH=str(ROOT)), output=folder / "tenants.log")
        client = stack.enter_context(MailClient(amqp_uri, timeout=60))
        try:
            client.submit(_mail("warm-0"), **options("b"))
            _await(smtp, 1)
            sent = _one_by_one(client, "idle", 2.0, options("b"))
            idle = _latency(smtp, sent)
            count = len(smtp.accepted())
            client.submit_many([_mail(f"a-{number}") | {"options": options("a")} for number in range(burst)])
            sent = _one_by_one(client, "b", seconds, options("b"))
            beside = _latency(smtp, sent)
            _await(smtp, count + burst + len(sent))
            times = sorted(mail.time for mail in smtp.accepted() if mail.rcpt_tos[0].startswith("a-"))
            rate = burst / (times[-1] - times[0])
            return idle, Latency(median=beside.median, longest=beside.longest, rate=rate)
        finally:
            service.stop(grace_s=35)


def _one_by_one(client: MailClient, name: str, seconds: float, options: dict[str, Any]) -> dict[str, float]:
    """When each recipient's mail was handed in."""
    sent = {}
    end = time.time() + seconds
    while time.time() < end:
        began = time.time()
        who = f"{name}-{len(sent)}"
        sent[f"{who}@example.org"] = began
        client.submit(_mail(who), **options)
        time.sleep(max(0.0, began + EVERY_S - time.time()))
    return sent


def _latency(smtp: SmtpServer, sent: dict[str, float]) -> Latency:
    def arrived() -> dict[str, float]:
        return {mail.rcpt_tos[0]: mail.time for mail in smtp.accepted() if mail.rcpt_tos[0] in sent}

    end = time.monotonic() + LIMIT_S
    while len(times := arrived()) < len(sent):
        if time.monotonic() > end:
            raise TimeoutError(f"{len(times)} of {len(sent)} mails came within {LIMIT_S} s")
        time.sleep(0.2)
    took = sorted(times[who] - began for who, began in sent.items())
    return Latency(median=took[len(took) // 2], longest=took[-1])


def _await(smtp: SmtpServer, count: int) -> None:
    end = time.monotonic() + LIMIT_S
    while len(smtp.accepted()) < count:
        if time.monotonic() > end:
            raise TimeoutError(f"fewer than {count} mails came within {LIMIT_S} s")
        time.sleep(0.2)


def _mail(who: str) -> dict[str, Any]:
    return {
        "subject": "Benchmark",
        "body": "Text " * 200,
        "from_email": "sender@example.org",
        "to": [f"{who}@example.org"],
    }


def _config(amqp_uri: str, folder: Path, port: int) -> dict[str, Any]:
    options = {"host": "127.0.0.1", "port": port}
    return {
        "AMQP_URI": amqp_uri,
        "LOGGING": {"version": 1, "disable_existing_loggers": False, "root": {"level": "CRITICAL"}},
        "mail": {
            "database": f"sqlite:///{folder / 'tenants.db'}",
            "mailers": {"default": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": options}},
        },
    }
