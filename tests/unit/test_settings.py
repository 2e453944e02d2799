"""The mail section of config.yaml: what it means, what it refuses, and what it never shows."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import urllib3
import yaml

from mail_service.errors import ConfigurationError
from mail_service.outcome import FINAL
from mail_service.settings import (
    Bounce,
    DkimKey,
    DoorSchedules,
    DynamicSchedule,
    FixedSchedule,
    HardBounces,
    Limit,
    Retention,
    Settings,
    check_imports,
    is_secret_name,
    load_config_file,
    load_settings,
    mask,
    mask_text,
)
from mail_service.settings.mailers import RETRY_WORDS

ROOT = Path(__file__).resolve().parents[2]
SMTP = "django.core.mail.backends.smtp.EmailBackend"
LOCMEM = "django.core.mail.backends.locmem.EmailBackend"


def settings_of(**mail: object) -> Settings:
    return load_settings({"mail": mail})


def mailer(**entry: object) -> dict[str, object]:
    return {"default": {"BACKEND": LOCMEM, **entry}}


def mistakes_in(config: Mapping[str, object]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(config)
    return str(caught.value).splitlines()


def mistake_in(**mail: object) -> str:
    (mistake,) = mistakes_in({"mail": mail})
    return mistake


class TestDefaults:
    @pytest.mark.parametrize(
        "config", [{}, {"mail": None}, {"mail": {}}], ids=["no section", "empty section", "no keys"]
    )
    def test_every_key_may_be_left_out(self, config: dict[str, object]) -> None:
        assert load_settings(config) == Settings()

    def test_the_defaults_are_the_documented_ones(self) -> None:
        settings = load_settings({})

        assert settings.default_from == "webmaster@localhost"
        assert settings.database == "sqlite:///var/mail_service.db"
        assert settings.event_sources == ()
        assert settings.backoff == DoorSchedules(send="impatient", submit="dynamic", event="dynamic")
        assert settings.classifier == "mail_service.diagnosis.diagnose"
        assert settings.bounce == Bounce(to_sender=False)
        assert (settings.max_size, settings.hold_probe, settings.attempt_timeout) == (25_000_000, 30.0, 120.0)

    def test_without_mailers_nothing_leaves_the_machine(self) -> None:
        default = load_settings({}).mailers["default"]

        assert default.backend == "django.core.mail.backends.filebased.EmailBackend"
        assert dict(default.options) == {"file_path": "var/outbox"}

    def test_the_built_in_schedules_are_the_contracts(self) -> None:
        assert dict(load_settings({}).schedules) == {
            "impatient": FixedSchedule(name="impatient", schedule_ms=(100, 200, 500), limit=3),
            "fixed": FixedSchedule(name="fixed", schedule_ms=(60_000,), limit=30),
            "dynamic": DynamicSchedule(
                name="dynamic", first_ms=10_000, factor=4, longest_ms=10_800_000, max_age_ms=172_800_000
            ),
        }

    def test_settings_cannot_be_changed(self) -> None:
        settings = settings_of(mailers=mailer())

        with pytest.raises(dataclasses.FrozenInstanceError):
            settings.max_size = 1  # type: ignore[misc]
        with pytest.raises(TypeError):
            settings.mailers["other"] = settings.mailers["default"]  # type: ignore[index]
        with pytest.raises(TypeError):
            settings.mailers["default"].options["host"] = "x"  # type: ignore[index]


class TestTheContractsExample:
    CONFIG = """
mail:
  default_from: Example <no-reply@example.org>
  mailers:
    default:
      BACKEND: django.core.mail.backends.smtp.EmailBackend
      OPTIONS: {host: localhost, port: 1025, timeout: 30}
      failover: [second]
      on_unknown: retry
      limit: {rate: 14, per: 1, concurrency: 10}
      http_retry: {connect: 2}
    second:
      BACKEND: anymail.backends.postmark.EmailBackend
      on_unknown: give_up
      content: drop
  routing:
    - {sender_domain: [Example.org, "*.example.org"], tag: news, mailer: {second: 3, default: 1}}
    - {tenant: acme, recipient_domain: example.com, mailer: own}
  tenants:
    acme:
      mailers:
        own: {BACKEND: anymail.backends.resend.EmailBackend, failover: [default]}
  tenant_mailers: myproject.mail.mailers_of
  database: postgresql+psycopg://mail:secret@db/mail
  event_sources: [orders]
  schedules:
    impatient: {schedule: [100, 200, 500], limit: 3}
    fixed: {schedule: [60000], limit: 30}
    dynamic: {first: 10000, factor: 4, longest: 10800000, max_age: 172800000}
  backoff: {send: impatient, submit: dynamic, event: dynamic}
  classifier: mail_service.diagnosis.diagnose
  hooks: [mail_service.hooks.per_domain, myproject.mail.stamp]
  bounce: {to_sender: true, mailer: second, whole: true, factory: myproject.mail.report_of}
  hard_bounces: {suppress: true, days: null}
  retention: {every: 60, records: {sent: 0.5, all: 90}, content: redact, content_days: 14, tenants: {clinic: drop}}
  dkim: {Bücher.example: {selector: s2026, keyfile: keys/example.org.pem}}
  blobs: {BACKEND: myproject.Storage, OPTIONS: {bucket_name: our-mail}, above: 200000}
  redirect_to: staging@example.org
  allow_recipients: ["*@example.org"]
  max_size: 1000
  hold_probe: 1
  attempt_timeout: 2.5
