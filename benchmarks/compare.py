"""
Ours and the others side by side: the same mails, broker, SMTP server and machine, one contender after the other.

A drain is counted from the first mail at the SMTP server to the last; CPU is that of the workers meanwhile. In a storm
the server refuses each mail twice, 2 s apart at least, while a client hands in a healthy mail twice a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.contenders.place import Place
from benchmarks.figures import LIMIT_S, quantile
from benchmarks.sink import Sink
from mail_service.local.process import Child

ROOT = Path(__file__).parents[1]
#: attempts of each mail of a storm, and seconds between two of them
ATTEMPTS = 3
APART_S = 2.0
HEALTHY_EVERY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """How fast what waits is delivered."""

    contender: str
    mails: int
    rate: float
    #: of the workers, seconds for 1,000 mails
    cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HandIn:
    """How long a program waits that hands in one mail, seconds; and mails a second, all at once."""

    contender: str
    median: float
    p99: float
    at_once: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """What becomes of many mails that are refused twice, and of healthy ones meanwhile."""

    contender: str
    mails: int
    #: until all are delivered, and what the waits and as many attempts as in its drain would take, seconds
    seconds: float
    ideal: float
    #: of the workers, seconds for 1,000 attempts
    cpu: float
    lost: int
    doubled: int
    #: from being handed in to being delivered, seconds
    healthy_median: float
    healthy_p95: float


def there(names: list[str]) -> list[Contender]:
    """Those of *names*, or all, whose package is installed."""
    return [each for each in CONTENDERS if each.is_there and (not names or each.name in names)]


def hand_in(contender: Contender, amqp_uri: str, sink: Sink, *, count: int = 1000) -> HandIn:
    """One by one, then all at once."""
    with _placed(contender, amqp_uri, sink, 1) as (place, _):
        seconds = json.loads(_client(place, "timed", str(count)))
        at_once_s = float(_client(place, "fill", "m", str(5 * count)))
    return HandIn(
        contender=contender.name,
        median=quantile(seconds, 0.5),
        p99=quantile(seconds, 0.99),
        at_once=5 * count / at_once_s,
    )


def drain(contender: Contender, amqp_uri: str, sink: Sink, *, mails: int, processes: int) -> Drain:
    """All mails wait before the workers start."""
    with _placed(contender, amqp_uri, sink, processes) as (place, commands):
        _client(place, "fill", "m", str(mails))
        sink.ask("reset")
        with _Workers(place, commands) as workers:
            sink.until("count", 1)
            start_s, began = workers.cpu_s(), sink.ask()["count"]
            while sink.ask()["count"] < mails and workers.are_alive:
                workers.cpu_s()
                time.sleep(0.02)
            seconds = sink.await_count(mails)
            cpu_s = workers.cpu_s() - start_s
    return Drain(contender=contender.name, mails=mails, rate=mails / seconds, cpu=cpu_s / (mails - began) * 1000)


def storm(contender: Contender, amqp_uri: str, sink: Sink, *, mails: int, drained: Drain, processes: int) -> Storm:
    """Every mail is refused twice; healthy ones come in between."""
    with _placed(contender, amqp_uri, sink, processes) as (place, commands):
        _client(place, "fill", "s", str(mails))
        sink.ask(f"reset {ATTEMPTS - 1}")
        with _client_that_stays(place) as hand_one_in, _Workers(place, commands) as workers:
            sink.until("begun", 1e-9)
            start_s = workers.cpu_s()
            began: dict[str, float] = {}
            end = time.monotonic() + LIMIT_S
            while sink.ask()["count"] < mails + len(began) or not began:
                if time.monotonic() > end:
                    break
                if sink.ask("details")["taken"] < mails:
                    name = f"h{len(began)}"
                    began[name] = hand_one_in(name)
                time.sleep(HEALTHY_EVERY_S)
            # twice is once too often: a moment for those who would come again
            time.sleep(1.0)
            cpu_s, found = workers.cpu_s() - start_s, sink.ask("details")
    took = [found["healthy"][name] - moment for name, moment in began.items() if name in found["healthy"]]
    return Storm(
        contender=contender.name,
        mails=mails,
        seconds=found["stormed"] - found["begun"],
        ideal=(ATTEMPTS - 1) * APART_S + ATTEMPTS * mails / drained.rate,
        cpu=cpu_s / (ATTEMPTS * mails) * 1000,
        lost=mails - found["taken"],
        doubled=found["doubled"],
        healthy_median=quantile(took, 0.5),
        healthy_p95=quantile(took, 0.95),
    )


@contextlib.contextmanager
def _placed(contender: Contender, amqp_uri: str, sink: Sink, processes: int) -> Iterator[tuple[Place, list[list[str]]]]:
    """Give an empty place, and the commands that deliver from it."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place(
            contender=contender.name,
            amqp_uri=amqp_uri,
            smtp_port=sink.port,
            folder=Path(folder),
            processes=processes,
        )
        yield place, json.loads(_client(place, "prepare"))


def _client(place: Place, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.contenders", *arguments],
        cwd=ROOT,
        env=place.environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{place.contender} {' '.join(arguments)}: {done.stderr[-3000:]}")
    return done.stdout


@contextlib.contextmanager
def _client_that_stays(place: Place) -> Iterator[Callable[[str], float]]:
    """Give a function that hands one mail in and answers when it began."""
    command = [sys.executable, "-m", "benchmarks.contenders", "each"]
    environment = place.environment()
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        to, back = process.stdin, process.stdout
        assert to
        assert back
        back.readline()

        def one(name: str) -> float:
            to.write(f"{name}\n")
            to.flush()
            return float(back.readline())

        try:
            yield one
        finally:
            to.close()


class _Workers:
    """A contender's workers, and the CPU that they and the processes below them took so far."""

    def __init__(self, place: Place, commands: list[list[str]]) -> None:
        self._place = place
        self._commands = commands
        self._most_s = 0.0

    def __enter__(self) -> Self:
        env, folder = self._place.environment(), self._place.folder
        self._children = [
            Child(command, env=env, output=folder / f"worker-{number}.log")
            for number, command in enumerate(self._commands)
        ]
        return self

    def __exit__(self, *_exc: object) -> None:
        for child in self._children:
            child.stop(grace_s=35)

    @property
    def are_alive(self) -> bool:
        return any(child.is_alive for child in self._children)

    def cpu_s(self) -> float:
        """Seconds; what has ended keeps what it had when it was last seen."""
        self._most_s = max(self._most_s, _cpu_seconds({child.pid for child in self._children}))
        return self._most_s


def _cpu_seconds(roots: set[int]) -> float:
    """CPU of these processes and all below them, with those of their children that have ended."""
    parents, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            pid = int(path.parent.name)
            parents[pid] = int(fields[1])
            ticks[pid] = sum(map(int, fields[11:15]))
    family = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks.get(pid, 0) for pid in family) / os.sysconf("SC_CLK_TCK")
