"""What a client is told about the broker, by code or by nameko's configuration, and its words for what goes wrong."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from amqp.exceptions import AccessRefused, AMQPError, NotAllowed

from mail_service import tls
from mail_service.bounds import Bounds
from mail_service.client.bounded import Limit
from mail_service.client.wire import Address
from mail_service.errors import ConfigurationError

#: nameko's own default
_DEFAULT_URI = "pyamqp://guest:guest@localhost"
_SCHEMES = ("amqp", "amqps", "pyamqp")
_BOUNDS = tuple(field.name for field in fields(Bounds))
#: of a call's time limit, how much a silent connection may use up before another one is tried
_PATIENCE_SHARE = 1 / 3


def address(amqp_uri: str, *, ssl: Any, login_method: str | None, rpc_exchange: str, timeout_s: float) -> Address:
    """How to reach RabbitMQ. Raises ConfigurationError, which shows no password."""
    if not timeout_s > 0:
        raise ConfigurationError(f"timeout: expected seconds above 0, got {timeout_s!r}")
    tls.check(ssl)
    found = Address(
        uris=tuple(uri.strip() for uri in str(amqp_uri).split(";")),
        ssl=ssl,
        login_method=login_method,
        rpc_exchange=rpc_exchange,
        patience_s=max(1.0, timeout_s * _PATIENCE_SHARE),
    )
    for uri in found.uris:
        scheme = uri.partition("://")[0]
        if scheme not in _SCHEMES:
            raise ConfigurationError("AMQP_URI: expected a URL like amqp://user:password@host:5672/vhost")
        try:
            found.connection(uri, Limit())
        except (ValueError, TypeError, LookupError) as exc:
            raise ConfigurationError(f"AMQP_URI: not a URL that kombu understands ({type(exc).__name__})") from None
    return found


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """``MailClient``'s arguments from nameko's configuration."""
    mail = config.get("mail")
    mail = mail if isinstance(mail, Mapping) else {}
    found = {
        "amqp_uri": config.get("AMQP_URI", _DEFAULT_URI),
        "ssl": config.get("AMQP_SSL"),
        "login_method": config.get("LOGIN_METHOD"),
        "rpc_exchange": config.get("rpc_exchange"),
        "default_from": mail.get("default_from"),
        "max_size": mail.get("max_size"),
        "bounds": Bounds(**{name: mail[name] for name in _BOUNDS if mail.get(name) is not None}),
        "blobs": mail.get("blobs"),
    }
    return {name: value for name, value in found.items() if value is not None}


def reason(exc: Exception) -> str:
    """The end of a sentence that begins with RabbitMQ's name."""
    match exc:
        case AccessRefused() | NotAllowed():
            return f"refuses us: {exc.reply_text}"
        case TimeoutError():
            return "does not answer in time"
        case ssl_module.SSLError():
            return f"cannot be reached over TLS: {tls.reason(exc)}"
        case AMQPError():
            return f"closed the connection: {exc.reply_text or type(exc).__name__}"
        case OSError():
            return f"cannot be reached: {exc.strerror or str(exc) or type(exc).__name__}"
        case _:
            return f"cannot be used: {type(exc).__name__}"
