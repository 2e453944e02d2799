"""
``make bench``: what the ledger costs, how fast mails go from the queue to an SMTP server, and what one provider
notices of others that fail, as ratios; and one tenant of another's burst.

    python -m benchmarks.run [--mails 3000] [--processes 2] [ledger] [drain] [providers] [tenants]

Figures of one machine at one moment; only what was measured side by side in one run may be compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import smtplib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import django
import yaml
from django.core.mail import EmailMultiAlternatives
from kombu import Connection

from benchmarks.providers import seconds_of_the_fine_one
from benchmarks.tenants import latencies
from mail_service import topology
from mail_service.client import MailClient
from mail_service.local.node import temporary_node
from mail_service.local.process import Child, environment
from mail_service.local.rabbitmq import installed_or_install
from mail_service.mailers.django_backend import configure_django

ROOT = Path(__file__).parents[1]
LIMIT_S = 180


def main() -> int:
    """Run what was asked for; answers the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["ledger", "drain", "providers", "tenants", []], help="default: all")
    parser.add_argument("--mails", type=int, default=3000)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    rows: list[Row] = []
    if not asked.what or "ledger" in asked.what:
        rows += bench_ledger(asked.mails)
    if not asked.what or "drain" in asked.what:
        rows += bench_drain(asked.mails, asked.processes)
    if not asked.what or "providers" in asked.what:
        rows += bench_providers(500)
    if not asked.what or "tenants" in asked.what:
        rows += bench_tenants(5000)
    show(rows)
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    what: str
    rate: float
    unit: str
    #: rate of what it is compared with
    against: float | None = None
    note: str = ""


def show(rows: list[Row]) -> None:
    """Print the table."""
    print(f"\n{'what':<58} {'per second':>11} {'ratio':>7}  note")
    for row in rows:
        ratio = f"{row.rate / row.against:.2f}" if row.against else ""
        print(f"{row.what:<58} {row.rate:>7.0f} {row.unit:<5} {ratio:>5}  {row.note}")


def bench_ledger(mails: int) -> list[Row]:
    """A claim and a record per mail, both committed with fsync: one after the other, and by many workers at once."""
    alone = _ledger_rate(mails // 5, workers=1)
    rows = [Row(what="ledger, SQLite: 1 worker, so 2 commits a mail", rate=alone, unit="mails")]
    for workers in (10, 50):
        rate = _ledger_rate(mails, workers=workers)
        what = f"ledger, SQLite: {workers} workers, commits shared"
        rows.append(Row(what=what, rate=rate, unit="mails", against=alone, note="against 1 worker"))
    return rows


def _ledger_rate(mails: int, *, workers: int) -> float:
    program = [sys.executable, "-m", "benchmarks.ledger", str(mails), str(workers)]
    done = subprocess.run(program, cwd=ROOT, check=True, capture_output=True, timeout=LIMIT_S)
    return float(done.stdout)


def bench_drain(mails: int, processes: int) -> list[Row]:
    """From the queue to the SMTP server, counted from the first mail to the last."""
    with Sink() as sink:
        loop = _loop_rate(sink, mails, prebuilt=True)
        django = _loop_rate(sink, mails, prebuilt=False)
        with tempfile.TemporaryDirectory() as folder, _node(Path(folder)) as amqp_uri:
            rate, cpu_s = _drain_rate(sink, amqp_uri, Path(folder), mails, processes)
    return [
        Row(what="smtplib loop, ready bytes, 1 connection kept", rate=loop, unit="mails"),
        Row(what="smtplib loop, Django message built for each", rate=django, unit="mails", against=loop),
        Row(
            what=f"mail_service, {processes} processes, ledger and confirms on",
            rate=rate,
            unit="mails",
            against=loop,
            note=f"{rate / django:.2f} of the Django loop; {cpu_s / mails * 1000:.2f} CPU s per 1,000 mails",
        ),
    ]


def bench_providers(mails: int) -> list[Row]:
    """How fast one provider's mail goes while three others fail."""
    rates = []
    for alone in (True, False):
        with tempfile.TemporaryDirectory() as folder, _node(Path(folder)) as amqp_uri:
            rates.append(mails / seconds_of_the_fine_one(amqp_uri, Path(folder), mails, alone=alone))
    return [
        Row(what=f"one provider, {mails} mails, 2 processes", rate=rates[0], unit="mails"),
        Row(
            what="the same beside one with 401, one with 429, one that hangs",
            rate=rates[1],
            unit="mails",
            against=rates[0],
            note="target: at least 0.5 of alone",
        ),
    ]


def bench_tenants(burst: int) -> list[Row]:
    """How long a tenant's mail takes beside another's burst, with and without turns."""
    rows = []
    for with_tenants in (False, True):
        with tempfile.TemporaryDirectory() as folder, _node(Path(folder)) as amqp_uri:
            idle, beside = latencies(amqp_uri, Path(folder), burst, 10.0, with_tenants=with_tenants)
        how = "tenants take turns" if with_tenants else "no tenants, in the order of arrival"
        note = (
            f"B's latency: median {beside.median:.2f} s, longest {beside.longest:.2f} s; "
            f"idle {idle.median:.2f} s, {idle.longest:.2f} s"
        )
        rows.append(Row(what=f"{burst} mails of A, then B's: {how}", rate=beside.rate, unit="mails", note=note))
    return rows


class Sink:
    """The SMTP server, in a process of its own."""

    def __enter__(self) -> Self:
        program = [sys.executable, "-m", "benchmarks.sink"]
        self._process = subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._line())
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    def ask(self, word: str = "count") -> dict[str, Any]:
        """How many mails came, and the seconds between the first and the last; ``reset`` begins anew."""
        assert self._process.stdin
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def await_count(self, count: int) -> float:
        """Seconds from the first mail to the last, when all have come."""
        end = time.monotonic() + LIMIT_S
        while (answer := self.ask())["count"] < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{answer['count']} of {count} mails came within {LIMIT_S} s")
            time.sleep(0.05)
        return float(answer["seconds"])

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()


