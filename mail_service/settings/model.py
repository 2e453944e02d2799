"""The settings themselves. Their defaults are the ones that a user gets who leaves the key out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from mail_service import bounds
from mail_service.blobs import BlobSettings
from mail_service.bounds import Bounds
from mail_service.settings.masks import mask

OnUnknown: TypeAlias = Literal["retry", "give_up"]
#: of a mail that is over and was not sent: keep it, keep its form without what it says, keep nothing
Content: TypeAlias = Literal["keep", "redact", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How fast a mailer may be used, or a tenant or a domain be mailed for, counted over all processes."""

    #: mails in each period of *per* seconds; None is no limit
    rate: float | None = None
    #: length of the period, seconds
    per: float = 1.0
    #: mails that may go at once after a pause, at least 1; None is what goes in a tenth of a second
    burst: int | None = None
    #: attempts in flight at a time; None is no limit
    concurrency: int | None = None
    #: mails in a day of UTC; None is no limit
    day: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits besides those of the mailers."""

    #: by tenant; ``*`` stands for every tenant that is not named, each for itself
    tenants: Mapping[str, Limit] = field(default_factory=lambda: MappingProxyType({}))
    #: by the domain of a recipient: lower case, in ASCII
    domains: Mapping[str, Limit] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class MailerSettings:
    """A configured way to send, with a name: an entry of Django 6.1's ``MAILERS``, and what we add to it."""

    #: what messages, logs and the command line call it
    name: str
    #: dotted path of a Django email backend class
    backend: str
    #: keyword arguments of the backend; not in the repr, since they hold secrets
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    #: mailers tried next, in this order and the same attempt, where the mail was certainly not accepted
    failover: tuple[str, ...] = ()
    #: after an unknown outcome: send again with the same Message-ID, or end as failed
    on_unknown: OnUnknown = "retry"
    #: None is as fast as the workers go
    limit: Limit | None = None
    #: keyword arguments of ``urllib3.util.Retry``, for backends built on requests; None leaves the backend as it is
    http_retry: Mapping[str, object] | None = None
    #: what is kept of its mail once that is over; None is as ``retention`` says
    content: Content | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRule:
    """Which mailer takes the mail that all of this is true of. What is empty is not looked at."""

    #: mailers by name with their weights, each at least 1; a single one gets every mail
    mailers: Mapping[str, int]
    #: the mail is for one of these
    tenants: tuple[str, ...] = ()
    #: the From is in one of these domains: lower case, in ASCII; ``*.example.org`` is every subdomain, not the domain
    sender_domains: tuple[str, ...] = ()
    #: every recipient is in one of these domains, written like the sender's
    recipient_domains: tuple[str, ...] = ()
    #: the mail has one of these tags
    tags: tuple[str, ...] = ()

    @property
    def takes_every_mail(self) -> bool:
        """No condition is left."""
        return not (self.tenants or self.sender_domains or self.recipient_domains or self.tags)


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedSchedule:
    """Waits from a list, one after the other; the last one repeats."""

    name: str
    #: milliseconds before each retry, at least one
    schedule_ms: tuple[int, ...]
    #: retries, so one less than the attempts; 0 is no limit
    limit: int = 0
    #: milliseconds from ``submitted_at``; a retry due later is not waited for. None is no such end.
    max_age_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicSchedule:
    """Waits that grow: ``min(longest, first * factor ** n)`` after failure n + 1; by default 10 s, 40 s, ..., 3 h."""

    name: str
    #: milliseconds before the first retry
    first_ms: int
    #: at least 1
    factor: float
    #: milliseconds that no wait exceeds
    longest_ms: int
    #: retries, so one less than the attempts; 0 is no limit
    limit: int = 0
    #: milliseconds from ``submitted_at``; a retry due later is not waited for. None is no such end.
    max_age_ms: int | None = None


Schedule: TypeAlias = FixedSchedule | DynamicSchedule


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorSchedules:
    """The name of the schedule that a mail gets from its door, unless it names one itself."""

    #: RPC ``send``, whose caller waits
    send: str = "impatient"
    #: ``submit``, ``submit_many``, Django and ``MailClient.submit``
    submit: str = "dynamic"
    #: ``send_email`` events
    event: str = "dynamic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounce:
    """Who is told by mail that a mail failed for good."""

    #: send an RFC 3464 report to the envelope sender
    to_sender: bool = False
    #: the mailer of the report; None is as for any mail
    mailer: str | None = None
    #: return the whole mail in it, not its header alone
    whole: bool = False
    #: dotted path of ``(record, report) -> message or None``: another message in its place, or none
    factory: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HardBounces:
    """What becomes of addresses that a mail server says do not exist."""

    #: put them on the list of those who are not mailed
    suppress: bool = False
    #: days for which they stay there; None until somebody takes them off
    days: float | None = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long what is stored about mail that is over is kept."""

    #: seconds between two passes, of which one process of all makes each
    every: float = 3600.0
    #: by status: days after its last change, after which a mail is deleted; a status that is not there is kept
    records: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    #: what is kept of the message as soon as its mail is over; of sent mail nothing is
    content: Content = "keep"
    #: days after its mail's last change, after which what was kept of the message is dropped; None is never
    content_days: float | None = None
    #: by tenant, in the place of *content*
    tenants: Mapping[str, Content] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def has_passes(self) -> bool:
        """Whether there is something to do from time to time."""
        return bool(self.records) or self.content_days is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimKey:
    """With what mail of one sender's domain is signed."""

    #: the key's name in DNS: its public part stands at ``<selector>._domainkey.<domain>``
    selector: str
    #: path of the private key: RSA, PEM, without a passphrase
    keyfile: str


