"""Connections to the broker from nameko's own configuration keys, TLS and login method included."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Mapping
from typing import Any

from kombu import Connection as KombuConnection

from mail_service import tls

#: seconds until a connection attempt counts as failed
CONNECT_TIMEOUT_S = 5
#: where the configuration says nothing; nameko's own default
HEARTBEAT_S = 60


class Connection(KombuConnection):
    """Speaks TLS with whom it means to: of several addresses, each has to show a certificate of its own."""

    def _init_params(self, **params: Any) -> None:  # type: ignore[override]  # kombu passes them by name
        # called for the first address, and again for each one that it turns to
        is_asked_for = params["transport"] == "amqps"
        params["ssl"] = tls.options(params["ssl"], params["hostname"], is_asked_for=is_asked_for)
        super()._init_params(**params)  # type: ignore[no-untyped-call]  # kombu's


def connection(config: Mapping[str, Any]) -> Connection:
    """A connection that is not yet established, as *config* (nameko's) describes it."""
    return Connection(  # type: ignore[no-untyped-call]  # as kombu's
        in_any_order(config["AMQP_URI"]),
        ssl=config.get("AMQP_SSL"),
        login_method=config.get("LOGIN_METHOD"),
        heartbeat=config.get("HEARTBEAT", HEARTBEAT_S),
        connect_timeout=CONNECT_TIMEOUT_S,
        transport_options=config.get("TRANSPORT_OPTIONS"),
    )


def is_cluster(config: Mapping[str, Any]) -> bool:
    """Whether ``AMQP_URI`` names several nodes."""
    return ";" in config["AMQP_URI"]


def in_any_order(uris: str) -> str:
    """
    *uris*, several of which are separated by ``;``, as kombu tries them in turn.

    Each connection begins with any of them: kombu gives up after two, and the nodes share the work.
    """
    if ";" not in uris:
        return uris
    each = [uri.strip() for uri in uris.split(";")]
    return ";".join(random.sample(each, len(each)))


def hang_up(connection: KombuConnection) -> None:
    """End *connection* for whoever waits on it: they get an OSError, now and whenever they wait for more."""
    with contextlib.suppress(OSError, AttributeError):
        if connection.connected:
            connection.connection.sock.shutdown(socket.SHUT_RDWR)


def drop(connection: KombuConnection) -> None:
    """Close the socket without a word, if it is open."""
    # whatever a half-dead socket says, we are done with it
    with contextlib.suppress(Exception):
        connection.collect()
