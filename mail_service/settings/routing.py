"""Reads ``mail.routing``: the rules, in order, by which a mail that names no mailer gets one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from mail_service.settings.model import MailerSettings, RoutingRule
from mail_service.settings.reading import Section, as_whole, is_tenant, nearest, shown

_RULE_KEYS: Final = ("tenant", "sender_domain", "recipient_domain", "tag", "mailer")
#: a rule's largest weight, so that adding them up stays exact
_HEAVIEST: Final = 1_000_000
#: what a condition begins with that means every subdomain
SUBDOMAINS: Final = "*."
_DOMAIN: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
_A_DOMAIN: Final = "a domain like example.org, or *.example.org for its subdomains"


def read_routing(
    mail: Section, mailers: Mapping[str, MailerSettings], tenants: Mapping[str, Mapping[str, MailerSettings]]
) -> tuple[RoutingRule, ...]:
    """All rules. What a rule chooses has to be there for everybody whom it may be chosen for."""
    value = mail.values.get("routing")
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        mail.wrong("routing", "a list of rules", value)
        return ()
    entries = [
        Section(item, f"{mail.at('routing')}[{index}]", mail.mistakes, _RULE_KEYS) for index, item in enumerate(value)
    ]
    entries = [entry for entry, item in zip(entries, value, strict=True) if isinstance(item, Mapping)]
    rules = tuple(_read_rule(entry, mailers, tenants) for entry in entries)
    for entry, rule in zip(entries[:-1], rules[:-1], strict=True):
        if entry.values.keys() == {"mailer"} and rule.takes_every_mail:
            entry.mistakes.add(entry.path, "takes every mail, so no rule after it is ever looked at")
    return rules


def domain(text: str) -> str:
    """*text* as domains are compared: in ASCII (IDNA 2003, as Django encodes addresses), lower case, no final dot."""
    lowered = text.lower().removesuffix(".")
    if lowered.isascii():
        return lowered
    try:
        return lowered.encode("idna").decode("ascii")
    except UnicodeError:
        return lowered


def checked_domain(text: str) -> str | None:
    """As `domain`; None where it is none."""
    bare = domain(text)
    return bare if _DOMAIN.fullmatch(bare) else None


def _read_rule(
    entry: Section, mailers: Mapping[str, MailerSettings], tenants: Mapping[str, Mapping[str, MailerSettings]]
) -> RoutingRule:
    for_tenants = _read_texts(entry, "tenant", "the name of a tenant", lambda text: text if is_tenant(text) else None)
    return RoutingRule(
        tenants=for_tenants,
        sender_domains=_read_texts(entry, "sender_domain", _A_DOMAIN, pattern),
        recipient_domains=_read_texts(entry, "recipient_domain", _A_DOMAIN, pattern),
        tags=_read_texts(entry, "tag", "a tag", lambda text: text or None),
        mailers=_read_target(entry, _common(for_tenants, mailers, tenants)),
    )


def _common(
    for_tenants: tuple[str, ...],
    mailers: Mapping[str, MailerSettings],
    tenants: Mapping[str, Mapping[str, MailerSettings]],
) -> set[str]:
    """The names of mailers that all of these tenants have, or everybody."""
    own = [set(tenants.get(tenant, ())) for tenant in for_tenants]
    return set(mailers) | (set.intersection(*own) if own else set())


def _read_texts(entry: Section, key: str, expected: str, accept: Callable[[str], str | None]) -> tuple[str, ...]:
    """A text or a list of texts, each as *accept* makes it; None from there is a mistake."""
    if key not in entry:
        return ()
    value = entry.values[key]
    if isinstance(value, (list, tuple)) and not value:
        entry.mistakes.add(entry.at(key), f"expected {expected}, or a list of such, got an empty list")
        return ()
    texts: dict[str, None] = {}
    for index, item in enumerate(value if isinstance(value, (list, tuple)) else [value]):
        accepted = accept(item) if isinstance(item, str) else None
        if accepted is None:
            path = f"{entry.at(key)}[{index}]" if isinstance(value, (list, tuple)) else entry.at(key)
            entry.mistakes.add(path, f"expected {expected}, got {shown(item, path)}")
        else:
            texts[accepted] = None
    return tuple(texts)


def pattern(text: str) -> str | None:
    """A domain as it is compared, its ``*.`` kept, or None."""
    bare = checked_domain(text.removeprefix(SUBDOMAINS))
    if bare is None:
        return None
    return f"{SUBDOMAINS}{bare}" if text.startswith(SUBDOMAINS) else bare


def _read_target(entry: Section, known: set[str]) -> Mapping[str, int]:
    value = entry.values.get("mailer")
    if isinstance(value, str) and value:
        _check_name(entry, entry.at("mailer"), value, known)
        return MappingProxyType({value: 1})
    if isinstance(value, Mapping) and value:
        return _read_weights(entry.section("mailer"), known)
    if "mailer" in entry:
        entry.wrong("mailer", "the name of a mailer, or several with their weights as {first: 3, second: 1}", value)
    else:
        entry.mistakes.add(entry.at("mailer"), "missing; a rule has to say who takes the mail")
    return MappingProxyType({"default": 1})


def _read_weights(target: Section, known: set[str]) -> Mapping[str, int]:
    weights = {}
    for name, value in target.values.items():
        _check_name(target, target.at(name), name, known)
        weight = as_whole(value, 1, _HEAVIEST)
        if weight is None:
            target.wrong(name, f"a whole number from 1 to {_HEAVIEST} as its weight", value)
        weights[name] = weight or 1
    return MappingProxyType(weights)


def _check_name(section: Section, path: str, name: str, known: set[str]) -> None:
    if name not in known:
        section.mistakes.add(path, f"no mailer is called {shown(name)}; {nearest(name, sorted(known))}")
