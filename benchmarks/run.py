"""
``make bench``: how fast mails are handed in, and go from the queue to an SMTP server, beside what others would use; a
storm of refusals; what a backlog, a large mail, a far server and the ledger cost; what one provider notices of others
that fail, one tenant of another's burst, and urgent mail of bulk. Below it, what was aimed at.

    python -m benchmarks.run [--mails 3000] [--processes 2] [--repeats 1] [--only ours stock …] [drain] [ledger] …

Figures of one machine at one moment; only what was measured side by side in one run may be compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import smtplib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import growth, large, mailer
from benchmarks.compare import ATTEMPTS, Drain, Storm, drain, hand_in, storm, there
from benchmarks.contenders import CONTENDERS
from benchmarks.figures import LIMIT_S, quantile
from benchmarks.messages import a_message, as_bytes
from benchmarks.providers import EVERY_S, latency_of_the_fine_one, seconds_of_the_fine_one
from benchmarks.rows import Found, Row, Target, at_least, at_most, show
from benchmarks.servers import empty_broker
from benchmarks.sink import Sink
from benchmarks.tenants import ANSWER_S, latencies
from benchmarks.tenants import EVERY_S as BESIDE_EVERY_S
from mail_service.mailers.django_backend import configure_django

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "var" / "benchmarks.json"


def main() -> int:
    """Run what was asked for; answers the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = ["hand-in", "drain", "growth", "large", "far", "ledger", "providers", "tenants", "priorities"]
    parser.add_argument("what", nargs="*", choices=[*everything, []], help="default: all")
    parser.add_argument("--mails", type=int, default=3000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1, help="of each drain; the median counts")
    parser.add_argument("--only", nargs="*", default=[], choices=[each.name for each in CONTENDERS])
    parser.add_argument("--backlogs", nargs="*", type=int, default=[1_000, 10_000, 100_000], help="of growth")
    asked = parser.parse_args()
    benches: dict[str, Callable[[], Found]] = {
        "hand-in": lambda: bench_hand_in(asked.only),
        "drain": lambda: bench_drain(asked.only, asked.mails, asked.processes, asked.repeats),
        "growth": lambda: bench_growth(asked.backlogs),
        "large": bench_large,
        "far": lambda: bench_far(100),
        "ledger": lambda: bench_ledger(asked.mails),
        "providers": lambda: bench_providers(500),
        "tenants": lambda: bench_tenants(5000),
        "priorities": lambda: bench_priorities(100_000),
    }
    missing = [each.words for each in CONTENDERS if not each.is_there]
    if missing:
        print(f"not installed, so not compared: {'; '.join(missing)} (make bench PEERS=1)")
    show([benches[name]() for name in asked.what or everything])
    return 0


