"""
``MAIL_SERVICE`` and the ``OPTIONS`` of a ``MAILERS`` entry as typed data, and what is wrong with them.

    MAIL_SERVICE = {
        "AMQP_URI": "pyamqp://guest:guest@localhost:5672//",
        "WAIT": False,
        "TIMEOUT": 10,
        "ON_COMMIT": False,
        "OUTBOX": False,
        "OPTIONS": {"tenant": "acme"},
    }
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS

from mail_service import bounds
from mail_service.bounds import Bounds
from mail_service.client.attic import Attic
from mail_service.client.mailclient import DEFAULT_MAX_SIZE, DEFAULT_TIMEOUT_S
from mail_service.errors import ConfigurationError, InvalidMessage
from mail_service.message import Options
from mail_service.message.words import nearest

NAME = "MAIL_SERVICE"
OUTBOX_APP = "mail_service.django.outbox"
DEFAULT_URI = "pyamqp://guest:guest@localhost:5672//"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one mailer does. Each field says under which name Django's settings have it."""

    #: AMQP_URI: RabbitMQ; several, separated by ``;``, are tried in turn
    amqp_uri: str = DEFAULT_URI
    #: AMQP_SSL: nameko's; True checks the certificate, a dict has py-amqp options
    amqp_ssl: Any = None
    #: LOGIN_METHOD: nameko's, such as EXTERNAL
    login_method: str | None = None
    #: RPC_EXCHANGE: nameko's ``rpc_exchange``
    rpc_exchange: str = "nameko-rpc"
    #: MAX_SIZE: bytes of a message as JSON; the service's ``mail.max_size``
    max_size: int = DEFAULT_MAX_SIZE
    #: MAX_RECIPIENTS, MAX_ATTACHMENTS, MAX_HEADER_LENGTH, MAX_VALUES, MAX_NESTING: of a message; the service's own
    max_recipients: int = bounds.DEFAULT.max_recipients
    max_attachments: int = bounds.DEFAULT.max_attachments
    max_header_length: int = bounds.DEFAULT.max_header_length
    max_values: int = bounds.DEFAULT.max_values
    max_nesting: int = bounds.DEFAULT.max_nesting
    #: BLOBS: the service's ``mail.blobs``, seen from here: where large attachments are put
    blobs: Mapping[str, Any] | None = None
    #: WAIT: return when the mail is delivered, and raise what delivery raised; else once RabbitMQ has it
    wait: bool = False
    #: TIMEOUT: seconds that a call may take; with WAIT, for each message
    timeout_s: float = DEFAULT_TIMEOUT_S
    #: ON_COMMIT: aliases of the database connections whose transactions have to be committed first; True is "default"
    on_commit: tuple[str, ...] = ()
    #: OUTBOX: True writes mails to a table, in the caller's transaction; "fallback" those that RabbitMQ did not confirm
    outbox: bool | str = False
    #: OPTIONS: of every mail that has none of its own
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bounds(self) -> Bounds:
        """What one message may have, but for its size."""
        return bounds.of(self)


def read(entry: Mapping[str, Any] | None = None, *, place: str = NAME) -> Settings:
    """
    Return ``MAIL_SERVICE`` overridden by *entry*, the options of one mailer; ``OPTIONS`` are merged name by name.

    Raises ImproperlyConfigured, which lists all mistakes.
    """
    common = getattr(django_settings, NAME, None) or {}
    found = [*mistakes(common), *(mistakes(entry, place) if entry else ())]
    if found:
        raise ImproperlyConfigured(" ".join(found))
    merged = _merged(common, entry) if entry else common
    settings = Settings(**{_KEYS[name].field: _KEYS[name].read(value) for name, value in merged.items()})
    if problem := _problem_with_outbox(settings):
        raise ImproperlyConfigured(f"{place} {problem}.")
    return settings


def _problem_with_outbox(settings: Settings) -> str | None:
    if not settings.outbox:
        return None
    if settings.wait:
        return "has both OUTBOX and WAIT: nobody can wait for a mail that is in the outbox"
    if settings.outbox is True and settings.on_commit:
        return "has both OUTBOX and ON_COMMIT: the outbox is part of the transaction already, so leave ON_COMMIT out"
    if not apps.is_installed(OUTBOX_APP):
        return f"has OUTBOX, which needs a table: add {OUTBOX_APP!r} to INSTALLED_APPS and run `manage.py migrate`"
    return None


