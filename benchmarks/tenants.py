"""
What one tenant notices of another's burst, or urgent mail of bulk: A hands in thousands of mails at once, then B one
every 100 ms.

B's latency is from before its mail is handed in until the mail server has it. Without tenants and priorities the same
mails go in the order in which they came: that is what it is compared with.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import quantile, until
from benchmarks.servers import running, smtp_mailer
from mail_service.client import MailClient
from mail_service.local.smtp_server import Rule, SmtpServer

#: the mail server takes this long for each mail, seconds
ANSWER_S = 0.05
EVERY_S = 0.1
#: B's mails come for so long, seconds
MEANWHILE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Of B's mails, seconds."""

    median: float
    longest: float
    #: A's mails a second, from the first to the last
    rate: float = 0.0

    def __str__(self) -> str:
        return f"median {self.median:.2f} s, longest {self.longest:.2f} s"


def latencies(
    amqp_uri: str, folder: Path, burst: int, *, of_a: dict[str, Any], of_b: dict[str, Any], to_the_end: bool = True
) -> tuple[Latency, Latency]:
    """B's latency on an idle service, and beside A's burst; *of_a* and *of_b* are options of their mails."""
    with contextlib.ExitStack() as stack:
        smtp = stack.enter_context(SmtpServer(Rule(at="end", hang_s=ANSWER_S)))
        stack.enter_context(running(amqp_uri, folder, {"default": smtp_mailer(smtp.port)}))
        client = stack.enter_context(MailClient(amqp_uri, timeout=60))
        client.submit(_mail("warm-0"), **of_b)
        _await(smtp, 1)
        sent = _one_by_one(client, "idle", 2.0, of_b)
        idle = _latency(smtp, sent)
        count = len(smtp.accepted())
        client.submit_many([_mail(f"a-{number}") | {"options": of_a} for number in range(burst)])
        sent = _one_by_one(client, "b", MEANWHILE_S, of_b)
        beside = _latency(smtp, sent)
        if not to_the_end:
            return idle, beside
        _await(smtp, count + burst + len(sent))
        times = sorted(mail.time for mail in smtp.accepted() if mail.rcpt_tos[0].startswith("a-"))
        rate = burst / (times[-1] - times[0])
        return idle, Latency(median=beside.median, longest=beside.longest, rate=rate)


def _one_by_one(client: MailClient, name: str, seconds: float, options: dict[str, Any]) -> dict[str, float]:
    """When each recipient's mail was handed in."""
    sent: dict[str, float] = {}
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

    times = until(arrived, lambda times: len(times) >= len(sent), f"{len(sent)} mails")
    took = [times[who] - began for who, began in sent.items()]
    return Latency(median=quantile(took, 0.5), longest=max(took))


def _await(smtp: SmtpServer, count: int) -> None:
    until(smtp.accepted, lambda accepted: len(accepted) >= count, f"{count} mails")


def _mail(who: str) -> dict[str, Any]:
    return {
        "subject": "Benchmark",
        "body": "Text " * 200,
        "from_email": "sender@example.org",
        "to": [f"{who}@example.org"],
    }
