"""Connections to the broker from nameko's own configuration keys, TLS and login method included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kombu import Connection

#: seconds until a connection attempt counts as failed
CONNECT_TIMEOUT_S = 5


def connection(config: Mapping[str, Any]) -> Connection:
    """A connection that is not yet established, as *config* (nameko's) describes it."""
    return Connection(
        config["AMQP_URI"],
        ssl=config.get("AMQP_SSL"),
        login_method=config.get("LOGIN_METHOD"),
        heartbeat=config.get("HEARTBEAT", 60),
        connect_timeout=CONNECT_TIMEOUT_S,
        transport_options=config.get("TRANSPORT_OPTIONS"),
    )
