"""
TLS to RabbitMQ as nameko's ``AMQP_SSL`` asks for it, and stricter: the certificate has to be the host's own.

py-amqp looks at the host name in a certificate only where ``server_hostname`` names it (5.4), so that whoever has a
certificate of the same authority could stand between; with the system's authorities that is anybody.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mail_service.errors import ConfigurationError

#: what py-amqp's ``SSLTransport`` understands and a configuration can say
_FILES = ("ca_certs", "certfile", "keyfile")
KEYS = (*_FILES, "cert_reqs", "server_hostname", "ciphers", "context", "ssl_version")
_KEYS_OF_CODE = ("tls_minimum_version", "tls_maximum_version", "do_handshake_on_connect", "suppress_ragged_eofs")


def options(given: Any, hostname: str | None, *, is_asked_for: bool = False) -> Any:
    """
    What py-amqp is to be told for a connection to *hostname*; False for a connection without TLS.

    The certificate has to be valid for *hostname*, or for the ``server_hostname`` that *given* names. ``cert_reqs:
    CERT_NONE`` checks nothing, and ``context`` is handed on as it is: py-amqp then does what that says.

    Args:
        given: Nameko's ``AMQP_SSL``: true, or a mapping.
        is_asked_for: By the URL: ``amqps://``.

    Raises:
        ConfigurationError: for a ``cert_reqs`` that Python does not have.
    """
    if not given and not is_asked_for:
        return False
    # a copy, since kombu changes it
    chosen = dict(given) if isinstance(given, Mapping) else {}
    if "cert_reqs" in chosen:
        chosen["cert_reqs"] = _cert_reqs(chosen["cert_reqs"])
    is_checked = "context" not in chosen and chosen.get("cert_reqs") != ssl.CERT_NONE
    if is_checked and not chosen.get("server_hostname"):
        chosen["server_hostname"] = hostname or "localhost"
    return chosen


def problems(given: Any) -> Iterator[tuple[str, str]]:
    """What is wrong with an ``AMQP_SSL``: the path of the key, and a sentence about it."""
    if given is None or isinstance(given, bool):
        return
    if not isinstance(given, Mapping):
        yield "AMQP_SSL", "expected true, or a mapping like {ca_certs: /etc/ssl/certs/ca-certificates.crt}"
        return
    for key, value in given.items():
        if problem := _problem(key, value):
            yield f"AMQP_SSL.{str(key)[:100]}", problem


def check(given: Any) -> None:
    """Raise ConfigurationError when *given* is no ``AMQP_SSL``."""
    for path, problem in problems(given):
        raise ConfigurationError(f"{path}: {problem}")


def reason(error: ssl.SSLError) -> str:
    """Why TLS did not come about, in OpenSSL's words: host names may be in it, and nothing that is secret."""
    return str(getattr(error, "verify_message", "") or error.reason or type(error).__name__)[:200]


def _problem(key: object, value: object) -> str:
    if key not in (*KEYS, *_KEYS_OF_CODE):
        return f"unknown key; known: {', '.join(KEYS)}"
    if key in _FILES and not (isinstance(value, str) and _is_file(value)):
        return "expected the path of a file that is there"
    if key == "server_hostname" and not isinstance(value, str | None):
        return "expected the name in the broker's certificate"
    if key == "cert_reqs":
        try:
            _cert_reqs(value)
        except ConfigurationError as exc:
            return str(exc).partition(": ")[2]
    return ""


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # a name that no file can have
        return False


def _cert_reqs(value: Any) -> ssl.VerifyMode:
    """YAML has no word for ``ssl.CERT_REQUIRED``: its name is taken as well."""
    name = value.rpartition(".")[2] if isinstance(value, str) else None
    try:
        return ssl.VerifyMode[name] if name else ssl.VerifyMode(value)
    except (KeyError, ValueError, TypeError):
        raise ConfigurationError(
            f"AMQP_SSL.cert_reqs: expected one of {', '.join(ssl.VerifyMode.__members__)}, got {str(value)[:40]!r}"
        ) from None
