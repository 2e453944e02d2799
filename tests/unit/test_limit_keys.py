"""Which limits a mail is under, and in which order it passes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from mail_service import topology
from mail_service.limits.keys import NO_RULES, Rules, in_words
from mail_service.mailers.book import MailerBook
from mail_service.settings import Limit, Limits, MailerSettings, Settings

A, B, C = Limit(rate=1), Limit(rate=2), Limit(rate=3)


def a_mailer(name: str, limit: Limit | None = None) -> MailerSettings:
    return MailerSettings(name=name, backend="django.core.mail.backends.dummy.EmailBackend", limit=limit)


def rules(mailers: Mapping[str, MailerSettings] | None = None, **facts: Any) -> Rules:
    settings = Settings(mailers=mailers or {"default": a_mailer("default", A)}, **facts)
    book = MailerBook(settings)

    def of_key(key: str) -> Limit | None:
        found = book.limit_of(*book.names_of(key))
        return found[1] if found else None

    return Rules(settings, book.limit_of, of_key)


def test_without_limits_nothing_is_looked_up() -> None:
    assert not NO_RULES.are_any
    assert not rules({"default": a_mailer("default")}).are_any
    assert NO_RULES.of("default", "acme", ["ann@example.org"]) == {}


def test_domains_come_first_and_the_mailer_last() -> None:
    found = rules(limits=Limits(tenants={"acme": B}, domains={"b.example": C, "a.example": B}))

    keys = found.of("default", "acme", ["x@b.example", "y@A.Example.", "z@c.example", "w@b.example"])

    assert list(keys.items()) == [
        ("domain:a.example", B),
        ("domain:b.example", C),
        ("tenant:acme", B),
        ("mailer:default", A),
    ]
    assert all(found.limit_of(key) == limit for key, limit in keys.items())


def test_a_star_is_each_tenant_for_itself() -> None:
    found = rules({"default": a_mailer("default")}, limits=Limits(tenants={"*": A, "acme": B}))

    assert found.of("default", "acme", []) == {"tenant:acme": B}
    assert found.of("default", "other", []) == {"tenant:other": A}
    assert found.of("default", None, []) == {}
    assert found.static == ("tenant:acme",)


def test_a_tenants_own_mailer_has_its_own_limit() -> None:
    found = rules(
        {"default": a_mailer("default", A), "second": a_mailer("second")},
        tenants={"acme": {"default": a_mailer("default", B)}, "free": {"default": a_mailer("default")}},
    )

    assert found.of("default", "acme", []) == {"mailer:default/acme": B}
    assert found.of("default", "free", []) == {}
    assert found.of("default", "other", []) == {"mailer:default": A}
    assert found.of("second", "acme", []) == {}
    assert found.limit_of("mailer:default/acme") == B
    assert found.static == ("mailer:default",)


def test_a_key_that_is_no_longer_configured_has_no_limit() -> None:
    assert rules().limit_of("mailer:gone") is None
    assert rules().limit_of("domain:gone.example") is None
    assert rules().limit_of("lane:high") is None


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (Limit(rate=14), "mailer default: 14 in 1 s"),
        (Limit(rate=0.5, per=60, concurrency=3), "mailer default: 0.5 in 60 s, 3 at a time"),
        (Limit(day=5000), "mailer default: 5000 a day"),
    ],
)
def test_a_limit_in_words(limit: Limit, words: str) -> None:
    assert in_words("mailer:default", limit) == words


def test_no_tenants_name_is_in_the_name_of_a_queue() -> None:
    names = {topology.turn_queue_name("high", key, 0) for key in ("tenant:ann@example.org", "tenant:acme")}

    assert len(names) == 2
    assert not any("example" in name or "acme" in name for name in names)
    assert topology.turn_queue_name("bulk", "mailer:default", 3) == "mail.turn.v1.bulk.mailer:default.3"


def test_the_longest_key_makes_a_name_that_amqp_takes() -> None:
    assert len(topology.turn_queue_name("normal", f"mailer:{'ä' * 100}/{'ö' * 200}", 32)) <= 255


@pytest.mark.parametrize("number", [None, "7", True, -1, 1.5])
def test_what_is_no_tenants_number_is_mail_of_no_tenant(number: object) -> None:
    assert topology.part_of(number) == 0


def test_a_tenant_is_always_in_the_same_part() -> None:
    parts = {topology.part_of(topology.tenant_number(f"tenant-{number}")) for number in range(1000)}

    assert parts == set(range(1, topology.TENANT_PARTS + 1))
    # what other programs have written must be found again
    assert topology.tenant_number("acme") == 96_778_814
