"""
Counts how often the event loop comes round while a database keeps somebody waiting.

    python -m tests.hazards.ticking stock|ours URL

waits for a lock that somebody else holds, and prints the number of ticks, 10 ms apart at best, as soon as it has it.
"""

from __future__ import annotations

import sys
from typing import Any

import eventlet

eventlet.monkey_patch()

import sqlalchemy as sa  # noqa: E402

#: takes the lock of a row, or of the whole file
WRITE = "update lock set n = n + 1"


def stock(url: str) -> Any:
    """What one writes who does not know."""
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text(WRITE))


def ours(url: str) -> Any:
    from mail_service.ledger.database import Database

    def write(connection: sa.Connection, items: Any) -> list[None]:
        connection.execute(sa.text(WRITE))
        return [None] * len(items)

    return Database(url).write(write, None)


def main(stack: str, url: str) -> None:
    ticks = [0]

    def tick() -> None:
        while True:
            ticks[0] += 1
            eventlet.sleep(0.01)

    eventlet.spawn(tick)
    eventlet.sleep(0.05)
    ticks[0] = 0
    print("waiting", flush=True)
    eventlet.sleep(0)
    {"stock": stock, "ours": ours}[stack](url)
    print(ticks[0], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
