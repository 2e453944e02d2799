"""
``make bench``: how fast mails are handed in, and go from the queue to an SMTP server, beside what others would use; a
storm of refusals; what the ledger costs; what one provider notices of others that fail; and one tenant of another's
burst.

    python -m benchmarks.run [--mails 3000] [--processes 2] [--repeats 1] [--only ours stock …] [drain] [ledger] …

Figures of one machine at one moment; only what was measured side by side in one run may be compared.
"""

from __future__ import annotations

import argparse
import json
import smtplib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.compare import Drain, Storm, drain, hand_in, storm, there
from benchmarks.contenders import CONTENDERS
from benchmarks.figures import LIMIT_S, quantile
from benchmarks.messages import a_message, as_bytes
from benchmarks.providers import EVERY_S, latency_of_the_fine_one, seconds_of_the_fine_one
from benchmarks.servers import broker
from benchmarks.sink import Sink
from benchmarks.tenants import latencies
from mail_service.mailers.django_backend import configure_django

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "var" / "benchmarks.json"


def main() -> int:
    """Run what was asked for; answers the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = ["hand-in", "drain", "ledger", "providers", "tenants"]
    parser.add_argument("what", nargs="*", choices=[*everything, []], help="default: all")
    parser.add_argument("--mails", type=int, default=3000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1, help="of each drain; the median counts")
    parser.add_argument("--only", nargs="*", default=[], choices=[each.name for each in CONTENDERS])
    asked = parser.parse_args()
    benches: dict[str, Callable[[], list[Row]]] = {
        "hand-in": lambda: bench_hand_in(asked.only),
        "drain": lambda: bench_drain(asked.only, asked.mails, asked.processes, asked.repeats),
        "ledger": lambda: bench_ledger(asked.mails),
        "providers": lambda: bench_providers(500),
        "tenants": lambda: bench_tenants(5000),
    }
    missing = [each.words for each in CONTENDERS if not each.is_there]
    if missing:
        print(f"not installed, so not compared: {'; '.join(missing)} (make bench PEERS=1)")
    show([row for name in asked.what or everything for row in benches[name]()])
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


def bench_drain(names: list[str], mails: int, processes: int, repeats: int) -> list[Row]:
    """From the queue to the SMTP server, counted from the first mail to the last; ours beside everybody else."""
    with Sink() as sink, tempfile.TemporaryDirectory() as folder, broker(Path(folder)) as node:
        loop = _loop_rate(sink, mails, prebuilt=True)
        built = _loop_rate(sink, mails, prebuilt=False)
        all_found: dict[str, list[Drain]] = {}
        for number in range(repeats):
            # there and back: what drifts meanwhile is nobody's advantage
            for each in [each for each in there(names) if each.drains][:: 1 if number % 2 == 0 else -1]:
                found = drain(each, node.amqp_uri, sink, mails=mails, processes=processes)
                all_found.setdefault(each.name, []).append(found)
        drains = {name: sorted(found, key=lambda one: one.rate)[len(found) // 2] for name, found in all_found.items()}
        storms = [
            storm(each, node.amqp_uri, sink, mails=mails * 2 // 3, drained=drains[each.name], processes=processes)
            for each in there(names)
            if each.retries
        ]
    words = {each.name: each.words for each in there([])}
    rows = [
        Row(what="smtplib loop, ready bytes, 1 connection kept", rate=loop, unit="mails"),
        Row(what="smtplib loop, Django message built for each", rate=built, unit="mails", against=loop),
    ]
    for name, drained in drains.items():
        note = f"{drained.rate / built:.2f} of the Django loop; {drained.cpu:.2f} CPU s per 1,000 mails"
        what = f"drain, {processes} processes: {words[name]}"
        rows.append(Row(what=what, rate=drained.rate, unit="mails", against=loop, note=note))
    rows += [_as_row(stormed, words[stormed.contender]) for stormed in storms]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"drain": list(map(asdict, drains.values())), "storm": list(map(asdict, storms))}))
    return rows


def _as_row(found: Storm, words: str) -> Row:
    """A storm; its rate is of attempts, and the ratio is its ideal to what it took."""
    note = (
        f"{found.seconds:.1f} s, {found.seconds / found.ideal:.2f} of its ideal; "
        f"{found.cpu:.2f} CPU s per 1,000 attempts; healthy mail {found.healthy_median:.2f} s, "
        f"95 % {found.healthy_p95:.2f} s; lost {found.lost}, twice {found.doubled}"
    )
    return Row(
        what=f"storm, {found.mails} mails: {words}", rate=found.mails * 3 / found.seconds, unit="tries", note=note
    )


def bench_hand_in(names: list[str]) -> list[Row]:
    """How long a program waits that hands mail in."""
    with Sink() as sink, tempfile.TemporaryDirectory() as folder, broker(Path(folder)) as node:
        found = [(each.words, hand_in(each, node.amqp_uri, sink)) for each in there(names)]
    return [
        Row(
            what=f"hand in: {words}",
            rate=each.at_once,
            unit="mails",
            note=f"one by one: median {each.median * 1000:.2f} ms, 99 % {each.p99 * 1000:.2f} ms",
        )
        for words, each in found
    ]


def bench_providers(mails: int) -> list[Row]:
    """How fast one provider's mail goes while three others fail."""
    rates = []
    for alone in (True, False):
        with tempfile.TemporaryDirectory() as folder, broker(Path(folder)) as node:
            rates.append(mails / seconds_of_the_fine_one(node.amqp_uri, Path(folder), mails, alone=alone))
    return [
        Row(what=f"one provider, {mails} mails, 2 processes", rate=rates[0], unit="mails"),
        Row(
            what="the same beside one with 401, one with 429, one that hangs",
            rate=rates[1],
            unit="mails",
            against=rates[0],
        ),
        *_latencies(),
    ]