"""

    def test_it_is_read_completely(self) -> None:
        settings = load_settings(yaml.safe_load(self.CONFIG))

        default, second = settings.mailers["default"], settings.mailers["second"]
        assert settings.default_from == "Example <no-reply@example.org>"
        assert (default.name, default.backend) == ("default", SMTP)
        assert dict(default.options) == {"host": "localhost", "port": 1025, "timeout": 30}
        assert (default.failover, default.on_unknown) == (("second",), "retry")
        assert default.limit == Limit(rate=14.0, per=1.0, concurrency=10)
        assert dict(default.http_retry or {}) == {"connect": 2}
        assert (second.on_unknown, second.limit, second.http_retry) == ("give_up", None, None)
        assert settings.database == "postgresql+psycopg://mail:secret@db/mail"
        assert settings.event_sources == ("orders",)
        assert settings.schedules == load_settings({}).schedules
        assert settings.bounce == Bounce(
            to_sender=True, mailer="second", whole=True, factory="myproject.mail.report_of"
        )
        assert settings.hooks == ("mail_service.hooks.per_domain", "myproject.mail.stamp")
        assert settings.hard_bounces == HardBounces(suppress=True, days=None)
        assert settings.retention == Retention(
            every=60.0,
            records={**dict.fromkeys(map(str, FINAL), 90.0), "sent": 0.5},
            content="redact",
            content_days=14.0,
            tenants={"clinic": "drop"},
        )
        assert settings.dkim == {"xn--bcher-kva.example": DkimKey(selector="s2026", keyfile="keys/example.org.pem")}
        assert settings.blobs is not None
        assert (settings.blobs.backend, settings.blobs.above) == ("myproject.Storage", 200_000)
        assert (settings.redirect_to, settings.allow_recipients) == ("staging@example.org", ("*@example.org",))
        assert [dict(rule.mailers) for rule in settings.routing] == [{"second": 3, "default": 1}, {"own": 1}]
        assert settings.routing[0].sender_domains == ("example.org", "*.example.org")
        assert settings.routing[1].tenants == ("acme",)
        assert settings.tenants["acme"]["own"].failover == ("default",)
        assert settings.tenant_mailers == "myproject.mail.mailers_of"
        assert (settings.max_size, settings.hold_probe, settings.attempt_timeout) == (1000, 1.0, 2.5)

    def test_what_is_printed_of_it_can_be_read_again(self) -> None:
        settings = load_settings(yaml.safe_load(self.CONFIG))

        again = load_settings({"mail": yaml.safe_load(yaml.safe_dump(settings.masked()))})

        assert dataclasses.replace(again, database=settings.database) == settings


MISTAKES = {
    "a hook that is no path": (
        {"mail": {"hooks": ["mail_service.hooks.per_domain", "stamp"]}},
        'mail.hooks[1]: expected a dotted path like mail_service.hooks.per_domain, got "stamp"',
    ),
    "days that are none": (
        {"mail": {"hard_bounces": {"days": 0}}},
        "mail.hard_bounces.days: expected days, or null for no end, above 0 to 36500, got 0",
    ),
    "a status that is not final": (
        {"mail": {"retention": {"records": {"deferred": 3}}}},
        (
            "mail.retention.records.deferred: unknown key; known: discarded, expired, failed, partly_sent, sent, "
            "suppressed, all"
        ),
    ),
    "a word for content that there is not": (
        {"mail": {"retention": {"content": "delete"}}},
        'mail.retention.content: expected one of keep, redact, drop, got "delete"; known: keep, redact, drop',
    ),
    "the same of a mailer": (
        {"mail": {"mailers": {"default": {"BACKEND": SMTP, "content": None}}}},
        (
            "mail.mailers.default.content: expected one of keep, redact, drop, got nothing; leave the key out for the "
            "default (or is an environment variable empty?)"
        ),
    ),
    "the same of a tenant": (
        {"mail": {"retention": {"tenants": {"acme": "dropp"}}}},
        'mail.retention.tenants.acme: expected one of keep, redact, drop, got "dropp"; did you mean drop?',
    ),
    # the whole section
    "a section that is no mapping": ({"mail": ["x"]}, "mail: expected a mapping, got a list"),
    "an unknown key": ({"mail": {"max_sise": 1}}, "mail.max_sise: unknown key; did you mean max_size?"),
    "a key in the wrong case": (
        {"mail": {"mailers": mailer(options={})}},
        "mail.mailers.default.options: unknown key; did you mean OPTIONS?",
    ),
    "a misspelt key of a mailer": (
        {"mail": {"mailers": mailer(OPTOINS={})}},
        "mail.mailers.default.OPTOINS: unknown key; did you mean OPTIONS?",
    ),
    "a key like no other": (
        {"mail": {"bounce": {"xyz": 1}}},
        "mail.bounce.xyz: unknown key; known: to_sender, mailer, whole, factory",
    ),
    "a key that is a number": (
        {"mail": {5: 1, "bounce": {}}},
        (
            "mail.5: unknown key; known: default_from, mailers, routing, tenants, tenant_mailers, limits, database, "
            "event_sources, schedules, backoff, classifier, hooks, bounce, hard_bounces, retention, dkim, redirect_to, "
            "allow_recipients, max_size, max_recipients, max_attachments, max_header_length, max_values, max_nesting, "
            "blobs, tracing, hold_probe, attempt_timeout"
        ),
    ),
    "a misspelt section": (
        {"Mail": {"max_size": 1}},
        "Mail: unknown section, and there is no section mail; did you mean mail?",
    ),
    # nameko's own
    "workers in quotes": (
        {"max_workers": "10"},
        'max_workers: expected a whole number >= 1, got "10", which is a text; leave the quotes away',
    ),
    "no workers": ({"max_workers": 0}, "max_workers: expected a whole number >= 1, got 0"),
    "true as a number of workers": ({"max_workers": True}, "max_workers: expected a whole number >= 1, got true"),
    "a broker that is no text": (
        {"AMQP_URI": 5672},
        "AMQP_URI: expected a URL like pyamqp://user:password@host:5672/vhost",
    ),
    # scalars
    "a sender without a domain": (
        {"mail": {"default_from": "somebody"}},
        'mail.default_from: expected one address like Example <no-reply@example.org>, got "somebody"',
    ),
    "two senders": (
        {"mail": {"default_from": "a@example.org, b@example.org"}},
        (
            "mail.default_from: expected one address like Example <no-reply@example.org>, "
            'got "a@example.org, b@example.org"'
        ),
    ),
    "an empty sender": (
        {"mail": {"default_from": None}},
        (
            "mail.default_from: expected an address like Example <no-reply@example.org>, "
            "got nothing; leave the key out for the default (or is an environment variable empty?)"
        ),
    ),
    "a size with a unit": (
        {"mail": {"max_size": "25 MB"}},
        'mail.max_size: expected a whole number of bytes from 1 to 134217728, got "25 MB"',
    ),
    "a fraction of a byte": (
        {"mail": {"max_size": 1.5}},
        "mail.max_size: expected a whole number of bytes from 1 to 134217728, got 1.5",
    ),
    "a probe that never waits": (
        {"mail": {"hold_probe": 0}},
        "mail.hold_probe: expected seconds above 0 to 86400, got 0",
    ),
    "a timeout that never comes": (
        {"mail": {"attempt_timeout": float("inf")}},
        "mail.attempt_timeout: expected seconds above 0 to 1500, got inf",
    ),
    "a timeout longer than the broker's": (
        {"mail": {"attempt_timeout": 1501}},
        "mail.attempt_timeout: expected seconds above 0 to 1500, got 1501",
    ),
    "true as seconds": (
        {"mail": {"hold_probe": True}},
        "mail.hold_probe: expected seconds above 0 to 86400, got true",
    ),
    "a number as a flag": (
        {"mail": {"bounce": {"to_sender": 1}}},
        "mail.bounce.to_sender: expected true or false, got 1",
    ),
    "a mailer of reports that nobody has": (
        {"mail": {"bounce": {"mailer": "defalt"}}},
        'mail.bounce.mailer: no mailer is called "defalt"; did you mean default?',
    ),
    "a factory that is no path": (
        {"mail": {"bounce": {"factory": "make"}}},
        'mail.bounce.factory: expected a dotted path like myproject.mail.report_of, got "make"',
    ),
    "a name and an address to redirect to": (
        {"mail": {"redirect_to": "Staging <staging@example.org>"}},
        'mail.redirect_to: expected a bare address like staging@example.org, got "Staging <staging@example.org>"',
    ),
    "a pattern to redirect to": (
        {"mail": {"redirect_to": "*@example.org"}},
        'mail.redirect_to: expected a bare address like staging@example.org, got "*@example.org"',
    ),
    "one pattern": (
        {"mail": {"allow_recipients": "*@example.org"}},
        'mail.allow_recipients: expected a list of names, got "*@example.org"; write [*@example.org]',
    ),
    "a pattern that is a domain": (
        {"mail": {"allow_recipients": ["*@example.org", "example.org"]}},
        'mail.allow_recipients: expected patterns of addresses like *@example.org, got "example.org"',
    ),
    "a domain of a key that is none": (
        {"mail": {"dkim": {"*.example.org": {"selector": "s", "keyfile": "k"}}}},
        'mail.dkim: expected a domain like example.org, got "*.example.org"',
    ),
    "a key without a selector": (
        {"mail": {"dkim": {"example.org": {"keyfile": "k"}}}},
        "mail.dkim.example.org.selector: missing",
    ),
    "a selector that cannot stand in DNS": (
        {"mail": {"dkim": {"example.org": {"selector": "s_1", "keyfile": "k"}}}},
        'mail.dkim.example.org.selector: expected the name of the key in DNS, such as s2026, got "s_1"',
    ),
    "a store of blobs with two places": (
        {"mail": {"blobs": {"folder": "f", "BACKEND": "a.B"}}},
        'mail.blobs.folder: expected no folder beside BACKEND, got "f"',
    ),
    "a web address without a port": (
        {"WEB_SERVER_ADDRESS": "localhost"},
        'WEB_SERVER_ADDRESS: expected [address:]port like 127.0.0.1:8000, got "localhost"',
    ),
    "a web address with a port too many": (
        {"WEB_SERVER_ADDRESS": "127.0.0.1:80000"},
        'WEB_SERVER_ADDRESS: expected [address:]port like 127.0.0.1:8000, got "127.0.0.1:80000"',
    ),
    "a classifier that is no path": (
        {"mail": {"classifier": "diagnose"}},
        'mail.classifier: expected a dotted path like mail_service.diagnosis.diagnose, got "diagnose"',
    ),
    "one event source": (
        {"mail": {"event_sources": "orders"}},
        'mail.event_sources: expected a list of names, got "orders"; write [orders]',
    ),
    "an event source that is no name": (
        {"mail": {"event_sources": ["orders", 5]}},
        "mail.event_sources[1]: expected a name, got 5",
    ),
    "an event source twice": (
        {"mail": {"event_sources": ["orders", "orders"]}},
        'mail.event_sources[1]: "orders" stands there twice',
    ),
    # mailers
    "no default mailer": (
        {"mail": {"mailers": {"defualt": {"BACKEND": SMTP}}}},
        "mail.mailers: no mailer is called default (defualt is); it has to be there",
    ),
    "no mailer at all": (
        {"mail": {"mailers": None}},
        "mail.mailers: no mailer is called default; it has to be there",
    ),
    "mailers that are a list": (
        {"mail": {"mailers": [SMTP]}},
        "mail.mailers: expected a mapping, got a list",
    ),
    "a mailer that is a text": (
        {"mail": {"mailers": {"default": SMTP}}},
        f'mail.mailers.default: expected a mapping, got "{SMTP}"',
    ),
    "a mailer without a name": (
        {"mail": {"mailers": mailer() | {"": {}}}},
        'mail.mailers: expected a name for the mailer, got ""',
    ),
    "a backend that is no path": (
        {"mail": {"mailers": mailer(BACKEND="smtp")}},
        f'mail.mailers.default.BACKEND: expected the dotted path of a class like {SMTP}, got "smtp"',
    ),
    "our own backend": (
        {"mail": {"mailers": mailer(BACKEND="mail_service.django.EmailBackend")}},
        (
            "mail.mailers.default.BACKEND: mail_service.django.EmailBackend hands mail to this service, "
            "which would go round for ever"
        ),
    ),
    "options that are a list": (
        {"mail": {"mailers": mailer(OPTIONS=["host"])}},
        "mail.mailers.default.OPTIONS: expected a mapping, got a list",
    ),
    "an alias": (
        {"mail": {"mailers": mailer(OPTIONS={"alias": "x"})}},
        "mail.mailers.default.OPTIONS.alias: not allowed, as in Django: the mailer's name is its alias",
    ),
    "failures kept silent": (
        {"mail": {"mailers": mailer(OPTIONS={"fail_silently": True})}},
        "mail.mailers.default.OPTIONS.fail_silently: not allowed: a failure that is not seen loses the mail",
    ),
    "an unknown word for unknown": (
        {"mail": {"mailers": mailer(on_unknown="giveup")}},
        'mail.mailers.default.on_unknown: expected one of retry, give_up, got "giveup"; did you mean give_up?',
    ),
    "failover to nobody": (
        {"mail": {"mailers": mailer(failover=["secnd"]) | {"second": {}}}},
        'mail.mailers.default.failover: no mailer is called "secnd"; did you mean second?',
    ),
    "failover to itself": (
        {"mail": {"mailers": mailer(failover=["default"])}},
        "mail.mailers.default.failover: leads back to where it began: default -> default",
    ),
    "failover in a circle": (
        {"mail": {"mailers": mailer(failover=["b"]) | {"b": {"failover": ["c"]}, "c": {"failover": ["default"]}}}},
        "mail.mailers.default.failover: leads back to where it began: default -> b -> c -> default",
    ),
    "a period without a rate": (
        {"mail": {"mailers": mailer(limit={"per": 60})}},
        "mail.mailers.default.limit.rate: missing; per is the number of seconds in which so many mails are sent",
    ),
    "a rate of nothing": (
        {"mail": {"mailers": mailer(limit={"rate": 0})}},
        "mail.mailers.default.limit.rate: expected a number of mails > 0, got 0",
    ),
    "no concurrency": (
        {"mail": {"mailers": mailer(limit={"concurrency": 0})}},
        "mail.mailers.default.limit.concurrency: expected a whole number >= 1, got 0",
    ),
    "a burst without a rate": (
        {"mail": {"mailers": mailer(limit={"burst": 5})}},
        "mail.mailers.default.limit.rate: missing; burst goes with it",
    ),
    "a burst of nothing": (
        {"mail": {"mailers": mailer(limit={"rate": 1, "burst": 0})}},
        "mail.mailers.default.limit.burst: expected a whole number of mails >= 1, got 0",
    ),
    "a period of more than a day": (
        {"mail": {"mailers": mailer(limit={"rate": 1, "per": 90000})}},
        "mail.mailers.default.limit.per: expected seconds above 0 to 86400, got 90000",
    ),
    "half a mail a day": (
        {"mail": {"limits": {"tenants": {"acme": {"day": 0.5}}}}},
        "mail.limits.tenants.acme.day: expected a whole number of mails >= 1, got 0.5",
    ),
    "a misspelt key of a limit": (
        {"mail": {"limits": {"tenants": {"*": {"rte": 5}}}}},
        "mail.limits.tenants.*.rte: unknown key; did you mean rate?",
    ),
    "limits of what has none": (
        {"mail": {"limits": {"senders": {}}}},
        "mail.limits.senders: unknown key; known: tenants, domains",
    ),
    "a limit for no domain": (
        {"mail": {"limits": {"domains": {"*": {"rate": 5}}}}},
        'mail.limits.domains: expected a domain like example.org, got "*"',
    ),
    "a limit for a domain in two spellings": (
        {"mail": {"limits": {"domains": {"example.org": {"rate": 5}, "Example.ORG": {"rate": 6}}}}},
        'mail.limits.domains: "Example.ORG" stands there twice',
    ),
    "a misspelt retry word": (
        {"mail": {"mailers": mailer(http_retry={"conect": 2})}},
        "mail.mailers.default.http_retry.conect: unknown key; did you mean connect?",
    ),
    "retries below zero": (
        {"mail": {"mailers": mailer(http_retry={"connect": -1})}},
        "mail.mailers.default.http_retry.connect: expected a whole number >= 0, got -1",
    ),
    "statuses that are no list": (
        {"mail": {"mailers": mailer(http_retry={"status_forcelist": 503})}},
        "mail.mailers.default.http_retry.status_forcelist: expected a list of HTTP status codes, got 503",
    ),
    # routing
    "rules that are no list": (
        {"mail": {"routing": {"tag": "x", "mailer": "default"}}},
        "mail.routing: expected a list of rules, got a mapping",
    ),
    "a rule that is no mapping": (
        {"mail": {"routing": ["default"]}},
        'mail.routing[0]: expected a mapping, got "default"',
    ),
    "a rule without a mailer": (
        {"mail": {"routing": [{"tag": "x"}]}},
        "mail.routing[0].mailer: missing; a rule has to say who takes the mail",
    ),
    "a misspelt condition": (
        {"mail": {"routing": [{"sender_domian": "x.org", "mailer": "default"}]}},
        "mail.routing[0].sender_domian: unknown key; did you mean sender_domain?",
    ),
    "a rule that chooses nobody": (
        {"mail": {"routing": [{"tag": "x", "mailer": "defualt"}]}},
        'mail.routing[0].mailer: no mailer is called "defualt"; did you mean default?',
    ),
    "a rule that chooses another tenant's mailer": (
        {
            "mail": {
                "tenants": {"acme": {"mailers": {"own": None}}, "b": None},
                "routing": [{"tenant": ["acme", "b"], "mailer": "own"}],
            }
        },
        'mail.routing[0].mailer: no mailer is called "own"; known: default',
    ),
    "weights of nobody": (
        {"mail": {"routing": [{"mailer": {"default": 1, "second": 2}}]}},
        'mail.routing[0].mailer.second: no mailer is called "second"; known: default',
    ),
    "a weight of nothing": (
        {"mail": {"routing": [{"mailer": {"default": 0}}]}},
        "mail.routing[0].mailer.default: expected a whole number from 1 to 1000000 as its weight, got 0",
    ),
    "no weights": (
        {"mail": {"routing": [{"mailer": {}}]}},
        (
            "mail.routing[0].mailer: expected the name of a mailer, or several with their weights as "
            "{first: 3, second: 1}, got a mapping"
        ),
    ),
    "a domain that is none": (
        {"mail": {"routing": [{"recipient_domain": ["x.org", "ann@x.org"], "mailer": "default"}]}},
        (
            "mail.routing[0].recipient_domain[1]: expected a domain like example.org, or *.example.org for its "
            'subdomains, got "ann@x.org"'
        ),
    ),
    "a domain with a star inside": (
        {"mail": {"routing": [{"sender_domain": "mail.*.org", "mailer": "default"}]}},
        (
            "mail.routing[0].sender_domain: expected a domain like example.org, or *.example.org for its "
            'subdomains, got "mail.*.org"'
        ),
    ),
    "a tag that is a number": (
        {"mail": {"routing": [{"tag": 5, "mailer": "default"}]}},
        "mail.routing[0].tag: expected a tag, got 5",
    ),
    "a condition that nothing fulfils": (
        {"mail": {"routing": [{"tag": [], "mailer": "default"}]}},
        "mail.routing[0].tag: expected a tag, or a list of such, got an empty list",
    ),
    "a rule that is never reached": (
        {"mail": {"routing": [{"mailer": "default"}, {"tag": "x", "mailer": "default"}]}},
        "mail.routing[0]: takes every mail, so no rule after it is ever looked at",
    ),
    # tenants
    "tenants that are no mapping": ({"mail": {"tenants": ["acme"]}}, "mail.tenants: expected a mapping, got a list"),
    "a tenant's number": (
        {"mail": {"tenants": {17: {}}}},
        "mail.tenants.17: expected a text as key, got 17; put it in quotes",
    ),
    "a tenant whom no option can name": (
        {"mail": {"tenants": {"a\tb": {}}}},
        'mail.tenants: expected the name of a tenant, got "a\\tb"',
    ),
    "a tenant's mailer without the key for it": (
        {"mail": {"tenants": {"acme": {"default": {}}}}},
        "mail.tenants.acme.default: unknown key; known: mailers",
    ),
    "a misspelt key of a tenant's mailer": (
        {"mail": {"tenants": {"acme": {"mailers": {"default": {"OPTOINS": {}}}}}}},
        "mail.tenants.acme.mailers.default.OPTOINS: unknown key; did you mean OPTIONS?",
    ),
    "a tenant's failover to nobody": (
        {"mail": {"tenants": {"acme": {"mailers": {"default": {"failover": ["x"]}}}}}},
        'mail.tenants.acme.mailers.default.failover: no mailer is called "x"; known: default',
    ),
    "a tenant's failover to another tenant's": (
        {"mail": {"tenants": {"a": {"mailers": {"own": None}}, "b": {"mailers": {"x": {"failover": ["own"]}}}}}},
        'mail.tenants.b.mailers.x.failover: no mailer is called "own"; known: default, x',
    ),
    "a tenant's failover in a circle over everybody's": (
        {
            "mail": {
                "mailers": mailer(failover=["b"]) | {"b": None},
                "tenants": {"acme": {"mailers": {"b": {"failover": ["default"]}}}},
            }
        },
        "mail.tenants.acme.mailers.b.failover: leads back to where it began: b -> default -> b",
    ),
    "a mailer that could be a tenant's": (
        {"mail": {"mailers": mailer() | {"b/acme": None}, "tenant_mailers": "a.b"}},
        'mail.mailers: where tenants have mailers, no name of one has a /, got "b/acme"',
    ),
    "a tenant's mailer that could be another tenant's": (
        {"mail": {"tenants": {"acme": {"mailers": {"b/x": None}}}}},
        'mail.tenants.acme.mailers: where tenants have mailers, no name of one has a /, got "b/x"',
    ),
    "a loader that is no path": (
        {"mail": {"tenant_mailers": "loader"}},
        'mail.tenant_mailers: expected a dotted path like myproject.mail.mailers_of, got "loader"',
    ),
    "a loader that is no text": (
        {"mail": {"tenant_mailers": 5}},
        "mail.tenant_mailers: expected a dotted path like myproject.mail.mailers_of, got 5",
    ),
    # schedules
    "a schedule without waits": (
        {"mail": {"schedules": {"mine": {"schedule": []}}}},
        "mail.schedules.mine.schedule: expected a list of milliseconds with at least one item, got an empty list",
    ),
    "a wait in quotes": (
        {"mail": {"schedules": {"mine": {"schedule": [1000, "2000"]}}}},
        (
            "mail.schedules.mine.schedule[1]: expected a whole number of milliseconds from 1 to 31536000000, "
            'got "2000", which is a text; leave the quotes away'
        ),
    ),
    "a wait of nothing": (
        {"mail": {"schedules": {"mine": {"schedule": [0]}}}},
        "mail.schedules.mine.schedule[0]: expected a whole number of milliseconds from 1 to 31536000000, got 0",
    ),
    "both forms of a schedule": (
        {"mail": {"schedules": {"mine": {"schedule": [1], "first": 1}}}},
        "mail.schedules.mine: expected either schedule, or first, factor and longest; got both",
    ),
    "neither form of a schedule": (
        {"mail": {"schedules": {"mine": {"limit": 1}}}},
        "mail.schedules.mine: expected schedule (a list of milliseconds), or first, factor and longest; got neither",
    ),
    "growth from nowhere": (
        {"mail": {"schedules": {"mine": {"factor": 2}}}},
        "mail.schedules.mine.first: missing; expected a whole number of milliseconds, the wait before the first retry",
    ),
    "a factor that shrinks": (
        {"mail": {"schedules": {"dynamic": {"factor": 0.5}}}},
        "mail.schedules.dynamic.factor: expected a number from 1 to 1000, got 0.5",
    ),
    "a limit below zero": (
        {"mail": {"schedules": {"fixed": {"limit": -1}}}},
        "mail.schedules.fixed.limit: expected a whole number of retries, 0 for no limit, >= 0, got -1",
    ),
    "an age of nothing": (
        {"mail": {"schedules": {"fixed": {"max_age": 0}}}},
        "mail.schedules.fixed.max_age: expected a whole number of milliseconds from 1 to 31536000000, got 0",
    ),
    "a door with an unknown schedule": (
        {"mail": {"backoff": {"send": "impatien"}}},
        'mail.backoff.send: no schedule is called "impatien"; did you mean impatient?',
    ),
    "a door that is none": (
        {"mail": {"backoff": {"events": "fixed"}}},
        "mail.backoff.events: unknown key; did you mean event?",
    ),
    # the database
    "a database that is no URL": (
        {"mail": {"database": "var/mail.db"}},
        (
            "mail.database: expected a URL like sqlite:///var/mail_service.db or "
            "postgresql+psycopg://user:password@host/name, got something without ://"
        ),
    ),
    "another database": (
        {"mail": {"database": "mysql://u:secret@h/d"}},
        "mail.database: mysql is not supported; known: sqlite, postgresql+psycopg",
    ),
    "another driver": (
        {"mail": {"database": "postgresql+psycopg2://u:secret@h/d"}},
        "mail.database: the driver psycopg2 is not supported; write postgresql+psycopg://",
    ),
    "an asynchronous SQLite": (
        {"mail": {"database": "sqlite+aiosqlite:///x"}},
        "mail.database: the driver aiosqlite is not supported; write sqlite:///",
    ),
    "a SQLite URL with two slashes": (
        {"mail": {"database": "sqlite://var/mail.db"}},
        (
            "mail.database: three slashes come before a file's name: sqlite:///var/mail_service.db "
            "(four slashes: sqlite:////srv/mail.db, from the root)"
        ),
    ),
    "a database in memory": (
        {"mail": {"database": "sqlite:///:memory:"}},
        "mail.database: a database in memory forgets all mail at a restart; name a file: sqlite:///var/mail_service.db",
    ),
    "a port that is no number": (
        {"mail": {"database": "postgresql://u:secret@h:port/d"}},
        (
            "mail.database: expected postgresql+psycopg://user:password@host:port/name "
            "(is a special character to be %-escaped?)"
        ),
    ),
    "a port that does not exist": (
        {"mail": {"database": "postgresql://u:secret@h:70000/d"}},
        "mail.database: expected a port from 1 to 65535, got 70000",
    ),
}


class TestMistakes:
    @pytest.mark.parametrize(("config", "mistake"), MISTAKES.values(), ids=MISTAKES.keys())
    def test_a_mistake_names_its_path_and_what_was_expected(self, config: dict[str, object], mistake: str) -> None:
        assert mistakes_in(config) == [mistake]

    def test_all_mistakes_are_reported_together(self) -> None:
        mistakes = mistakes_in(
            {
                "max_workers": 0,
                "mail": {
                    "mailers": mailer(OPTOINS={}, limit={"rate": "14"}),
                    "database": "mysql://h/d",
                    "schedules": {"mine": {}},
                    "hold_probe": -1,
                    "sender": "x",
                },
            }
        )

        assert [mistake.split(":")[0] for mistake in mistakes] == [
            "max_workers",
            "mail.sender",
            "mail.schedules.mine",
            "mail.mailers.default.OPTOINS",
            "mail.mailers.default.limit.rate",
            "mail.database",
            "mail.hold_probe",
        ]

    def test_a_mistaken_schedule_is_not_reported_again_where_it_is_used(self) -> None:
        mistake = mistake_in(schedules={"mine": {"schedule": "1000"}}, backoff={"send": "mine"})

        assert mistake.startswith("mail.schedules.mine.schedule: ")

    def test_a_mistake_stands_on_one_line_however_long_the_value(self) -> None:
        mistake = mistake_in(classifier="x\n" * 500)

        assert len(mistake) < 200

    def test_a_section_with_another_purpose_is_not_taken_for_a_misspelt_one(self) -> None:
        assert (
            load_settings({"WEB_SERVER_ADDRESS": "0.0.0.0:8000", "HEARTBEAT": 60, "mail": {}, "mails": {}})
            == Settings()
        )


class TestSecretsInMistakes:
    @pytest.mark.parametrize(
        "config",
        [
            {"AMQP_URI": ["pyamqp://u:hunter2@h"]},
            {"AMQP_URI": "hunter2"},
            {"mail": "smtp://u:hunter2@h"},
            {"mail": {"database": "hunter2"}},
            {"mail": {"database": "mysql://u:hunter2@h/d"}},
            {"mail": {"database": "postgresql://u:hunter2@h:x/d"}},
            {"mail": {"mailers": "smtp://u:hunter2@h"}},
            {"mail": {"mailers": {"default": "smtp://u:hunter2@h"}}},
            {"mail": {"mailers": mailer(OPTIONS="password=hunter2")}},
            {"mail": {"mailers": mailer(BACKEND="smtp://u:hunter2@h")}},
            {"mail": {"mailers": mailer(password="hunter2")}},
            {"mail": {"api_key": "hunter2"}},
            {"mail": {"mailers": mailer(limit={"token": "hunter2"})}},
            {"mail": {"schedules": {"secret": "hunter2"}}},
            {"mail": {"tenants": {"acme": {"mailers": {"default": {"OPTIONS": "password=hunter2"}}}}}},
            {"mail": {"tenants": {"acme": "smtp://u:hunter2@h"}}},
            {"mail": {"routing": ["smtp://u:hunter2@h"]}},
        ],
        ids=repr,
    )
    def test_no_secret_is_in_a_mistake(self, config: dict[str, object]) -> None:
        assert "hunter2" not in "\n".join(mistakes_in(config))


class TestMailers:
    def test_a_mailer_without_backend_is_smtp_as_in_django(self) -> None:
        assert settings_of(mailers={"default": None}).mailers["default"].backend == SMTP

    def test_empty_parts_of_a_mailer_are_as_left_out(self) -> None:
        entry = mailer(OPTIONS=None, failover=None, limit=None, http_retry=None)

        assert settings_of(mailers=entry) == settings_of(mailers=mailer())

    def test_failover_may_branch_and_meet_again(self) -> None:
        entries = mailer(failover=["b", "c"]) | {"b": {"failover": ["d"]}, "c": {"failover": ["d"]}, "d": {}}

        assert settings_of(mailers=entries).mailers["default"].failover == ("b", "c")

    def test_a_limit_may_be_on_concurrency_alone(self) -> None:
        limit = settings_of(mailers=mailer(limit={"concurrency": 2})).mailers["default"].limit

        assert limit == Limit(rate=None, per=1.0, concurrency=2)

    def test_limits_besides_the_mailers_are_by_tenant_and_domain(self) -> None:
        limits = settings_of(
            limits={"tenants": {"*": {"day": 9}, "acme": {}}, "domains": {"Bücher.example": {"rate": 5, "burst": 3}}}
        ).limits

        assert limits.tenants == {"*": Limit(day=9)}
        assert limits.domains == {"xn--bcher-kva.example": Limit(rate=5.0, burst=3)}

    def test_every_word_of_urllib3_is_known(self) -> None:
        theirs = set(inspect.signature(urllib3.util.Retry).parameters) - {"history"}

        assert theirs <= set(RETRY_WORDS)

    def test_retry_words_are_taken_as_urllib3_takes_them(self) -> None:
        words = {
            "total": False,
            "connect": 2,
            "read": None,
            "status_forcelist": [502, 503],
            "allowed_methods": ["GET", "POST"],
            "backoff_factor": 0.5,
            "raise_on_status": False,
        }

        retry = settings_of(mailers=mailer(http_retry=words)).mailers["default"].http_retry

        assert dict(retry or {}) == words
        assert urllib3.util.Retry(**words).connect == 2  # type: ignore[arg-type]


class TestTenants:
    OWN: Mapping[str, object] = {"acme": {"mailers": {"default": {"BACKEND": LOCMEM}, "own": None}}}

    @pytest.mark.parametrize(
        ("tenant", "names", "backend"),
        [
            (None, {"default", "second"}, SMTP),
            ("other", {"default", "second"}, SMTP),
            ("acme", {"default", "second", "own"}, LOCMEM),
            (["acme"], {"default", "second"}, SMTP),
        ],
    )
    def test_mail_for_a_tenant_may_name_its_own_and_everybodys(
        self, tenant: object, names: set[str], backend: str
    ) -> None:
        settings = settings_of(mailers={"default": None, "second": None}, tenants=self.OWN)

        assert settings.mailers_of(tenant).keys() == names
        assert settings.mailers_of(tenant)["default"].backend == backend

    def test_a_tenants_mailer_may_fail_over_to_everybodys(self) -> None:
        tenants = {"acme": {"mailers": {"own": {"failover": ["default"]}}}}

        assert settings_of(tenants=tenants).tenants["acme"]["own"].failover == ("default",)

    def test_empty_parts_are_as_left_out(self) -> None:
        assert settings_of(tenants=None, routing=None, tenant_mailers=None) == Settings()
        assert settings_of(tenants={"acme": {"mailers": None}}).tenants["acme"] == {}

    def test_names_with_the_mark_are_free_where_no_tenant_has_mailers(self) -> None:
        assert settings_of(mailers=mailer() | {"a/b": None}).mailers.keys() == {"default", "a/b"}

    def test_tenants_secrets_are_masked_as_everybodys(self) -> None:
        tenants = {"acme": {"mailers": {"own": {"OPTIONS": {"api_key": "hunter2", "timeout": 5}}}}}

        printed = settings_of(tenants=tenants).masked()["tenants"]

        assert "hunter2" not in str(printed)
        assert "'timeout': 5" in str(printed)


class TestSchedules:
    def test_a_users_schedule_is_added_and_can_be_a_doors(self) -> None:
        settings = settings_of(schedules={"mine": {"schedule": [5], "limit": 1}}, backoff={"submit": "mine"})

        assert settings.schedules["mine"] == FixedSchedule(name="mine", schedule_ms=(5,), limit=1)
        assert settings.schedules.keys() == {"mine", "impatient", "fixed", "dynamic"}
        assert settings.backoff == DoorSchedules(submit="mine")

    def test_a_key_left_out_of_a_built_in_schedule_keeps_its_value(self) -> None:
        schedules = settings_of(schedules={"impatient": {"limit": 9}, "dynamic": {"first": 5, "limit": 2}}).schedules

        assert schedules["impatient"] == FixedSchedule(name="impatient", schedule_ms=(100, 200, 500), limit=9)
        assert schedules["dynamic"] == DynamicSchedule(
            name="dynamic", first_ms=5, factor=4, longest_ms=10_800_000, limit=2, max_age_ms=172_800_000
        )

    def test_a_built_in_schedule_of_another_form_is_replaced(self) -> None:
        schedules = settings_of(schedules={"dynamic": {"schedule": [7], "limit": 0}}).schedules

        assert schedules["dynamic"] == FixedSchedule(name="dynamic", schedule_ms=(7,), limit=0, max_age_ms=None)

    @pytest.mark.parametrize(
        ("entry", "limit"),
        [({"schedule": [5]}, 20), ({"schedule": [5], "max_age": 9}, 0), ({"schedule": [5], "limit": 0}, 0)],
        ids=["neither: nameko-amqp-retry's", "an age is the end", "no end, if somebody says so"],
    )
    def test_a_fixed_schedule_ends_unless_told_otherwise(self, entry: dict[str, object], limit: int) -> None:
        assert settings_of(schedules={"mine": entry}).schedules["mine"].limit == limit


class TestDatabase:
    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ("postgres://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
            ("postgresql://u:p@h/d?sslmode=require", "postgresql+psycopg://u:p@h/d?sslmode=require"),
            ("postgresql+psycopg://u:p@h:5433/d", "postgresql+psycopg://u:p@h:5433/d"),
            ("postgresql+psycopg:///d?host=/run/postgresql", "postgresql+psycopg:///d?host=/run/postgresql"),
            ("sqlite:////srv/mail.db", "sqlite:////srv/mail.db"),
            ("sqlite+pysqlite:///var/mail.db", "sqlite+pysqlite:///var/mail.db"),
        ],
    )
    def test_the_two_databases_are_taken_and_psycopg_is_the_driver(self, given: str, meant: str) -> None:
        assert settings_of(database=given).database == meant


class TestImports:
    @pytest.mark.parametrize(
        ("backend", "mistake"),
        [
            (LOCMEM, None),
            (
                "django.core.mail.backends.locmem",
                (
                    "django.core.mail.backends.locmem is a module; "
                    "its class is probably django.core.mail.backends.locmem.EmailBackend"
                ),
            ),
            (
                "django.core.mail.backends.smpt.EmailBackend",
                "there is no module django.core.mail.backends.smpt; is its package installed?",
            ),
            ("django.core.mail.backends.locmem.Email", "django.core.mail.backends.locmem has no Email"),
            (
                "mail_service.errors.NotFound",
                "mail_service.errors.NotFound is no email backend: it has no send_messages",
            ),
        ],
    )
    def test_a_backend_is_a_class_that_sends(self, backend: str, mistake: str | None) -> None:
        settings = settings_of(mailers=mailer(BACKEND=backend), classifier="mail_service.settings.mask")

        assert check_imports(settings) == ([] if mistake is None else [f"mail.mailers.default.BACKEND: {mistake}"])

    def test_tenants_backends_are_looked_at_as_well(self) -> None:
        tenants = {"acme": {"mailers": {"own": {"BACKEND": "no.such.Backend"}}}}

        assert check_imports(settings_of(tenants=tenants)) == [
            "mail.tenants.acme.mailers.own.BACKEND: there is no module no; is its package installed?"
        ]

    @pytest.mark.parametrize(
        ("path", "mistake"),
        [
            ("mail_service.settings.mask", None),
            ("mail_service.__version__", "mail_service.__version__ cannot be called"),
            ("mail_service.settings", "mail_service.settings cannot be called"),
            ("mail_service.nobody", "mail_service has no nobody"),
            ("nobody.mailers_of", "there is no module nobody; is its package installed?"),
        ],
    )
    @pytest.mark.parametrize("key", ["tenant_mailers", "classifier"])
    def test_functions_are_there_and_can_be_called(self, key: str, path: str, mistake: str | None) -> None:
        assert check_imports(settings_of(**{key: path})) == ([] if mistake is None else [f"mail.{key}: {mistake}"])

    def test_a_classifier_that_cannot_be_made_is_a_mistake_of_its_module(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As one made of lists with an exception that is not there: nothing is left for the first failure to find."""
        code = "from mail_service.classifying import classifier\nclassify = classifier(held=['no.such.Error'])\n"
        (tmp_path / "broken_classifier.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path))

        (mistake,) = check_imports(settings_of(classifier="broken_classifier.classify"))

        assert mistake.startswith("mail.classifier: there is no module no")

    def test_a_classifier_has_to_be_callable(self) -> None:
        mistakes = check_imports(settings_of(classifier="mail_service.__version__"))

        assert mistakes == ["mail.classifier: mail_service.__version__ cannot be called"]

    def test_a_hook_that_cannot_be_imported_is_named_by_its_place(self) -> None:
        hooks = ["mail_service.hooks.per_domain", "mail_service.hooks.per_planet", "no.such.hook"]

        assert check_imports(settings_of(hooks=hooks)) == [
            "mail.hooks[1]: mail_service.hooks has no per_planet",
            "mail.hooks[2]: there is no module no; is its package installed?",
        ]


class TestMasks:
    @pytest.mark.parametrize(
        "name",
        [
            "password",
            "PASSWORD",
            "smtp_password",
            "secret",
            "client_secret",
            "token",
            "server_token",
            "authToken",
            "api_key",
            "apiKey",
            "APIKEY",
            "key",
            "aws_secret_access_key",
            "aws_access_key_id",
            "X-Api-Key",
            "Authorization",
            "auth",
            "credentials",
            "passphrase",
            "pwd",
            "dsn",
        ],
    )
    def test_a_name_is_secret(self, name: str) -> None:
        assert is_secret_name(name)

    @pytest.mark.parametrize(
        "name",
        [
            "host",
            "port",
            "username",
            "use_tls",
            "ssl_keyfile",
            "ssl_certfile",
            "timeout",
            "author",
            "bypass",
            "BACKEND",
            "file_path",
        ],
    )
    def test_a_name_is_not_secret(self, name: str) -> None:
        assert not is_secret_name(name)

    @pytest.mark.parametrize(
        ("text", "masked"),
        [
            ("pyamqp://guest:guest@localhost:5672//", "pyamqp://guest:***@localhost:5672//"),
            ("redis://:hunter2@h/0", "redis://:***@h/0"),
            ("amqp://u:p@ss/w:rd@h/v", "amqp://u:***@h/v"),
            ("smtp://me@example.org:pw@h:25", "smtp://me@example.org:***@h:25"),
            ("amqp://a:b@h1;amqp://c:d@h2", "amqp://a:***@h1;amqp://c:***@h2"),
            ("https://k3y@sentry.example/1", "https://***@sentry.example/1"),
            ("postgresql://h/d?user=u&password=p&x=1", "postgresql://h/d?user=u&password=***&x=1"),
            ("host=h password='a b' dbname=d", "host=h password=*** dbname=d"),
            ("sqlite:///var/mail.db", "sqlite:///var/mail.db"),
            ("postgresql://user@host:5432/db", "postgresql://user@host:5432/db"),
            ("Example <no-reply@example.org>", "Example <no-reply@example.org>"),
            ("0.0.0.0:8000", "0.0.0.0:8000"),
        ],
    )
    def test_a_text_keeps_all_but_its_secrets(self, text: str, masked: str) -> None:
        assert mask_text(text) == masked

    def test_a_configuration_is_masked_by_names_and_in_urls(self) -> None:
        config = {
            "AMQP_URI": "pyamqp://u:p@h//",
            "mail": {
                "mailers": {
                    "default": {
                        "OPTIONS": {"password": 5, "api_key": "", "token": None, "use_auth": True, "host": "h"},
                        "credentials": {"user": "u"},
                        "urls": ("smtp://u:p@h",),
                    }
                }
            },
        }

        assert mask(config) == {
            "AMQP_URI": "pyamqp://u:***@h//",
            "mail": {
                "mailers": {
                    "default": {
                        "OPTIONS": {"password": "***", "api_key": "", "token": None, "use_auth": True, "host": "h"},
                        "credentials": "***",
                        "urls": ["smtp://u:***@h"],
                    }
                }
            },
        }

    def test_settings_show_no_secret_whichever_way_they_are_printed(self) -> None:
        options = {"password": "hunter2", "client_params": {"aws_secret_access_key": "hunter2"}, "host": "h"}
        settings = settings_of(mailers=mailer(OPTIONS=options), database="postgresql://u:hunter2@h/d")

        assert "hunter2" not in f"{settings} {settings!r} {settings.masked()}"
        assert "postgresql+psycopg://u:***@h/d" in str(settings.masked())


class TestTheFile:
    def test_config_yaml_runs_as_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith("MAIL_") or name == "AMQP_URI"]:
            monkeypatch.delenv(name)

        config = load_config_file(ROOT / "config.yaml")

        assert config["AMQP_URI"] == "pyamqp://guest:guest@localhost:5672//"
        assert config["max_workers"] == 10
        assert load_settings(config) == Settings()

    def test_config_yaml_takes_values_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AMQP_URI", "pyamqp://mail:p%40ss@mq.example:5673/mail")
        monkeypatch.setenv("MAIL_WORKERS", "25")
        monkeypatch.setenv("MAIL_LOG", "json")
        monkeypatch.setenv("MAIL_BACKEND", SMTP)
        monkeypatch.setenv("MAIL_OPTIONS", "{host: mailpit, port: 1025, timeout: 30}")
        monkeypatch.setenv("MAIL_DATABASE", "postgresql://mail:p@db/mail?sslmode=require")

        config = load_config_file(ROOT / "config.yaml")

        assert config["AMQP_URI"] == "pyamqp://mail:p%40ss@mq.example:5673/mail"
        assert config["max_workers"] == 25
        assert "'formatter': 'json'" in str(config["LOGGING"])
        settings = load_settings(config)
        assert settings.database == "postgresql+psycopg://mail:p@db/mail?sslmode=require"
        assert settings.mailers["default"].backend == SMTP
        assert dict(settings.mailers["default"].options) == {"host": "mailpit", "port": 1025, "timeout": 30}

    def test_the_commented_defaults_in_config_yaml_are_the_defaults(self, tmp_path: Path) -> None:
        config = load_config_file(
            _uncommented(tmp_path, r"^  # ((?:\w+): .*|schedules:|  (?:impatient|fixed|dynamic): .*)$")
        )

        mail = config["mail"]
        assert isinstance(mail, dict)
        assert mail.keys() == Settings().masked().keys()
        assert load_settings(config) == Settings()

    def test_the_commented_mailers_in_config_yaml_are_ready_to_use(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SMTP_PASSWORD", "0123")
        monkeypatch.setenv("POSTMARK_SERVER_TOKEN", "*x#")

        settings = load_settings(load_config_file(_uncommented(tmp_path, r"^    # ( *[\w-]+:(?: .*)?)$")))

        assert settings.mailers.keys() == {"default", "postmark"}
        assert settings.mailers["default"].options["password"] == "0123"
        assert settings.mailers["default"].failover == ("postmark",)
        assert settings.mailers["postmark"].options["server_token"] == "*x#"
        assert settings.mailers["postmark"].http_retry == {"connect": 2}

    @pytest.mark.parametrize(
        ("content", "mistake"),
        [
            (b"a: [1,\nb: 2\n", "line 3, column 1: expected ',' or ']', but got '<stream end>'"),
            (b"a: 1\n\tb: 2\n", "line 2, column 1: "),
            (b"- a\n", "expected a mapping like AMQP_URI: ..., got a list"),
            (b"", "expected a mapping like AMQP_URI: ..., got an empty file"),
            (b"text", "expected a mapping like AMQP_URI: ..., got a single value"),
            (b"a: \xff\n", "not encoded in UTF-8 (byte 3)"),
            (b"a: 2026-99-99\n", "no valid YAML (ValueError)"),
        ],
        ids=["a bracket left open", "a tab", "a list", "nothing", "a text", "latin-1", "no such date"],
    )
    def test_a_file_that_cannot_be_used_is_named_with_the_place(
        self, tmp_path: Path, content: bytes, mistake: str
    ) -> None:
        path = tmp_path / "c.yaml"
        path.write_bytes(content)

        with pytest.raises(ConfigurationError, match=re.escape(f"{path}: {mistake}")):
            load_config_file(path)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"nowhere\.yaml: there is no such file"):
            load_config_file(tmp_path / "nowhere.yaml")

    @pytest.mark.parametrize("secret", ["*hunter2", "!hunter2 x", "'hunter2", "[hunter2", "hunter2: hunter2: x"])
    def test_a_password_that_is_no_yaml_is_not_quoted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str
    ) -> None:
        monkeypatch.setenv("X_PASSWORD", secret)
        path = tmp_path / "c.yaml"
        path.write_text("password: ${X_PASSWORD}\n")

        with pytest.raises(ConfigurationError) as caught:
            load_config_file(path)

        assert "hunter2" not in str(caught.value)


def _uncommented(folder: Path, commented: str) -> Path:
    """config.yaml with the lines that match *commented* made active; the mailer they replace is taken out."""
    lines = (ROOT / "config.yaml").read_text(encoding="utf-8").splitlines()
    active = [re.sub(commented, lambda match: " " * match.group().index("#") + match.group(1), line) for line in lines]
    path = folder / "config.yaml"
    path.write_text("\n".join(active), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("mailer", "tenant", "content"),
    [
        ("default", None, "keep"),
        ("careful", None, "drop"),
        ("careful", "clinic", "redact"),
        ("default", "clinic", "redact"),
        ("own", "clinic", "keep"),
        ("unknown", "nobody", "keep"),
    ],
)
def test_who_is_closest_to_a_mail_has_the_word_about_its_content(mailer: str, tenant: str | None, content: str) -> None:
    settings = settings_of(
        mailers={"default": {"BACKEND": SMTP}, "careful": {"BACKEND": SMTP, "content": "drop"}},
        tenants={"clinic": {"mailers": {"own": {"BACKEND": SMTP, "content": "keep"}}}},
        retention={"tenants": {"clinic": "redact"}},
    )

    assert settings.content_of(mailer, tenant) == content
