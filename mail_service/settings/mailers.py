"""Reads ``mail.mailers`` and the tenants' own, which have the shape of Django 6.1's ``MAILERS`` and five keys more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, cast, get_args

from mail_service.errors import ConfigurationError
from mail_service.settings.limits import LIMIT_KEYS, read_limit
from mail_service.settings.model import DEFAULT_MAILERS, Content, MailerSettings, OnUnknown
from mail_service.settings.reading import (
    Mistakes,
    Section,
    as_number,
    as_whole,
    is_dotted_path,
    is_name,
    is_tenant,
    nearest,
    shown,
)

_MAILER_KEYS: Final = ("BACKEND", "OPTIONS", "failover", "on_unknown", "limit", "http_retry", "content")
#: Django's own default for an entry of MAILERS without BACKEND
_SMTP_BACKEND: Final = "django.core.mail.backends.smtp.EmailBackend"
_OURS: Final = "mail_service.django"
#: between a mailer's name and a tenant's, in the key by which logs, holds and ``health`` know a tenant's own mailer
TENANT_MARK: Final = "/"

#: the arguments of urllib3 2's ``Retry``, without ``history``, which is no setting
_RETRY_COUNTS: Final = ("total", "connect", "read", "redirect", "status", "other")
_RETRY_SECONDS: Final = ("backoff_factor", "backoff_max", "backoff_jitter")
_RETRY_FLAGS: Final = ("raise_on_redirect", "raise_on_status", "respect_retry_after_header")
_RETRY_TEXTS: Final = ("allowed_methods", "remove_headers_on_redirect")
RETRY_WORDS: Final = (
    *_RETRY_COUNTS,
    *_RETRY_TEXTS,
    "status_forcelist",
    *_RETRY_SECONDS,
    *_RETRY_FLAGS,
    "retry_after_max",
)


def read_mailers(mail: Section) -> Mapping[str, MailerSettings]:
    """All mailers by name; without the key, the one that writes to ``var/outbox``."""
    if "mailers" not in mail:
        return DEFAULT_MAILERS
    section = mail.section("mailers")
    if "default" not in section and isinstance(mail.values["mailers"], Mapping | None):
        section.mistakes.add(section.path, f"no mailer is called default{_like_default(section)}; it has to be there")
    mailers = _read_each(section)
    _check_failover(section, mailers, mailers)
    return MappingProxyType(mailers)


def read_tenants(mail: Section, mailers: Mapping[str, MailerSettings]) -> Mapping[str, Mapping[str, MailerSettings]]:
    """The tenants' own mailers. They may fail over to each other and to everybody's *mailers*."""
    tenants = mail.section("tenants")
    if tenants.values or mail.values.get("tenant_mailers"):
        _check_marks(mail.at("mailers"), mailers, mail.mistakes)
    for tenant in tenants.values:
        if not is_tenant(tenant):
            tenants.mistakes.add(tenants.path, f"expected the name of a tenant, got {shown(tenant)}")
    return MappingProxyType(
        {tenant: _read_tenant(tenants.section(tenant, ["mailers"]), mailers) for tenant in tenants.values}
    )


def _read_tenant(entry: Section, mailers: Mapping[str, MailerSettings]) -> Mapping[str, MailerSettings]:
    section = entry.section("mailers")
    own = _read_each(section)
    _check_marks(section.path, own, section.mistakes)
    _check_failover(section, own, {**mailers, **own})
    return MappingProxyType(own)


def read_one(
    name: str, entry: object, path: str, mailers: Mapping[str, MailerSettings] = MappingProxyType({})
) -> MailerSettings:
    """
    A single *entry*, from somewhere else than the configuration, which may fail over to *mailers*.

    Raises:
        ConfigurationError: with all its mistakes, one in a line, as of something that stands at *path*.
    """
    mistakes = Mistakes()
    if not isinstance(entry, Mapping):
        mistakes.add(path, f"expected a mapping with BACKEND and OPTIONS, got {type(entry).__name__}")
    else:
        section = Section({name: entry}, path, mistakes)
        mailer = _read_mailer(name, section.section(name, _MAILER_KEYS))
        _check_failover(section, {name: mailer}, {**mailers, name: mailer})
        if mailer.content is not None:
            # what is kept is decided where a mail ends, which waits for nobody
            section.mistakes.add(f"{section.at(name)}.content", "not looked at here; set mail.retention.tenants")
    if mistakes.found:
        raise ConfigurationError("\n".join(mistakes.found))
    return mailer


def _read_each(section: Section) -> dict[str, MailerSettings]:
    for name in section.values:
        if not is_name(name):
            section.mistakes.add(section.path, f"expected a name for the mailer, got {shown(name)}")
    return {name: _read_mailer(name, section.section(name, _MAILER_KEYS)) for name in section.values}


def _check_marks(path: str, names: Iterable[str], mistakes: Mistakes) -> None:
    """A tenant's mailer must not be taken for another one whose own name looks like its key."""
    for name in names:
        if TENANT_MARK in name:
            mistakes.add(path, f"where tenants have mailers, no name of one has a {TENANT_MARK}, got {shown(name)}")