def _latencies() -> list[Row]:
    rows = []
    for alone in (True, False):
        with tempfile.TemporaryDirectory() as folder, broker(Path(folder)) as node:
            took = latency_of_the_fine_one(node.amqp_uri, Path(folder), alone=alone)
        note = f"latency: median {quantile(took, 0.5) * 1000:.0f} ms, 95 % {quantile(took, 0.95) * 1000:.0f} ms"
        what = "one mail at a time of the fine one, " + ("alone" if alone else "beside the others")
        rows.append(Row(what=what, rate=1 / EVERY_S, unit="mails", note=note))
    return rows


def bench_tenants(burst: int) -> list[Row]:
    """How long a tenant's mail takes beside another's burst, with and without turns."""
    rows = []
    for with_tenants in (False, True):
        with tempfile.TemporaryDirectory() as folder, broker(Path(folder)) as node:
            idle, beside = latencies(node.amqp_uri, Path(folder), burst, 10.0, with_tenants=with_tenants)
        how = "tenants take turns" if with_tenants else "no tenants, in the order of arrival"
        note = (
            f"B's latency: median {beside.median:.2f} s, longest {beside.longest:.2f} s; "
            f"idle {idle.median:.2f} s, {idle.longest:.2f} s"
        )
        rows.append(Row(what=f"{burst} mails of A, then B's: {how}", rate=beside.rate, unit="mails", note=note))
    return rows


def _loop_rate(sink: Sink, mails: int, *, prebuilt: bool) -> float:
    configure_django()
    ready = as_bytes(a_message(0))
    content: Callable[[int], bytes] = (
        (lambda _number: ready) if prebuilt else (lambda number: as_bytes(a_message(number)))
    )
    sink.ask("reset")
    with smtplib.SMTP("127.0.0.1", sink.port, local_hostname="localhost") as connection:
        for number in range(mails):
            connection.sendmail("sender@example.org", [f"m{number}@example.org"], content(number))
    return mails / sink.await_count(mails)


if __name__ == "__main__":
    sys.exit(main())
