"""Reads limits: a mailer's own, and ``mail.limits`` for tenants and for domains of recipients."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from mail_service.settings.model import Limit, Limits
from mail_service.settings.reading import Section, is_tenant, shown
from mail_service.settings.routing import checked_domain

LIMIT_KEYS: Final = ("rate", "per", "burst", "concurrency", "day")
#: among ``mail.limits.tenants``: each tenant that is not named
EACH: Final = "*"
#: of a period, seconds; what is counted by days has a key of its own
_LONGEST_PER: Final = 86_400.0


def read_limit(entry: Section) -> Limit | None:
    """One limit; None where nothing is limited."""
    if not entry.values:
        return None
    for key, what in (("per", "is the number of seconds in which so many mails are sent"), ("burst", "goes with it")):
        if key in entry and "rate" not in entry:
            entry.mistakes.add(entry.at("rate"), f"missing; {key} {what}")
    return Limit(
        rate=entry.number("rate", None, what="a number of mails", above=True),
        per=entry.number("per", 1.0, what="seconds", above=True, most=_LONGEST_PER),
        burst=entry.whole("burst", None, what="a whole number of mails", least=1),
        concurrency=entry.whole("concurrency", None, least=1),
        day=entry.whole("day", None, what="a whole number of mails", least=1),
    )


def read_limits(mail: Section) -> Limits:
    """``mail.limits``."""
    section = mail.section("limits", ("tenants", "domains"))
    return Limits(
        tenants=MappingProxyType(_read_tenants(section.section("tenants"))),
        domains=MappingProxyType(_read_domains(section.section("domains"))),
    )


def _read_tenants(section: Section) -> Mapping[str, Limit]:
    limits = {}
    for name in section.values:
        if not is_tenant(name):
            section.mistakes.add(section.path, f"expected the name of a tenant, or {EACH}, got {shown(name)}")
        elif limit := read_limit(section.section(name, LIMIT_KEYS)):
            limits[name] = limit
    return limits


def _read_domains(section: Section) -> Mapping[str, Limit]:
    limits = {}
    for name in section.values:
        bare = checked_domain(name)
        limit = read_limit(section.section(name, LIMIT_KEYS))
        if bare is None:
            section.mistakes.add(section.path, f"expected a domain like example.org, got {shown(name)}")
        elif bare in limits:
            section.mistakes.add(section.path, f"{shown(name)} stands there twice")
        elif limit:
            limits[bare] = limit
    return limits