def key_of(name: str, tenant: str) -> str:
    """What tells the mailer *name* of a *tenant* from everybody's: ``default/acme``."""
    return f"{name}{TENANT_MARK}{tenant}"


def _like_default(section: Section) -> str:
    hint = nearest("default", section.values) if section.values else ""
    return f" ({hint.removeprefix('did you mean ').removesuffix('?')} is)" if hint.startswith("did you mean") else ""


def _read_mailer(name: str, entry: Section) -> MailerSettings:
    return MailerSettings(
        name=name,
        backend=_read_backend(entry),
        options=_read_options(entry),
        failover=entry.names("failover"),
        on_unknown=cast("OnUnknown", entry.choice("on_unknown", "retry", ("retry", "give_up"))),
        limit=read_limit(entry.section("limit", LIMIT_KEYS)),
        http_retry=_read_http_retry(entry.section("http_retry", RETRY_WORDS)),
        content=_read_content(entry),
    )


def _read_content(entry: Section) -> Content | None:
    return cast("Content", entry.choice("content", "keep", get_args(Content))) if "content" in entry else None


def _read_backend(entry: Section) -> str:
    backend = entry.text("BACKEND", _SMTP_BACKEND, what=f"a dotted path like {_SMTP_BACKEND}")
    if not is_dotted_path(backend):
        entry.wrong("BACKEND", f"the dotted path of a class like {_SMTP_BACKEND}", backend)
    elif is_ours(backend):
        entry.mistakes.add(entry.at("BACKEND"), f"{backend} hands mail to this service, which would go round for ever")
    return backend


def is_ours(path: str) -> bool:
    """Whether *path* leads to the Django side of this service, which must not be one of its mailers."""
    return path == _OURS or path.startswith(f"{_OURS}.")


def _read_options(entry: Section) -> Mapping[str, object]:
    options = entry.section("OPTIONS")
    if "alias" in options:
        options.mistakes.add(options.at("alias"), "not allowed, as in Django: the mailer's name is its alias")
    if options.values.get("fail_silently"):
        options.mistakes.add(options.at("fail_silently"), "not allowed: a failure that is not seen loses the mail")
    return MappingProxyType(options.values)


def _read_http_retry(entry: Section) -> Mapping[str, object] | None:
    for key, value in entry.values.items():
        if (expected := _expected_of_retry(key, value)) is not None:
            entry.wrong(key, expected, value)
    return MappingProxyType(entry.values) if entry.values else None


def _expected_of_retry(key: str, value: object) -> str | None:
    """What urllib3's Retry wants for *key*, or None when *value* is that."""
    if key in _RETRY_COUNTS:
        may_be_off = key in ("total", "redirect") and value is False
        return None if value is None or may_be_off or as_whole(value, 0) is not None else "a whole number >= 0"
    if key in _RETRY_FLAGS:
        return None if isinstance(value, bool) else "true or false"
    if key in _RETRY_TEXTS:
        return None if value is None or _is_list_of(value, str) else "a list of texts"
    if key == "status_forcelist":
        return None if value is None or _is_list_of(value, int) else "a list of HTTP status codes"
    return None if as_number(value, 0) is not None else "a number of seconds >= 0"


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)


def _check_failover(
    section: Section, entries: Mapping[str, MailerSettings], mailers: Mapping[str, MailerSettings]
) -> None:
    """Note where *entries* fail over to what is not among *mailers*, or, over whatever others, to themselves."""
    reported: set[frozenset[str]] = set()
    for mailer in entries.values():
        path = f"{section.path}.{mailer.name}.failover"
        for name in mailer.failover:
            if name not in mailers:
                section.mistakes.add(path, f"no mailer is called {shown(name)}; {nearest(name, mailers)}")
        for circle in _circles(mailer.name, mailers):
            if frozenset(circle) not in reported:
                reported.add(frozenset(circle))
                section.mistakes.add(path, f"leads back to where it began: {' -> '.join(circle)}")


def _circles(start: str, mailers: Mapping[str, MailerSettings]) -> Iterator[tuple[str, ...]]:
    """The first way found that leads from *start* over other mailers back to it, if there is one."""
    ways: list[tuple[str, ...]] = [(start,)]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        for name in mailers[way[-1]].failover:
            if name == start:
                yield (*way, start)
                return
            if name in mailers and name not in seen:
                seen.add(name)
                ways.append((*way, name))
