"""A database that cannot be reached when the service starts, and whoever asks for it at the same time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import eventlet
import pytest

from mail_service.ledger.database import Database, StoreDown


@pytest.fixture
def url() -> Iterator[str]:
    """Of a server that takes a moment to hang up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            time.sleep(0.2)
            client.close()

    thread = threading.Thread(target=hang_up, daemon=True)
    thread.start()
    yield f"postgresql+psycopg://somebody@127.0.0.1:{listener.getsockname()[1]}/mail"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


# the pool's own limit is 30 s
@pytest.mark.timeout(25)
def test_nobody_waits_for_the_attempt_of_somebody_else(url: str) -> None:
    """Each hears from the server itself; none runs into a time limit of the pool."""
    database = Database(url)
    asked = [eventlet.spawn(_why, database.check)]
    asked += [eventlet.spawn(_why, lambda: database.write(lambda _connection, items: items, 1)) for _ in range(3)]

    reasons = [each.wait() for each in asked]
    database.close()

    assert [reason.partition(":")[0] for reason in reasons] == ["OperationalError"] * 4


def _why(ask: object) -> str:
    try:
        ask()  # type: ignore[operator]
    except StoreDown as exc:
        return str(exc)
    return ""