FILE_BACKEND: Final = "django.core.mail.backends.filebased.EmailBackend"
#: nothing leaves the machine until somebody configures a mailer
DEFAULT_MAILERS: Final[Mapping[str, MailerSettings]] = MappingProxyType(
    {
        "default": MailerSettings(
            name="default", backend=FILE_BACKEND, options=MappingProxyType({"file_path": "var/outbox"})
        )
    }
)
BUILT_IN_SCHEDULES: Final[Mapping[str, Schedule]] = MappingProxyType(
    {
        "impatient": FixedSchedule(name="impatient", schedule_ms=(100, 200, 500), limit=3),
        "fixed": FixedSchedule(name="fixed", schedule_ms=(60_000,), limit=30),
        "dynamic": DynamicSchedule(
            name="dynamic", first_ms=10_000, factor=4, longest_ms=10_800_000, max_age_ms=172_800_000
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The ``mail`` section of ``config.yaml``."""

    #: the sender of mail that names none; an address, with a display name or bare
    default_from: str = "webmaster@localhost"
    #: by name; ``default`` is always there
    mailers: Mapping[str, MailerSettings] = field(default_factory=lambda: DEFAULT_MAILERS)
    #: in order, the first that fits a mail chooses its mailer; the option ``mailer`` goes before them all
    routing: tuple[RoutingRule, ...] = ()
    #: by tenant and name: mailers that take the place of those of the same name, or are added to them
    tenants: Mapping[str, Mapping[str, MailerSettings]] = field(default_factory=lambda: MappingProxyType({}))
    #: dotted path of ``(tenant, name) -> mapping or None``, asked for a tenant's mailers that are not in *tenants*
    tenant_mailers: str | None = None
    limits: Limits = field(default_factory=Limits)
    #: SQLAlchemy URL of the ledger and the error log; not in the repr, since it may hold a password
    database: str = field(default="sqlite:///var/mail_service.db", repr=False)
    #: names of the services whose ``send_email`` events are mailed
    event_sources: tuple[str, ...] = ()
    #: by name; the built-in ones and the user's
    schedules: Mapping[str, Schedule] = field(default_factory=lambda: BUILT_IN_SCHEDULES)
    backoff: DoorSchedules = field(default_factory=DoorSchedules)
    #: dotted path of ``(exception, context) -> Diagnosis``
    classifier: str = "mail_service.diagnosis.diagnose"
    #: dotted paths of ``(message, context) -> answer``, asked in this order before each attempt
    hooks: tuple[str, ...] = ()
    bounce: Bounce = field(default_factory=Bounce)
    hard_bounces: HardBounces = field(default_factory=HardBounces)
    retention: Retention = field(default_factory=Retention)
    #: by domain, in lower case and ASCII: mail from there that goes over SMTP is signed
    dkim: Mapping[str, DkimKey] = field(default_factory=lambda: MappingProxyType({}))
    #: who gets all mail to those that *allow_recipients* does not allow; a bare address
    redirect_to: str | None = None
    #: patterns of the only addresses mailed, such as ``*@example.org``; None is all, or with *redirect_to* none
    allow_recipients: tuple[str, ...] | None = None
    #: bytes of a message's JSON, above which it is refused; 25 MB, a MB being 1,000,000 bytes
    max_size: int = 25_000_000
    #: of one message: see ``Bounds``
    max_recipients: int = bounds.DEFAULT.max_recipients
    max_attachments: int = bounds.DEFAULT.max_attachments
    #: characters
    max_header_length: int = bounds.DEFAULT.max_header_length
    max_values: int = bounds.DEFAULT.max_values
    #: levels
    max_nesting: int = bounds.DEFAULT.max_nesting
    #: where large attachments lie while their mail is on its way; None: they travel with it, if RabbitMQ takes them
    blobs: BlobSettings | None = None
    #: dotted path of a function without arguments that sets OpenTelemetry up; None: nothing is traced
    tracing: str | None = None
    #: seconds; held mail is looked at again at least this often
    hold_probe: float = 30.0
    #: seconds; an attempt that takes longer is given up, with its outcome unknown
    attempt_timeout: float = 120.0

    @property
    def bounds(self) -> Bounds:
        """What one message may have, but for its size."""
        return bounds.of(self)

    def mailers_of(self, tenant: object) -> Mapping[str, MailerSettings]:
        """The mailers that mail for *tenant* may name: its own and everybody's. Whatever is no tenant has no own."""
        own = self.tenants.get(tenant) if isinstance(tenant, str) else None
        return {**self.mailers, **own} if own else self.mailers

    def content_of(self, mailer: str, tenant: str | None) -> Content:
        """What is kept of a mail's content once it is over: the word of whoever is closest to it."""
        own = self.tenants.get(tenant or "", {}).get(mailer)
        shared = self.mailers.get(mailer)
        words = (own and own.content, self.retention.tenants.get(tenant or ""), shared and shared.content)
        return next((word for word in words if word), self.retention.content)

    def masked(self) -> dict[str, object]:
        """Plain data in the shape of ``config.yaml``'s ``mail`` section, every default filled in, no secret left in."""
        plain = {
            "default_from": self.default_from,
            "mailers": _mailers_as_configured(self.mailers),
            "routing": [_rule_as_configured(rule) for rule in self.routing],
            "tenants": {name: {"mailers": _mailers_as_configured(mailers)} for name, mailers in self.tenants.items()},
            "tenant_mailers": self.tenant_mailers,
            "limits": {
                "tenants": {name: _limit_as_configured(limit) for name, limit in self.limits.tenants.items()},
                "domains": {name: _limit_as_configured(limit) for name, limit in self.limits.domains.items()},
            },
            "database": self.database,
            "event_sources": self.event_sources,
            "schedules": {name: _schedule_as_configured(schedule) for name, schedule in self.schedules.items()},
            "backoff": {"send": self.backoff.send, "submit": self.backoff.submit, "event": self.backoff.event},
            "classifier": self.classifier,
            "hooks": self.hooks,
            "bounce": {
                "to_sender": self.bounce.to_sender,
                "mailer": self.bounce.mailer,
                "whole": self.bounce.whole,
                "factory": self.bounce.factory,
            },
            "hard_bounces": {"suppress": self.hard_bounces.suppress, "days": self.hard_bounces.days},
            "retention": {
                "every": self.retention.every,
                "records": dict(self.retention.records),
                "content": self.retention.content,
                "content_days": self.retention.content_days,
                "tenants": dict(self.retention.tenants),
            },
            "dkim": {name: {"selector": key.selector, "keyfile": key.keyfile} for name, key in self.dkim.items()},
            "redirect_to": self.redirect_to,
            "allow_recipients": self.allow_recipients,
            "max_size": self.max_size,
            **asdict(self.bounds),
            "blobs": _blobs_as_configured(self.blobs),
            "tracing": self.tracing,
            "hold_probe": self.hold_probe,
            "attempt_timeout": self.attempt_timeout,
        }
        masked = mask(plain)
        assert isinstance(masked, dict)  # noqa: S101 - a mapping is masked into a dict
        return masked


def _mailers_as_configured(mailers: Mapping[str, MailerSettings]) -> dict[str, object]:
    return {name: _mailer_as_configured(mailer) for name, mailer in mailers.items()}


def _rule_as_configured(rule: RoutingRule) -> dict[str, object]:
    conditions = {
        "tenant": rule.tenants,
        "sender_domain": rule.sender_domains,
        "recipient_domain": rule.recipient_domains,
        "tag": rule.tags,
    }
    single = len(rule.mailers) == 1
    target: object = next(iter(rule.mailers)) if single else dict(rule.mailers)
    return {key: values for key, values in conditions.items() if values} | {"mailer": target}


def _mailer_as_configured(mailer: MailerSettings) -> dict[str, object]:
    entry: dict[str, object] = {"BACKEND": mailer.backend, "OPTIONS": mailer.options}
    if mailer.failover:
        entry["failover"] = mailer.failover
    entry["on_unknown"] = mailer.on_unknown
    if mailer.limit is not None:
        entry["limit"] = _limit_as_configured(mailer.limit)
    if mailer.http_retry is not None:
        entry["http_retry"] = mailer.http_retry
    if mailer.content is not None:
        entry["content"] = mailer.content
    return entry


def _blobs_as_configured(blobs: BlobSettings | None) -> dict[str, object] | None:
    if blobs is None:
        return None
    where: dict[str, object] = {"BACKEND": blobs.backend, "OPTIONS": blobs.options}
    return ({"folder": blobs.folder} if blobs.backend is None else where) | {"above": blobs.above}


def _limit_as_configured(limit: Limit) -> dict[str, object]:
    rate = {} if limit.rate is None else {"rate": limit.rate, "per": limit.per, "burst": limit.burst}
    entry = {**rate, "concurrency": limit.concurrency, "day": limit.day}
    return {key: value for key, value in entry.items() if value is not None}


def _schedule_as_configured(schedule: Schedule) -> dict[str, object]:
    entry: dict[str, object]
    if isinstance(schedule, FixedSchedule):
        entry = {"schedule": schedule.schedule_ms}
    else:
        entry = {"first": schedule.first_ms, "factor": schedule.factor, "longest": schedule.longest_ms}
    entry["limit"] = schedule.limit
    if schedule.max_age_ms is not None:
        entry["max_age"] = schedule.max_age_ms
    return entry
