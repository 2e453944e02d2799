"""Traffic at full rate for a long time, and whether anything grows: memory, descriptors, connections."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .counting import Tally
from .ground import Ground
from .processes import descriptors

#: mails on their way at most: what the service cannot do yet is not handed in
BACKLOG = 1000
#: Most in batches, which cost this side least: it shares the cores with the service.
FAST_DOORS = (20, 70, 8, 2)
#: between two looks at the processes, seconds
LOOK_S = 5.0
#: Of the run, what counts as warming up: caches fill, pools open their connections.
WARM = 0.2
#: growth from the first third to the last that still counts as flat
FLAT = 1.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at all processes together."""

    memory: int
    descriptors: int
    connections: int
    #: mails that were over at this time, seconds by the monotonic clock
    ended: int
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """What a soak showed."""

    tally: Tally
    seconds: float
    #: after warming up
    looks: list[Look]

    @property
    def growth(self) -> dict[str, float]:
        """Of each quantity, the median of the last third of the looks over that of the first."""
        third = max(1, len(self.looks) // 3)
        return {
            name: median(getattr(look, name) for look in self.looks[-third:])
            / median(getattr(look, name) for look in self.looks[:third])
            for name in ("memory", "descriptors", "connections")
        }

    @property
    def rates(self) -> tuple[float, float]:
        """Mails per second in the first half of the looks, and in the last."""
        first, middle, last = self.looks[0], self.looks[len(self.looks) // 2], self.looks[-1]
        return _rate(first, middle), _rate(middle, last)

    @property
    def is_flat(self) -> bool:
        """Nothing grew, and mail flowed to the end: a soak that stands still proves nothing."""
        return all(growth <= FLAT for growth in self.growth.values()) and all(self.rates)

    @property
    def in_words(self) -> str:
        last = self.looks[-1]
        growth = ", ".join(f"{name} x{factor:.2f}" for name, factor in self.growth.items())
        flat = "flat" if self.is_flat else "NOT FLAT"
        before, after = self.rates
        return (
            f"{flat}, {before:.0f} mails a second in the first half and {after:.0f} in the last;"
            f" last third to first: {growth};"
            f" at the end {last.memory >> 20} MB, {last.descriptors} descriptors, {last.connections} connections"
        )


def _rate(first: Look, last: Look) -> float:
    return (last.ended - first.ended) / (last.time - first.time) if last is not first else 0.0


def soak(ground: Ground, seconds: float) -> Soak:
    """Hand in as much as the service brings to an end for *seconds*, and look at the processes."""
    began = time.monotonic()
    due = began + seconds * WARM
    looks = []
    ended = _Ended(ground)
    with ground.traffic(
        "soak", rate=10_000, may_go_on=lambda accepted: accepted - ended.number < BACKLOG, doors=FAST_DOORS, batch=25
    ) as traffic:
        while time.monotonic() - began < seconds:
            ended.look(traffic.name)
            if time.monotonic() > due:
                looks.append(look(ground.processes(), ended.number))
                due += LOOK_S
            time.sleep(1)
        took_s = time.monotonic() - began
        return Soak(tally=ground.settle(traffic, 120), seconds=took_s, looks=looks)


class _Ended:
    """How many mails are over, by the ledger; looked at now and then, since that takes the database some time."""

    def __init__(self, ground: Ground) -> None:
        self._rows = ground.rows
        self.number = 0

    def look(self, name: str) -> None:
        self.number, _ = self._rows.count(name)


def look(pids: list[int], ended: int) -> Look:
    """Memory is what no other process has too (proportional set size), bytes."""
    return Look(
        memory=sum(_memory(pid) for pid in pids),
        descriptors=sum(descriptors(pid) for pid in pids),
        connections=sum(_connections(pid) for pid in pids),
        ended=ended,
        time=time.monotonic(),
    )


def _memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _connections(pid: int) -> int:
    return sum(_is_socket(file) for file in Path(f"/proc/{pid}/fd").iterdir())


def _is_socket(file: Path) -> bool:
    try:
        return str(file.readlink()).startswith("socket:")
    except FileNotFoundError:
        # closed since
        return False
