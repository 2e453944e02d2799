"""What a backlog costs: how fast it drains, how long handing in takes beside it, and the memory of a worker."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from kombu import Connection

from benchmarks.figures import quantile
from benchmarks.messages import a_message
from benchmarks.servers import memory_mib, running, smtp_mailer
from benchmarks.sink import Sink
from mail_service import topology
from mail_service.client import MailClient

#: mails handed in at once, since a million would not fit into memory
_AT_ONCE = 5_000
#: mails handed in one by one
_SINGLE = 500
#: of the drain, what is not counted, since processes are warming up, and what is
_WARM, _COUNTED = 300, 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """What was measured at one backlog."""

    backlog: int
    #: mails a second
    rate: float
    #: to hand one in, seconds
    median: float
    #: of the larger worker
    mib: float


def at(backlog: int, amqp_uri: str, folder: Path, sink: Sink) -> Depth:
    """Queue *backlog* mails at an empty broker, hand a few in one by one, and drain for a while."""
    with Connection(amqp_uri) as connection:
        topology.declare_lane(connection, "normal")
    with MailClient(amqp_uri, timeout=60) as client:
        for start in range(_SINGLE, backlog, _AT_ONCE):
            client.submit_many([a_message(f"m{number}") for number in range(start, min(start + _AT_ONCE, backlog))])
        took = [_seconds(client, number) for number in range(_SINGLE)]
    sink.ask("reset")
    with running(amqp_uri, folder, {"default": smtp_mailer(sink.port)}, workers=50) as service:
        warm = sink.until("count", _WARM)
        done = sink.until("count", min(backlog, _COUNTED))
        mib = memory_mib(service)
    return Depth(
        backlog=backlog,
        rate=(done["count"] - warm["count"]) / (done["last"] - warm["last"]),
        median=quantile(took[10:], 0.5),
        mib=mib,
    )


def _seconds(client: MailClient, number: int) -> float:
    began = time.perf_counter()
    client.submit(a_message(f"m{number}"))
    return time.perf_counter() - began
