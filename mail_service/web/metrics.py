"""
Counts what happens, for Prometheus: in this process, or in a folder that all processes of one host share.

Nothing here is loaded where nobody can ask for the numbers. No label has an address, an id or a tenant in it, and each
has few values: mailers are those of the configuration, all others one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from mail_service.delivery.copies import Delivery
from mail_service.ledger.records import Change
from mail_service.outcome import Kind, Status
from mail_service.settings import Settings
from mail_service.settings.mailers import TENANT_MARK
from mail_service.web.folder import FOLDER

#: seconds; SMTP servers answer in some milliseconds or in some seconds, and an attempt ends after 120 by default
SECONDS: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0)
#: the door of mail that clients put into a lane themselves; it is counted when it is attempted first
CLIENT: Final = "client"
DOORS: Final = ("send", "submit", "event", CLIENT, "bounce")
PARTS: Final = ("broker", "database")
#: stands for every mailer that the configuration does not name
OTHER: Final = "other"

#: a gauge's name without the prefix, and its values by labels
Gauge = tuple[str, Mapping[tuple[str, ...], float]]

_GAUGES: Final = {
    "queue_messages": ("Messages that RabbitMQ has ready, by queue.", ("queue",)),
    "queue_consumers": ("Consumers of each queue, over all processes.", ("queue",)),
    "waiting": ("Mails that are not final, as far as the database knows them.", ("lane", "status")),
    "held": ("Mails that are held, by reason.", ("reason",)),
    "oldest_waiting_seconds": ("Age of the oldest mail that is due or deferred.", ("lane",)),
    "up": ("Whether the part answers.", ("part",)),
}


class Metrics:
    """One for all workers of a process. What counts is a few dictionary look-ups and additions."""

    def __init__(self, settings: Settings) -> None:
        names = {*settings.mailers, *(name for mailers in settings.tenants.values() for name in mailers)}
        self._mailers: Collection[str] = names
        self._has_tenants = bool(settings.tenants or settings.tenant_mailers)
        self._registry = CollectorRegistry()
        self._accepted = self._counter("accepted", "Mails taken over, by door.", ["door"], [(d,) for d in DOORS])
        self._ended = self._counter(
            "ended", "Mails that are final, by status.", ["status"], [(str(s),) for s in Status if s.is_final]
        )
        self._errors = self._counter(
            "errors", "Failures of the broker and the database.", ["part"], [(p,) for p in PARTS]
        )
        everything = [(mailer, str(kind)) for mailer in sorted(names) for kind in Kind]
        self._attempts = self._counter(
            "attempts", "Attempts by mailer and what they came to.", ["mailer", "diagnosis"], everything
        )
        self._seconds: dict[str, Any] = {}
        self._histogram = Histogram(
            "mail_service_attempt_seconds",
            "How long attempts took.",
            ["mailer"],
            buckets=SECONDS,
            registry=self._registry,
        )

    def _counter(
        self, name: str, text: str, labels: list[str], known: Iterable[tuple[str, ...]]
    ) -> Callable[[tuple[str, ...]], None]:
        """What counts one. Values that are known begin at 0, so that the first one is seen as a rise."""
        counter = Counter(f"mail_service_{name}", text, labels, registry=self._registry)
        children: dict[tuple[str, ...], Any] = {values: counter.labels(*values) for values in known}

        def count(values: tuple[str, ...]) -> None:
            child = children.get(values)
            if child is None:
                child = children[values] = counter.labels(*values)
            child.inc()

        return count

    def accepted(self, door: str) -> None:
        """A mail was taken over."""
        self._accepted((door if door in DOORS else "submit",))

    def failed(self, part: str) -> None:
        """The broker or the database did not do what it was asked for."""
        self._errors((part,))

    def closed(self, delivery: Delivery, change: Change) -> None:
        """An attempt was brought to its end, or a mail without one."""
        if delivery.envelope.door == CLIENT and not (delivery.mail.generation or delivery.redelivered):
            self.accepted(CLIENT)
        for attempt in change.attempts:
            mailer = self._label(attempt.mailer)
            self._attempts((mailer, attempt.diagnosis))
            timed = self._seconds.get(mailer)
            if timed is None:
                timed = self._seconds[mailer] = self._histogram.labels(mailer)
            timed.observe(attempt.milliseconds / 1000)
        if change.mail.status.is_final:
            self._ended((str(change.mail.status),))

    def _label(self, mailer: str) -> str:
        name = mailer.partition(TENANT_MARK)[0] if self._has_tenants else mailer
        return name if name in self._mailers else OTHER

    def text(self, gauges: Iterable[Gauge]) -> bytes:
        """All of it in Prometheus' text format, with what all processes of this host have counted."""
        registry = CollectorRegistry()
        if os.environ.get(FOLDER):
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it has no annotations
        else:
            registry.register(_Passed(self._registry))
        registry.register(_Gauges(gauges))
        return generate_latest(registry)


class _Passed(Collector):
    """What another registry has, but for the times at which counters were made, which say nothing."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Any]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class _Gauges(Collector):
    """What is not counted but looked at."""

    def __init__(self, gauges: Iterable[Gauge]) -> None:
        self._gauges = list(gauges)

    def collect(self) -> Iterable[Any]:
        for name, values in self._gauges:
            text, labels = _GAUGES[name]
            family = GaugeMetricFamily(f"mail_service_{name}", text, labels=labels)
            for key, value in values.items():
                family.add_metric(key, value)
            yield family
