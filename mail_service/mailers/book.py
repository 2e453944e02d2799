"""
All mailers of a process, found by name and tenant: everybody's, and the tenants' own from ``mail.tenants`` or from the
function that ``mail.tenant_mailers`` names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from mail_service.diagnosis import diagnose
from mail_service.mailers import Classifier, Mailer, open_mailer
from mail_service.mailers.signing import signer
from mail_service.mailers.tenants import LoadedMailers, Opened, at_once
from mail_service.settings import Limit, MailerSettings, Settings
from mail_service.settings.mailers import TENANT_MARK, key_of


class MailerBook:
    """
    Gives a mailer by name, opened once and shared. A mailer's own ``name`` is the key by which it is held, counted and
    logged: ``default``, or ``default/acme`` where it belongs to a tenant.

    Args:
        load: What ``mail.tenant_mailers`` names, if it is set.
        guard: Runs *load*, and raises when it takes too long; ``Deadline(10).run`` in the service. It is waited for.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        classify: Classifier = diagnose,
        load: Callable[[str, str], object] | None = None,
        guard: Callable[[Callable[[], object]], object] = at_once,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._classify = classify
        self._attempt_timeout_s = settings.attempt_timeout
        self._sign = signer(settings.dkim)
        self._shared = {name: self._opened(mailer) for name, mailer in settings.mailers.items()}
        self._of_tenants = {
            (tenant, name): self._opened(replace(mailer, name=key_of(name, tenant)))
            for tenant, mailers in settings.tenants.items()
            for name, mailer in mailers.items()
        }
        self._loaded = (
            LoadedMailers(load, settings=settings, open_one=self._opened, guard=guard, clock=clock) if load else None
        )

    def get(self, name: str, tenant: str | None = None) -> Mailer | None:
        """
        Return the mailer *name* for mail of *tenant*: the tenant's own, else everybody's, else None. Never raises.

        A tenant's mailer that cannot be loaded is there all the same, and refuses each mail as a fault in its
        configuration.
        """
        found = self._find(name, tenant)
        return found.mailer if found else None

    def chain(self, name: str, tenant: str | None = None) -> Iterator[Mailer]:
        """
        Give the mailer *name* for mail of *tenant*, then those that stand in for it, and those for them, each once.

        They are found one by one, so that a tenant's is not loaded before it is needed. None where nobody has *name*.
        """
        names = [name]
        for each in names:
            found = self._find(each, tenant)
            if found:
                yield found.mailer
                names += [other for other in found.failover if other not in names]

    def limit_of(self, name: str, tenant: str | None = None) -> tuple[str, Limit] | None:
        """Return the key of the mailer *name* for mail of *tenant* and its limit, None where it has none."""
        found = self._find(name, tenant)
        return (found.mailer.name, found.limit) if found and found.limit else None

    def names_of(self, key: str) -> tuple[str, str | None]:
        """Return the name and the tenant that a mailer's *key* stands for; no tenant for everybody's."""
        name, mark, tenant = key.partition(TENANT_MARK)
        return (name, tenant) if mark and key not in self._shared else (key, None)

    def all(self) -> dict[str, Mailer]:
        """Every mailer that is open now, by its key: for ``health``."""
        opened = [*self._shared.values(), *self._of_tenants.values(), *(self._loaded.all() if self._loaded else ())]
        return {one.mailer.name: one.mailer for one in opened}

    def close(self) -> None:
        """Close what the mailers keep open. Never raises. They can be used again."""
        for mailer in self.all().values():
            mailer.close()

    def _find(self, name: str, tenant: str | None) -> Opened | None:
        if tenant is not None:
            own = self._of_tenants.get((tenant, name)) or (self._loaded and self._loaded.get(tenant, name))
            if own:
                return own
        return self._shared.get(name)

    def _opened(self, settings: MailerSettings) -> Opened:
        mailer = open_mailer(
            settings, classify=self._classify, attempt_timeout_s=self._attempt_timeout_s, sign=self._sign
        )
        return Opened(mailer=mailer, failover=settings.failover, limit=settings.limit)
