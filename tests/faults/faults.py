"""The table of all faults that are tried, and how one is: traffic, the fault, everything back, the count."""

from __future__ import annotations

import random
from collections.abc import Callable
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
    #: seconds it takes in `make test`; None is only at length
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


FAULTS = (
    Fault(where="many", do=processes.kill_one, short_s=2),
    Fault(where="many", do=processes.kill_all, short_s=2),
    Fault(where="one", do=processes.crash_at_points, short_s=0),
    Fault(where="many", do=processes.terminate, short_s=0),
    Fault(where="many", do=processes.exhaust_descriptors, short_s=3),
    Fault(where="one", do=processes.step_clock, short_s=2),
    Fault(where="many", do=brokers.kill_broker, short_s=0),
    Fault(where="many", do=brokers.stop_broker),
    Fault(where="many", do=brokers.pause_broker),
    Fault(where="many", do=brokers.memory_alarm, short_s=2),
    Fault(where="many", do=brokers.disk_alarm),
    Fault(where="many", do=brokers.reset_connections, short_s=2),
    Fault(where="many", do=brokers.half_open, short_s=0),
    Fault(where="many", do=brokers.freeze_connections),
    Fault(where="many", do=stores.kill_postgresql, short_s=0),
    Fault(where="many", do=stores.fill_postgresql, short_s=2),
    # sqlite3's own patience is 30 s
    Fault(where="one", do=stores.lock_sqlite, short_s=1, long_s=40),
    Fault(where="one", do=stores.fill_disk, short_s=2, needs_small_disk=True),
    Fault(where="many", do=servers.smtp_dies, short_s=2),
    Fault(where="many", do=servers.smtp_hangs),
    Fault(where="many", do=servers.smtp_killed),
    Fault(where="many", do=servers.smtp_drips, short_s=1),
    Fault(where="many", do=servers.smtp_resets),
    Fault(where="many", do=servers.api_dies, short_s=2, mailer="esp", rate=15),
)
BY_NAME = {fault.name: fault for fault in FAULTS}


def suffer(ground: Ground, fault: Fault, seconds: float, *, settle_s: float = 120) -> Tally:
    """Let *fault* happen for about *seconds* under traffic, mend it, and count."""
    rng = random.Random(f"{ground.seed} {fault.name}")
    with ground.traffic(fault.name, fault.rate, mailer=fault.mailer) as traffic:
        try:
            fault.do(ground, rng, seconds)
        finally:
            ground.heal()
        return ground.settle(traffic, settle_s)
