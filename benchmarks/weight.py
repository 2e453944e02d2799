"""
What a mail weighs: bytes on RabbitMQ's disk while it waits, and in the database while it waits and when it is over.

    python -m benchmarks.weight [--mails 20000]

Sizes do not depend on how busy the machine is. The mail is that of ``benchmarks.messages``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kombu import Connection

from benchmarks.figures import until
from benchmarks.messages import a_message
from benchmarks.servers import broker, running, smtp_mailer
from benchmarks.sink import Sink
from mail_service import topology
from mail_service.client import MailClient
from mail_service.errors import MailServiceError
from mail_service.local.node import Node

REHEARSAL = "mail_service.mailers.rehearsal.EmailBackend"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mails", type=int, default=20_000)
    mails = parser.parse_args().mails
    print(f"JSON of the message: {len(json.dumps(a_message(1))):,} bytes")
    with tempfile.TemporaryDirectory() as name, broker(Path(name)) as node, Sink() as sink:
        folder = Path(name)
        _queue(node, mails)
        _deliver(node, folder, mails, smtp_mailer(sink.port), "sent")
        _queue(node, mails // 10, to="refuse@example.org")
        _deliver(node, folder, mails // 10, {"BACKEND": REHEARSAL}, "in the error log")
    return 0


def _queue(node: Node, mails: int, **changes: Any) -> None:
    with Connection(node.amqp_uri) as connection:
        topology.declare_lane(connection, "normal")
    before, memory = _bytes_in(node.folder), _memory(node.pid)
    began = time.monotonic()
    with MailClient(node.amqp_uri, timeout=60) as client:
        client.submit_many({**a_message(number), **changes} for number in range(mails))
    seconds = time.monotonic() - began
    print(
        f"{mails:,} mails queued at {mails / seconds:,.0f} a second: "
        f"{(_bytes_in(node.folder) - before) / mails:,.0f} bytes each on RabbitMQ's disk, "
        f"{(_memory(node.pid) - memory) / mails:,.0f} in its memory"
    )


def _deliver(node: Node, folder: Path, mails: int, mailer: dict[str, Any], how: str) -> None:
    database = folder / f"{mailer['BACKEND']}.db"
    more = {"processes": 1, "workers": 20, "database": f"sqlite:///{database}"}
    with running(node.amqp_uri, folder, {"default": mailer}, **more), MailClient(node.amqp_uri, timeout=10) as client:
        until(lambda: _waiting(client), lambda waiting: not waiting, f"{mails} mails {how}", every_s=0.5)
    print(f"{mails:,} mails {how}: {_bytes_of(database) / mails:,.0f} bytes each in SQLite")


def _waiting(client: MailClient) -> int:
    try:
        client.call("health", timeout=5)
        return client._waiting()  # noqa: SLF001 - mails that no worker has taken
    except MailServiceError:
        return 1


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _bytes_of(database: Path) -> int:
    return sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*"))


def _memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