def bench_ledger(mails: int) -> Found:
    """A claim and a record per mail, both committed with fsync: one after the other, and by many workers at once."""
    alone = _ledger_rate(mails // 5, workers=1)
    rows = [Row(what="ledger, SQLite: 1 worker, so 2 commits a mail", rate=alone)]
    for workers in (10, 50):
        rate = _ledger_rate(mails, workers=workers)
        what = f"ledger, SQLite: {workers} workers, commits shared"
        rows.append(Row(what=what, rate=rate, against=alone, note="against 1 worker"))
    return Found(rows)


def _ledger_rate(mails: int, *, workers: int) -> float:
    program = [sys.executable, "-m", "benchmarks.ledger", str(mails), str(workers)]
    done = subprocess.run(program, cwd=ROOT, check=True, capture_output=True, timeout=LIMIT_S)
    return float(done.stdout)


def bench_drain(names: list[str], mails: int, processes: int, repeats: int) -> Found:
    """From the queue to the SMTP server, counted from the first mail to the last; ours beside everybody else."""
    contenders = [each for each in there(names) if each.drains]
    with _place() as (amqp_uri, _, sink):
        loop = _loop_rate(sink, mails, prebuilt=True)
        built = _loop_rate(sink, mails, prebuilt=False)
        all_found: dict[str, list[Drain]] = {}
        for number in range(repeats):
            # there and back: what drifts meanwhile is nobody's advantage
            for each in contenders[:: 1 if number % 2 == 0 else -1]:
                found = drain(each, amqp_uri, sink, mails=mails, processes=processes)
                all_found.setdefault(each.name, []).append(found)
        drains = {name: sorted(found, key=lambda one: one.rate)[len(found) // 2] for name, found in all_found.items()}
        storms = [
            storm(each, amqp_uri, sink, mails=mails * 2 // 3, drained=drains[each.name], processes=processes)
            for each in contenders
            if each.retries
        ]
    words = {each.name: each.words for each in contenders}
    rows = [
        Row(what="smtplib loop, ready bytes, 1 connection kept", rate=loop),
        Row(what="smtplib loop, Django message built for each", rate=built, against=loop),
    ]
    for name, drained in drains.items():
        note = f"{drained.rate / built:.2f} of the Django loop; {drained.cpu:.2f} CPU s per 1,000 mails"
        rows.append(
            Row(what=f"drain, {processes} processes: {words[name]}", rate=drained.rate, against=loop, note=note)
        )
    rows += [_as_row(stormed, words[stormed.contender]) for stormed in storms]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"drain": list(map(asdict, drains.values())), "storm": list(map(asdict, storms))}))
    return Found(rows, [*_targets_of_drain(drains, loop), *_targets_of_storm(storms, drains)])


def _as_row(found: Storm, words: str) -> Row:
    """A storm; its rate is of attempts, and the ratio is its ideal to what it took."""
    note = (
        f"{found.seconds:.1f} s, {found.seconds / found.ideal:.2f} of its ideal; "
        f"{found.cpu:.2f} CPU s per 1,000 attempts; healthy mail {found.healthy_median:.2f} s, "
        f"95 % {found.healthy_p95:.2f} s; lost {found.lost}, twice {found.doubled}"
    )
    rate = found.mails * ATTEMPTS / found.seconds
    return Row(what=f"storm, {found.mails} mails: {words}", rate=rate, unit="tries", note=note)


def _targets_of_drain(drains: dict[str, Drain], loop: float) -> Iterator[Target]:
    ours, others = drains.get("ours"), [each for name, each in drains.items() if name != "ours"]
    if ours is None:
        return
    yield at_least("drain", ours.rate / loop, 1.0, "of the smtplib loop")
    if others:
        yield at_least("drain", ours.rate / max(each.rate for each in others), 2.0, "of the best of the others")
    if "stock" in drains:
        yield at_most("CPU of a drain", ours.cpu / drains["stock"].cpu, 0.5, "of nameko's")


def _targets_of_storm(storms: Sequence[Storm], drains: dict[str, Drain]) -> Iterator[Target]:
    for found in storms:
        if found.contender == "ours":
            yield at_most("storm", found.seconds / found.ideal, 1.1, "of its ideal")
            yield at_most("CPU of an attempt in a storm", found.cpu / drains["ours"].cpu, 2.0, "of one in a drain")
            yield at_most("healthy mail in a storm, 95 %", found.healthy_p95, 0.3, "s")


def bench_hand_in(names: list[str]) -> Found:
    """How long a program waits that hands mail in."""
    with _place() as (amqp_uri, _, sink):
        found = {each: hand_in(each, amqp_uri, sink) for each in there(names)}
    rows = [
        Row(
            what=f"hand in: {contender.words}",
            rate=each.at_once,
            note=f"one by one: median {each.median * 1000:.2f} ms, 99 % {each.p99 * 1000:.2f} ms",
        )
        for contender, each in found.items()
    ]
    targets = []
    for contender, each in found.items():
        if aims := {"ours": (0.8, 3, 10_000), "ours_django": (1, 5, 8_000)}.get(contender.name):
            targets += [
                at_most(f"one by one: {contender.words}, median", each.median * 1000, aims[0], "ms"),
                at_most(f"one by one: {contender.words}, 99 %", each.p99 * 1000, aims[1], "ms"),
                at_least(f"at once: {contender.words}", each.at_once, aims[2], "mails a second"),
            ]
    return Found(rows, targets)


def bench_growth(backlogs: Sequence[int]) -> Found:
    """What changes with the number of mails that wait."""
    depths = []
    for backlog in backlogs:
        with _place() as (amqp_uri, folder, sink):
            depths.append(growth.at(backlog, amqp_uri, folder, sink))
    rows = [
        Row(
            what=f"drain at a backlog of {each.backlog:,}, 2 processes",
            rate=each.rate,
            against=depths[0].rate,
            note=f"to hand one in: median {each.median * 1000:.2f} ms; memory of a process {each.mib:.0f} MiB",
        )
        for each in depths
    ]
    first, last = depths[0], depths[-1]
    return Found(
        rows,
        [
            at_least(f"drain at {last.backlog:,}", last.rate / first.rate, 0.85, f"of that at {first.backlog:,}"),
            at_most(f"hand in at {last.backlog:,}", last.median / first.median, 1.15, f"of that at {first.backlog:,}"),
            at_most(f"memory at {last.backlog:,}", last.mib / first.mib, 1.15, f"of that at {first.backlog:,}"),
        ],
    )


def bench_large() -> Found:
    """What mails with 10 MB of attachments take of a worker's memory."""
    with _place() as (amqp_uri, folder, sink):
        weight = large.weigh(amqp_uri, folder, sink)
    return Found(
        [],
        [
            at_most("memory for 10 MB of attachments", (weight.peak - weight.idle) / weight.message, 4, "messages"),
            at_most("the same afterwards", (weight.after - weight.idle) / weight.message, 0.5, "messages"),
        ],
    )


def bench_far(mails: int) -> Found:
    """One connection to a server that is 50 ms away, there and back."""
    with Sink() as sink, mailer.far_link(sink.port) as port:
        plain, ours = (mailer.measured(name, port, mails)[0] for name in ("ready", "canonical-1"))
    return Found(
        [
            Row(what="50 ms away: smtplib, ready bytes, 1 connection", rate=plain),
            Row(what="50 ms away: our SMTP mailer, 1 connection", rate=ours, against=plain),
        ],
        [at_least("one connection, 50 ms away", ours / plain, 3.0, "of the smtplib loop")],
    )


def bench_providers(mails: int) -> Found:
    """How fast one provider's mail goes while three others fail."""
    rates = []
    for alone in (True, False):
        with empty_broker() as (amqp_uri, folder):
            rates.append(mails / seconds_of_the_fine_one(amqp_uri, folder, mails, alone=alone))
    rows = [
        Row(what=f"one provider, {mails} mails, 2 processes", rate=rates[0]),
        Row(what="the same beside one with 401, one with 429, one that hangs", rate=rates[1], against=rates[0]),
    ]
    alone_s, beside_s = (_latency(alone=alone) for alone in (True, False))
    for words, took in (("alone", alone_s), ("beside the others", beside_s)):
        note = f"latency: median {quantile(took, 0.5) * 1000:.0f} ms, 95 % {quantile(took, 0.95) * 1000:.0f} ms"
        rows.append(Row(what=f"one mail at a time of the fine one, {words}", rate=1 / EVERY_S, note=note))
    latency = quantile(beside_s, 0.5) / quantile(alone_s, 0.5)
    return Found(
        rows,
        [
            at_least("a fine provider beside three that fail", rates[1] / rates[0], 0.5, "of its rate alone"),
            at_most("its latency, median", latency, 2.0, "of that alone"),
        ],
    )


def _latency(*, alone: bool) -> list[float]:
    with empty_broker() as (amqp_uri, folder):
        return latency_of_the_fine_one(amqp_uri, folder, alone=alone)


def bench_tenants(burst: int) -> Found:
    """How long a tenant's mail takes beside another's burst, with and without turns."""
    rows = []
    for with_tenants in (False, True):
        with empty_broker() as (amqp_uri, folder):
            of_a, of_b = ({"tenant": "a"}, {"tenant": "b"}) if with_tenants else ({}, {})
            idle, beside = latencies(amqp_uri, folder, burst, of_a=of_a, of_b=of_b)
        how = "tenants take turns" if with_tenants else "no tenants, in the order of arrival"
        note = f"B's latency: {beside}; idle: {idle}"
        rows.append(Row(what=f"{burst} mails of A, then B's: {how}", rate=beside.rate, note=note))
    return Found(rows)


def bench_priorities(burst: int) -> Found:
    """How long a mail of priority high takes that comes after a burst of bulk mail."""
    with empty_broker() as (amqp_uri, folder):
        bulk, high = {"priority": "bulk"}, {"priority": "high"}
        idle, beside = latencies(amqp_uri, folder, burst, of_a=bulk, of_b=high, to_the_end=False)
    note = f"{beside}; idle: {idle}"
    more = (beside.median - idle.median) / ANSWER_S
    return Found(
        [Row(what=f"a mail of priority high after {burst:,} of bulk", rate=1 / BESIDE_EVERY_S, note=note)],
        [at_most(f"delay of priority high by {burst:,} of bulk", more, 1.0, "attempt, in the middle")],
    )


@contextlib.contextmanager
def _place() -> Iterator[tuple[str, Path, Sink]]:
    """Give an empty broker's URI, a folder, and an SMTP server."""
    with Sink() as sink, empty_broker() as (amqp_uri, folder):
        yield amqp_uri, folder, sink


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
