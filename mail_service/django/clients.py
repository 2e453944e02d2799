"""The clients of this process: one for each broker and way to reach it, shared by all threads and messages."""

from __future__ import annotations

import atexit
from dataclasses import asdict
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver

from mail_service.client import MailClient
from mail_service.django.settings import NAME, Settings
from mail_service.errors import ConfigurationError

#: No lock: one that another thread holds during a fork would stay locked in the child. A client itself notices a fork.
_clients: dict[tuple[object, ...], MailClient] = {}


def client_for(settings: Settings) -> MailClient:
    """The client for *settings*, which is not connected before it is used. Raises ImproperlyConfigured."""
    key = (
        settings.amqp_uri,
        repr(settings.amqp_ssl),
        settings.login_method,
        settings.rpc_exchange,
        settings.max_size,
        settings.bounds,
        settings.timeout_s,
        repr(settings.blobs),
    )
    client = _clients.get(key)
    # two threads that come at once make two; the one that is not kept has no connection
    return client if client is not None else _clients.setdefault(key, make_client(settings))


def make_client(settings: Settings) -> MailClient:
    """A client of one's own. Raises ImproperlyConfigured."""
    config = {
        "AMQP_URI": settings.amqp_uri,
        "AMQP_SSL": settings.amqp_ssl,
        "LOGIN_METHOD": settings.login_method,
        "rpc_exchange": settings.rpc_exchange,
        "mail": {"max_size": settings.max_size, **asdict(settings.bounds), "blobs": settings.blobs},
    }
    try:
        return MailClient.from_config(config, timeout=settings.timeout_s)
    except ConfigurationError as exc:
        raise ImproperlyConfigured(f"{NAME}: {exc}") from exc


def close_clients() -> None:
    """Close all connections of this process; sending makes new ones."""
    while _clients:
        _, client = _clients.popitem()
        client.close()


@receiver(setting_changed)
def _close_when_changed(*, setting: str, **_facts: Any) -> None:
    """A test that overrides a setting leaves no connection behind."""
    if setting in (NAME, "MAILERS"):
        close_clients()


# else RabbitMQ logs a warning for each process that ends
atexit.register(close_clients)
