"""
Which limits a mail falls under, each with its key: ``domain:gmail.com``, ``tenant:acme``, ``mailer:default``. Pure.

A mail passes them in this order, so that the limit of the mailer, which is its provider's, is the last and exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from mail_service.settings import Limit, Settings
from mail_service.settings.limits import EACH
from mail_service.settings.routing import domain

DOMAIN: Final = "domain:"
TENANT: Final = "tenant:"
MAILER: Final = "mailer:"
#: the key of what has no limit, where tenants take turns when a lane is full
LANE: Final = "lane:"
#: how the ``error`` of a mail begins that waits for its turn
HELD_BY_A_LIMIT: Final = "over the limit of"

#: The limit of a mailer by name and tenant, with the mailer's own key; None where it has none.
LimitOf = Callable[[str, str | None], tuple[str, Limit] | None]


class Rules:
    """
    All limits there are.

    Args:
        of_mailer: Looks up a mailer that is used by name.
        of_key: Looks up a mailer's limit by the mailer's key.
    """

    def __init__(self, settings: Settings, of_mailer: LimitOf, of_key: Callable[[str], Limit | None]) -> None:
        self._limits = settings.limits
        self._of_mailer = of_mailer
        self._of_key = of_key
        own = [mailer.limit for mailers in settings.tenants.values() for mailer in mailers.values()]
        shared = [mailer.limit for mailer in settings.mailers.values()]
        #: whether a mailer may have one
        self._of_mailers = any([*shared, *own]) or settings.tenant_mailers is not None
        self.are_any = self._of_mailers or bool(self._limits.tenants or self._limits.domains)
        #: the keys that are known before any mail is
        self.static = tuple(
            [f"{DOMAIN}{name}" for name in self._limits.domains]
            + [f"{TENANT}{name}" for name in self._limits.tenants if name != EACH]
            + [f"{MAILER}{name}" for name, mailer in settings.mailers.items() if mailer.limit]
        )

    def of(self, mailer: str, tenant: str | None, recipients: Iterable[str]) -> Mapping[str, Limit]:
        """The limits of a mail by their keys, in the order in which it passes them."""
        found: dict[str, Limit] = {}
        if self._limits.domains:
            names = sorted({domain(address.rpartition("@")[2]) for address in recipients})
            found |= {f"{DOMAIN}{name}": limit for name in names if (limit := self._limits.domains.get(name))}
        if tenant is not None and (limit := self._of_tenant(tenant)):
            found[f"{TENANT}{tenant}"] = limit
        return {**found, **self.of_mailer(mailer, tenant)}

    def of_mailer(self, mailer: str, tenant: str | None) -> Mapping[str, Limit]:
        """The limit of the mailer alone."""
        known = self._of_mailer(mailer, tenant) if self._of_mailers else None
        return {f"{MAILER}{known[0]}": known[1]} if known else {}

    def limit_of(self, key: str) -> Limit | None:
        """The limit of *key*; None for one that is no longer configured."""
        if key.startswith(DOMAIN):
            return self._limits.domains.get(key.removeprefix(DOMAIN))
        if key.startswith(TENANT):
            return self._of_tenant(key.removeprefix(TENANT))
        return self._of_key(key.removeprefix(MAILER)) if key.startswith(MAILER) else None

    def _of_tenant(self, tenant: str) -> Limit | None:
        return self._limits.tenants.get(tenant) or self._limits.tenants.get(EACH)


#: nothing is limited
NO_RULES: Final = Rules(Settings(), lambda _name, _tenant: None, lambda _key: None)


def in_words(key: str, limit: Limit) -> str:
    """``mailer default: 14 in 1 s, 10 at a time, 5000 a day``."""
    kind, _, name = key.partition(":")
    said = [f"{limit.rate:g} in {limit.per:g} s"] if limit.rate is not None else []
    said += [f"{limit.concurrency} at a time"] if limit.concurrency is not None else []
    said += [f"{limit.day} a day"] if limit.day is not None else []
    return f"{kind} {name}: {', '.join(said)}"
