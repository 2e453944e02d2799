"""The table of all faults that are tried, and how they are: traffic, the fault, everything back, the count."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from . import brokers, processes, servers, stores
from .counting import Tally
from .ground import Ground

Break = Callable[[Ground, random.Random, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of fault."""

    #: two processes on PostgreSQL; or one on SQLite, which can be told where to die and what time it is
    where: Literal["many", "one"]
    do: Break
    #: mails per second meanwhile
    rate: float = 40
    #: seconds it takes in `make test`, or less if it is done sooner; None is only at length
    short_s: float | None = None
    #: seconds it takes at length, if not as long as the others
    long_s: float | None = None
    mailer: str | None = None
    needs_small_disk: bool = False

    @property
    def name(self) -> str:
        return self.do.__name__.replace("_", "-")

    @property
    def text(self) -> str:
        return (self.do.__doc__ or "").strip().partition("\n")[0].rstrip(".")


def storm(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Let one fault come after the other, in any order, with hardly a pause."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        fault = rng.choice([each for each in FAULTS if each.where == "many" and each.do is not storm])
        fault.do(ground, rng, rng.uniform(0, 3))
        ground.heal()


FAULTS = (
    # those that leave a process dead or a server gone are near the end, where nobody waits for what comes next
    Fault(where="one", do=processes.step_clock, short_s=0.6),
    # sqlite3's own patience is 30 s
    Fault(where="one", do=stores.lock_sqlite, short_s=0.5, long_s=40),
    Fault(where="one", do=stores.fill_disk, short_s=1, needs_small_disk=True),
    Fault(where="one", do=processes.crash_at_points, short_s=0),
    Fault(where="many", do=servers.smtp_dies, short_s=1.5),
    Fault(where="many", do=servers.smtp_hangs),
    Fault(where="many", do=servers.smtp_killed),
    Fault(where="many", do=servers.smtp_drips, short_s=0.5),
    Fault(where="many", do=servers.smtp_resets, short_s=0.5),
    Fault(where="many", do=servers.api_dies, mailer="esp", rate=15),
    Fault(where="many", do=stores.fill_postgresql, short_s=1),
    Fault(where="many", do=stores.kill_postgresql, short_s=0),
    Fault(where="many", do=brokers.memory_alarm, short_s=1),
    Fault(where="many", do=brokers.disk_alarm),
    Fault(where="many", do=brokers.reset_connections, short_s=1),
    Fault(where="many", do=brokers.half_open),
    Fault(where="many", do=brokers.freeze_connections),
    Fault(where="many", do=brokers.stop_broker),
    Fault(where="many", do=brokers.pause_broker),
    Fault(where="many", do=brokers.kill_broker),
    Fault(where="many", do=processes.exhaust_descriptors, short_s=1),
    Fault(where="many", do=processes.terminate),
    Fault(where="many", do=processes.kill_all),
    Fault(where="many", do=processes.kill_one, short_s=0),
    Fault(where="many", do=storm, long_s=120),
)
BY_NAME = {fault.name: fault for fault in FAULTS}


def suffer(ground: Ground, faults: Mapping[Fault, float], *, settle_s: float = 120) -> Tally:
    """Let *faults* happen, each for about so many seconds, under one traffic; mend everything, and count."""
    first, *others = faults
    with ground.traffic("all" if others else first.name, first.rate, mailer=first.mailer) as traffic:
        try:
            for fault, seconds in faults.items():
                fault.do(ground, random.Random(f"{ground.seed} {fault.name}"), seconds)
                ground.heal()
        finally:
            ground.heal()
        return ground.settle(traffic, settle_s)