def a_message(number: int) -> dict[str, Any]:
    """The 2 kB text and html of the comparison."""
    text = f"Hello {number},\n" + "This is a line of text in an ordinary mail.\n" * 15
    return {
        "subject": f"Benchmark {number}",
        "body": text,
        "html": f"<p>{text}</p>",
        "from_email": "sender@example.org",
        "to": [f"m{number}@example.org"],
    }


def _built(number: int) -> bytes:
    facts = a_message(number)
    email = EmailMultiAlternatives(facts["subject"], facts["body"], facts["from_email"], facts["to"])
    email.attach_alternative(facts["html"], "text/html")
    content: bytes = email.message().as_bytes(linesep="\r\n") if _has_linesep() else email.message().as_bytes()
    return content


def _has_linesep() -> bool:
    """Django 6's messages are Python's own, which end their lines by policy."""
    return django.VERSION < (6, 0)


def _loop_rate(sink: Sink, mails: int, *, prebuilt: bool) -> float:
    configure_django()
    ready = _built(0)
    content: Callable[[int], bytes] = (lambda _number: ready) if prebuilt else _built
    sink.ask("reset")
    with smtplib.SMTP("127.0.0.1", sink.port, local_hostname="localhost") as connection:
        for number in range(mails):
            connection.sendmail("sender@example.org", [f"m{number}@example.org"], content(number))
    return mails / sink.await_count(mails)


@contextlib.contextmanager
def _node(folder: Path) -> Iterator[str]:
    programs = installed_or_install()
    if programs is None:
        raise SystemExit("no RabbitMQ: install the package rabbitmq-server")
    with temporary_node(folder, programs) as node:
        yield node.amqp_uri


def _drain_rate(sink: Sink, amqp_uri: str, folder: Path, mails: int, processes: int) -> tuple[float, float]:
    sink.ask("reset")
    with Connection(amqp_uri) as connection:
        topology.declare_lane(connection, "normal")
    with MailClient(amqp_uri, timeout=60) as client:
        client.submit_many([a_message(number) for number in range(mails)])
    options = {"host": "127.0.0.1", "port": sink.port}
    config = {
        "AMQP_URI": amqp_uri,
        "max_workers": 20,
        "LOGGING": {"version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING"}},
        "mail": {
            "database": f"sqlite:///{folder / 'bench.db'}",
            "mailers": {"default": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": options}},
        },
    }
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(config))
    argv = [sys.executable, "-m", "mail_service.cli", "run", "--config", str(path), "--processes", str(processes)]
    service = Child(argv, env=environment(PYTHONPATH=str(ROOT)), output=folder / "service.log")
    try:
        sink.await_count(1)
        start_s = _cpu_seconds(service.pid)
        seconds = sink.await_count(mails)
        cpu_s = _cpu_seconds(service.pid) - start_s
    finally:
        service.stop(grace_s=35)
    return mails / seconds, cpu_s


def _cpu_seconds(pid: int) -> float:
    """CPU of the processes below *pid* so far."""
    ticks = 0
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