def _merged(common: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    options = {**(common.get("OPTIONS") or {}), **(entry.get("OPTIONS") or {})}
    return {**common, **entry, "OPTIONS": options}


def mistakes(given: object, place: str = NAME) -> list[str]:
    """Say what is wrong with *given*, a sentence for each mistake that begins with its *place*."""
    if not isinstance(given, Mapping):
        return [f"{place} must be a dict, not a {type(given).__name__}."]
    return [text for name, value in given.items() if (text := _mistake(name, value, place))]


def is_key(name: str) -> bool:
    """Whether there is such a setting."""
    return name in _KEYS


def unknown(name: object, place: str, others: Collection[str] = ()) -> str:
    """Say that there is no setting of this *name*, and which is the nearest."""
    return _sentence(f"{place} has the key {name!r}, which does not exist{nearest(name, [*_KEYS, *others])}")


def _mistake(name: object, value: object, place: str) -> str | None:
    if name not in _KEYS:
        return unknown(name, place)
    if problem := _KEYS[str(name)].problem(value):
        return _sentence(f"{place}[{name!r}] {problem}")
    return None


def _sentence(text: str) -> str:
    return text if text.endswith("?") else f"{text}."


Problem = Callable[[Any], str | None]


@dataclass(frozen=True, slots=True)
class _Key:
    field: str
    problem: Problem
    read: Callable[[Any], Any] = lambda value: value


def _of_type(types: type | UnionType, words: str) -> Problem:
    return lambda value: None if isinstance(value, types) else f"must be {words}, not {value!r}"


def _uri_problem(value: object) -> str | None:
    # not shown: it has a password in it
    return None if isinstance(value, str) and value else "must be a URL like amqp://user:password@host:5672/vhost"


def _above_zero(types: type | UnionType, words: str) -> Problem:
    def problem(value: Any) -> str | None:
        is_number = isinstance(value, types) and not isinstance(value, bool)
        # said this way round for NaN, which is neither above nor below
        return None if is_number and 0 < value < math.inf else f"must be {words} above 0, not {value!r}"

    return problem


def _on_commit_problem(value: object) -> str | None:
    aliases = _aliases(value)
    if aliases is None or not all(isinstance(alias, str) and alias for alias in aliases):
        return "must be True, False, or the alias of a database connection or a list of them"
    missing = [alias for alias in aliases if alias not in _databases()]
    return f"names {missing[0]!r}, which is not in DATABASES{nearest(missing[0], _databases())}" if missing else None


def _databases() -> list[str]:
    # Django itself makes a dummy of this name where there is none
    return [DEFAULT_DB_ALIAS, *django_settings.DATABASES]


def _outbox_problem(value: object) -> str | None:
    # not "in": 1 is True
    is_known = isinstance(value, bool) or value == "fallback"
    return None if is_known else f"must be True, False or 'fallback', not {value!r}"


def _aliases(value: object) -> tuple[Any, ...] | None:
    match value:
        case bool() | None:
            return (DEFAULT_DB_ALIAS,) if value else ()
        case str():
            return (value,)
        case list() | tuple() | set() | frozenset():
            return tuple(value)
    return None


def _blobs_problem(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return "must be a dict with folder, or with BACKEND and OPTIONS"
    try:
        Attic.of(value)
    except ConfigurationError as exc:
        return f"is wrong: {exc}"
    return None


def _options_problem(value: object) -> str | None:
    try:
        options = Options.parse(value)
    except InvalidMessage as exc:
        return f"is wrong: {exc}"
    return "has an id, which would make one mail of all: set it for each message" if options.id else None


_KEYS = {
    "AMQP_URI": _Key("amqp_uri", _uri_problem),
    "AMQP_SSL": _Key("amqp_ssl", _of_type(bool | Mapping | None, "True, False or a dict of py-amqp options")),
    "LOGIN_METHOD": _Key("login_method", _of_type(str | None, "the name of a login method, such as 'PLAIN'")),
    "RPC_EXCHANGE": _Key("rpc_exchange", _of_type(str, "the name of an exchange")),
    "MAX_SIZE": _Key("max_size", _above_zero(int, "a number of bytes")),
    "MAX_RECIPIENTS": _Key("max_recipients", _above_zero(int, "a number of recipients")),
    "MAX_ATTACHMENTS": _Key("max_attachments", _above_zero(int, "a number of attachments")),
    "MAX_HEADER_LENGTH": _Key("max_header_length", _above_zero(int, "a number of characters")),
    "MAX_VALUES": _Key("max_values", _above_zero(int, "a number of values")),
    "MAX_NESTING": _Key("max_nesting", _above_zero(int, "a number of levels")),
    "BLOBS": _Key("blobs", _blobs_problem),
    "WAIT": _Key("wait", _of_type(bool, "True or False")),
    "TIMEOUT": _Key("timeout_s", _above_zero(int | float, "seconds")),
    "ON_COMMIT": _Key("on_commit", _on_commit_problem, _aliases),
    "OUTBOX": _Key("outbox", _outbox_problem),
    "OPTIONS": _Key("options", _options_problem, lambda value: value or {}),
}
