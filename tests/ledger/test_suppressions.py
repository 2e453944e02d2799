"""Who is not mailed, on both databases: looked at when a mail becomes known, and at each claim."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mail_service import clock
from mail_service.ledger import Ledger
from mail_service.ledger.database import Database
from mail_service.ledger.records import Change, Granted, Interrupted, Suppression, recipient
from mail_service.ledger.suppressions import Suppressions, key_of
from mail_service.outcome import Status

from .building import a_change, a_copy, a_mail, in_status


@pytest.fixture
def suppressions(database: Database) -> Suppressions:
    return Suppressions(database)


def an_entry(address: str = "ann@example.org", **more: Any) -> Suppression:
    return Suppression(address=address, since=clock.now_iso(), **more)


def statuses(mail: Any) -> list[str]:
    return [state["status"] for state in mail.recipients.values()]


def to(*addresses: str) -> dict[str, Any]:
    return {address: recipient(Status.QUEUED) for address in addresses}


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("Ann@EXAMPLE.org", "ann@example.org"),
        ("ann@Bücher.example", "ann@xn--bcher-kva.example"),
        ("ann@XN--BCHER-KVA.example", "ann@xn--bcher-kva.example"),
        ("GROẞ@example.org", "gross@example.org"),
        ("@Example.org", "@example.org"),
        ('"a@b"@example.org', '"a@b"@example.org'),
        ("Postmaster", "postmaster"),
        ("ann@" + "ü" * 70 + ".example", "ann@" + "ü" * 70 + ".example"),
    ],
)
def test_addresses_are_compared_in_any_case_and_in_the_form_of_the_dns(address: str, key: str) -> None:
    assert key_of(address) == key


def test_a_mail_that_becomes_known_shows_who_is_suppressed(ledger: Ledger, suppressions: Suppressions) -> None:
    suppressions.put([an_entry("ANN@example.org", reason="bounced")])

    known = ledger.accept(a_mail(recipients=to("Ann@example.org", "bob@example.org")))

    assert statuses(known) == ["suppressed", "queued"]
    assert known.recipients["Ann@example.org"]["detail"].endswith(": bounced")
    assert ledger.find("mail") == known


def test_a_claim_leaves_out_who_was_suppressed_since(ledger: Ledger, suppressions: Suppressions) -> None:
    recipients = to("ann@example.org", "bob@example.org")
    ledger.accept(a_mail(recipients=recipients))
    suppressions.put([an_entry()])

    claim = ledger.claim(a_copy(recipients=recipients))

    assert isinstance(claim, Granted)
    assert statuses(claim.mail) == ["suppressed", "queued"]
    assert claim.mail.open_recipients == ["bob@example.org"]


def test_a_mail_that_nobody_knew_is_looked_at_too(ledger: Ledger, suppressions: Suppressions) -> None:
    suppressions.put([an_entry("@example.org")])

    claim = ledger.claim(a_copy())

    assert isinstance(claim, Granted)
    assert statuses(claim.mail) == ["suppressed"]
    found = ledger.find("mail")
    assert found is not None
    assert statuses(found) == ["suppressed"]


def test_who_has_got_the_mail_is_not_called_suppressed(ledger: Ledger, suppressions: Suppressions) -> None:
    recipients = {"ann@example.org": recipient(Status.SENT), "bob@example.org": recipient(Status.DEFERRED)}
    ledger.claim(a_copy())
    ledger.record(a_change(in_status("deferred", recipients=recipients)))
    suppressions.put([an_entry(), an_entry("bob@example.org")])

    claim = ledger.claim(a_copy(generation=1))

    assert isinstance(claim, Granted)
    assert statuses(claim.mail) == ["sent", "suppressed"]


def test_what_became_of_an_interrupted_attempt_is_not_decided_by_the_list(
    database: Database, ledger: Ledger, suppressions: Suppressions
) -> None:
    Ledger(database, attempt_timeout_s=1).claim(a_copy())
    suppressions.put([an_entry()])

    claim = ledger.claim(a_copy(redelivered=True))

    assert isinstance(claim, Interrupted)
    assert statuses(claim.mail) == ["queued"]


@pytest.mark.parametrize(
    ("entry", "status"),
    [
        pytest.param(an_entry(tenant="acme"), "suppressed", id="its tenant"),
        pytest.param(an_entry(tenant="other"), "queued", id="another tenant"),
        pytest.param(an_entry(until="2020-01-01T00:00:00.000000+00:00"), "queued", id="over"),
        pytest.param(an_entry(until="2120-01-01T00:00:00.000000+00:00"), "suppressed", id="not over"),
        pytest.param(an_entry("@example.org"), "suppressed", id="the domain"),
        pytest.param(an_entry("@org"), "queued", id="a domain above it"),
        pytest.param(an_entry("example.org"), "queued", id="a name that looks like the domain"),
    ],
)
def test_whom_an_entry_is_about(ledger: Ledger, suppressions: Suppressions, entry: Suppression, status: str) -> None:
    suppressions.put([entry])

    assert statuses(ledger.accept(a_mail(tenant="acme"))) == [status]


def test_an_entry_that_is_put_again_takes_the_place_of_the_first(suppressions: Suppressions) -> None:
    first, second = an_entry("Ann@example.org", reason="one"), an_entry("ann@EXAMPLE.ORG", reason="two")
    suppressions.put([first])
    suppressions.put([replace(first, reason="between"), second])

    assert suppressions.page(10, None) == [second]


def test_a_page_has_all_entries_of_its_addresses(suppressions: Suppressions) -> None:
    entries = [
        an_entry("a@example.org"),
        an_entry("a@example.org", tenant="acme"),
        an_entry("b@example.org"),
        an_entry("c@example.org"),
    ]
    suppressions.put(list(reversed(entries)))

    assert suppressions.page(2, None) == entries[:3]
    assert suppressions.page(2, "B@example.org") == entries[3:]


@pytest.mark.parametrize(
    ("which", "found"),
    [
        ({"domain": "@example.org"}, [("@example.org", None), ("a@example.org", None), ("a@example.org", "acme")]),
        ({"domain": "@EXAMPLE.org", "tenant": "acme"}, [("a@example.org", "acme")]),
        ({"tenant": "acme"}, [("a@example.org", "acme"), ("b@sub.example.org", "acme")]),
        ({"domain": "@%.example.org"}, []),
        ({"domain": "@bücher.example"}, [("c@xn--bcher-kva.example", None)]),
    ],
)
def test_a_page_may_be_of_one_domain_or_one_tenant(
    suppressions: Suppressions, which: dict[str, str], found: list[tuple[str, str | None]]
) -> None:
    suppressions.put(
        [
            an_entry("a@example.org"),
            an_entry("a@example.org", tenant="acme"),
            an_entry("b@sub.example.org", tenant="acme"),
            an_entry("c@xn--bcher-kva.example"),
            an_entry("@example.org"),
        ]
    )

    assert [(entry.address, entry.tenant) for entry in suppressions.page(10, None, **which)] == found


def test_only_the_entry_that_is_named_is_removed(suppressions: Suppressions) -> None:
    suppressions.put([an_entry(), an_entry(tenant="acme")])

    assert suppressions.remove("ANN@example.org", "acme")
    assert not suppressions.remove("ANN@example.org", "acme")
    assert [entry.tenant for entry in suppressions.page(10, None)] == [None]


def test_a_long_list_and_a_mail_to_many(ledger: Ledger, suppressions: Suppressions) -> None:
    people = [f"p{n}@d{n}.example.org" for n in range(12_000)]
    suppressions.put([an_entry(person) for person in people[::2]])

    claim = ledger.claim(a_copy(recipients=to(*people)))

    assert isinstance(claim, Granted)
    assert claim.mail.open_recipients == people[1::2]


def bounced(**more: Any) -> Suppression:
    return an_entry(reason="hard bounce", until="2120-01-01T00:00:00.000000+00:00", **more)


def test_a_hard_bounce_is_on_the_list_as_soon_as_the_outcome_is_on_record(
    ledger: Ledger, suppressions: Suppressions
) -> None:
    ledger.claim(a_copy())
    change = replace(a_change(in_status("failed")), suppressions=[bounced()])

    ledger.record(Change.from_json(change.to_json(), change.content or b""))

    assert [entry.reason for entry in suppressions.page(10, None)] == ["hard bounce"]
    assert statuses(ledger.accept(a_mail(id="next"))) == ["suppressed"]


def test_a_hard_bounce_takes_the_place_of_an_entry_that_is_over_and_of_no_other(
    ledger: Ledger, suppressions: Suppressions
) -> None:
    suppressions.put(
        [
            an_entry(reason="by hand"),
            an_entry("bob@example.org", reason="by hand", until="2120-01-01T00:00:00.000000+00:00"),
            an_entry("cy@example.org", reason="by hand", until="2020-01-01T00:00:00.000000+00:00"),
        ]
    )
    ledger.claim(a_copy())
    entries = [bounced(), bounced(address="bob@example.org"), bounced(address="cy@example.org")]

    ledger.record(replace(a_change(in_status("failed")), suppressions=entries))

    assert [entry.reason for entry in suppressions.page(10, None)] == ["by hand", "by hand", "hard bounce"]
