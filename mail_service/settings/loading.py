"""From nameko's configuration to ``Settings``: one function for each part of the ``mail`` section."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

from mail_service import blobs, bounds, tls
from mail_service.errors import ConfigurationError
from mail_service.settings import database
from mail_service.settings.care import read_hard_bounces, read_retention
from mail_service.settings.dkim import read_dkim
from mail_service.settings.limits import read_limits
from mail_service.settings.mailers import read_mailers, read_tenants
from mail_service.settings.model import BUILT_IN_SCHEDULES, Bounce, DoorSchedules, Schedule, Settings
from mail_service.settings.reading import Mistakes, Section, is_dotted_path, is_mailbox, nearest, shown
from mail_service.settings.routing import read_routing
from mail_service.settings.schedules import read_schedules

#: of a section, in the order in which the README explains them
_KEYS = (
    "default_from",
    "mailers",
    "routing",
    "tenants",
    "tenant_mailers",
    "limits",
    "database",
    "event_sources",
    "schedules",
    "backoff",
    "classifier",
    "hooks",
    "bounce",
    "hard_bounces",
    "retention",
    "dkim",
    "redirect_to",
    "allow_recipients",
    "max_size",
    "max_recipients",
    "max_attachments",
    "max_header_length",
    "max_values",
    "max_nesting",
    "blobs",
    "tracing",
    "hold_probe",
    "attempt_timeout",
)
#: bytes; RabbitMQ 3 takes no message above 128 MiB
_LARGEST_MESSAGE = 128 * 1024 * 1024
#: name, what is counted, from, to; 998 characters are a line (RFC 5322, 2.1.1)
_BOUNDS = (
    ("max_recipients", "recipients", 1, 1_000_000),
    ("max_attachments", "attachments", 0, 1_000_000),
    ("max_header_length", "characters", 998, 10_000_000),
    ("max_values", "values", 100, 10_000_000),
    ("max_nesting", "levels", 0, bounds.DEEPEST),
)
#: seconds; RabbitMQ takes a message away from a consumer after 30 minutes, and another one would then send it too
_LONGEST_ATTEMPT = 1500
_LONGEST_PROBE = 86_400
#: an address, or a pattern of addresses
_PATTERN = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+")


def load_settings(config: Mapping[str, object]) -> Settings:
    """
    The ``mail`` section of *config*, which is the whole of nameko's configuration; every key has a default.

    Raises:
        ConfigurationError: with all mistakes, one in a line. No value of a key with a secret's name is in it.
    """
    mistakes = Mistakes()
    _check_nameko_keys(config, mistakes)
    settings = _read_mail(Section(config.get("mail"), "mail", mistakes, _KEYS))
    if mistakes.found:
        raise ConfigurationError("\n".join(mistakes.found))
    return settings


def _check_nameko_keys(config: Mapping[str, object], mistakes: Mistakes) -> None:
    if "AMQP_URI" in config and not _is_url(config["AMQP_URI"]):
        # its value is not shown: even where it is no URL, there may be a password in it
        mistakes.add("AMQP_URI", "expected a URL like pyamqp://user:password@host:5672/vhost")
    for path, problem in tls.problems(config.get("AMQP_SSL")):
        mistakes.add(path, problem)
    if not _is_web_address(config.get("WEB_SERVER_ADDRESS")):
        address = shown(config["WEB_SERVER_ADDRESS"])
        mistakes.add("WEB_SERVER_ADDRESS", f"expected [address:]port like 127.0.0.1:8000, got {address}")
    if "max_workers" in config:
        Section(config, "", mistakes).whole("max_workers", 10, least=1)
    if "mail" not in config:
        _note_a_misspelt_section(config, mistakes)


def _note_a_misspelt_section(config: Mapping[str, object], mistakes: Mistakes) -> None:
    """With ``Mail:`` or ``mial:`` the defaults would hold, and mail go to a folder instead of to people."""
    for key in config:
        if difflib.get_close_matches(str(key).lower(), ["mail"], cutoff=0.75):
            mistakes.add(str(key), "unknown section, and there is no section mail; did you mean mail?")


def _is_web_address(value: object) -> bool:
    """Whether nameko can listen there, or nobody asks for it."""
    found = re.fullmatch(r"(?:[^:\s]+:)?(\d{1,5})", str(value))
    return value is None or (found is not None and not isinstance(value, bool) and 0 < int(found[1]) < 65536)


def _is_url(value: object) -> bool:
    return isinstance(value, str) and "://" in value


def _read_mail(mail: Section) -> Settings:
    defaults = Settings()
    default_from = _read_default_from(mail, defaults.default_from)
    schedules = read_schedules(mail.section("schedules"))
    mailers = read_mailers(mail)
    tenants = read_tenants(mail, mailers)
    return Settings(
        default_from=default_from,
        mailers=mailers,
        routing=read_routing(mail, mailers, tenants),
        tenants=tenants,
        tenant_mailers=_read_optional_path(mail, "tenant_mailers", "myproject.mail.mailers_of"),
        limits=read_limits(mail),
        database=database.read_url(mail, defaults.database),
        event_sources=mail.names("event_sources"),
        schedules=schedules,
        backoff=_read_backoff(mail, schedules),
        classifier=_read_dotted_path(mail, "classifier", defaults.classifier),
        hooks=_read_hooks(mail),
        bounce=_read_bounce(mail, mailers),
        hard_bounces=read_hard_bounces(mail),
        retention=read_retention(mail),
        dkim=read_dkim(mail),
        redirect_to=_read_redirect_to(mail),
        allow_recipients=_read_allow_recipients(mail),
        max_size=mail.whole(
            "max_size", defaults.max_size, what="a whole number of bytes", least=1, most=_LARGEST_MESSAGE
        ),
        **_read_bounds(mail),
        blobs=_read_blobs(mail),
        tracing=_read_optional_path(mail, "tracing", "myproject.tracing.set_up"),
        hold_probe=mail.number("hold_probe", defaults.hold_probe, what="seconds", above=True, most=_LONGEST_PROBE),
        attempt_timeout=mail.number(
            "attempt_timeout", defaults.attempt_timeout, what="seconds", above=True, most=_LONGEST_ATTEMPT
        ),
    )


def _read_bounds(mail: Section) -> dict[str, int]:
    """Each from the least that a usual mail needs to the most that anybody can mean."""
    return {
        name: mail.whole(name, getattr(bounds.DEFAULT, name), what=f"a whole number of {what}", least=least, most=most)
        for name, what, least, most in _BOUNDS
    }


def _read_default_from(mail: Section, default: str) -> str:
    value = mail.text("default_from", default, what="an address like Example <no-reply@example.org>")
    if not is_mailbox(value):
        mail.wrong("default_from", "one address like Example <no-reply@example.org>", value)
    return value


def _read_redirect_to(mail: Section) -> str | None:
    if mail.values.get("redirect_to") is None:
        return None
    value = mail.text("redirect_to", "", what="a bare address like staging@example.org")
    if value and not (is_mailbox(value) and _PATTERN.fullmatch(value) and "*" not in value):
        mail.wrong("redirect_to", "a bare address like staging@example.org", value)
    return value or None


def _read_allow_recipients(mail: Section) -> tuple[str, ...] | None:
    if mail.values.get("allow_recipients") is None:
        return None
    patterns = mail.names("allow_recipients")
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            mail.wrong("allow_recipients", "patterns of addresses like *@example.org", pattern)
    return patterns


def _read_dotted_path(section: Section, key: str, default: str) -> str:
    value = section.text(key, default, what="a dotted path")
    if not is_dotted_path(value):
        section.wrong(key, f"a dotted path like {default}", value)
    return value


def _read_hooks(mail: Section) -> tuple[str, ...]:
    paths = mail.names("hooks")
    for number, path in enumerate(paths):
        if not is_dotted_path(path):
            mail.wrong(f"hooks[{number}]", "a dotted path like mail_service.hooks.per_domain", path)
    return paths


def _read_optional_path(section: Section, key: str, example: str) -> str | None:
    # null is the default, and what check-config prints
    if section.values.get(key) is None:
        return None
    value = section.text(key, "", what=f"a dotted path like {example}")
    if value and not is_dotted_path(value):
        section.wrong(key, f"a dotted path like {example}", value)
    return value or None


def _read_bounce(mail: Section, mailers: Collection[str]) -> Bounce:
    bounce = mail.section("bounce", ["to_sender", "mailer", "whole", "factory"])
    mailer = None if bounce.values.get("mailer") is None else bounce.text("mailer", None, what="the name of a mailer")
    if mailer is not None and mailer not in mailers:
        bounce.mistakes.add(bounce.at("mailer"), f"no mailer is called {shown(mailer)}; {nearest(mailer, mailers)}")
    return Bounce(
        to_sender=bounce.flag("to_sender", default=False),
        mailer=mailer,
        whole=bounce.flag("whole", default=False),
        factory=_read_optional_path(bounce, "factory", "myproject.mail.report_of"),
    )


def _read_blobs(mail: Section) -> blobs.BlobSettings | None:
    if mail.values.get("blobs") is None:
        return None
    section = mail.section("blobs", blobs.KEYS)
    found, wrong = blobs.read(section.values)
    for key, expected in wrong:
        section.wrong(key, expected, section.values[key])
    return found


def _read_backoff(mail: Section, schedules: Mapping[str, Schedule]) -> DoorSchedules:
    doors = mail.section("backoff", ["send", "submit", "event"])
    defaults = DoorSchedules()
    # a schedule that was itself mistaken is reported once, at its own place
    names = {*schedules, *BUILT_IN_SCHEDULES, *mail.section_keys("schedules")}
    return DoorSchedules(
        send=_read_schedule_name(doors, "send", defaults.send, names),
        submit=_read_schedule_name(doors, "submit", defaults.submit, names),
        event=_read_schedule_name(doors, "event", defaults.event, names),
    )


def _read_schedule_name(doors: Section, door: str, default: str, names: Collection[str]) -> str:
    name = doors.text(door, default, what="the name of a schedule")
    if name not in names:
        doors.mistakes.add(doors.at(door), f"no schedule is called {shown(name)}; {nearest(name, sorted(names))}")
    return name
