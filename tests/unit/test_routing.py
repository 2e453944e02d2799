"""Which mailer a mail gets: its own word, the first rule that fits, or the default."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from mail_service.message import Options, validate
from mail_service.routing import choose
from mail_service.settings import Settings, load_settings

FULL: dict[str, Any] = {
    "from_email": "Shop <news@Mail.Example.org>",
    "to": ["Ann <ann@one.example>"],
    "cc": ["bob@Two.example"],
    "tags": ["receipt", "vip"],
    "body": "x",
}


def settings_of(*rules: dict[str, Any]) -> Settings:
    names = dict.fromkeys(["default", "a", "b", "c"])
    return load_settings({"mail": {"mailers": names, "routing": list(rules)}})


def chosen(*rules: dict[str, Any], mail_id: str = "id", options: Any = None, **fields: Any) -> str:
    message = validate(FULL | fields, default_from="default@sender.example")
    return choose(settings_of(*rules), message, Options.parse(options or {}), mail_id)


def test_without_rules_it_is_the_default() -> None:
    assert chosen() == "default"


def test_the_mails_own_word_comes_before_every_rule() -> None:
    assert chosen({"mailer": "a"}, options={"mailer": "b"}) == "b"


def test_the_first_rule_that_fits_wins() -> None:
    assert chosen({"tag": "other", "mailer": "a"}, {"tag": "vip", "mailer": "b"}, {"mailer": "c"}) == "b"


def test_no_rule_that_fits_is_the_default() -> None:
    assert chosen({"tag": "other", "mailer": "a"}) == "default"


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        ({}, True),
        ({"tenant": "acme"}, True),
        ({"tenant": ["other", "acme"]}, True),
        ({"tenant": "Acme"}, False),
        ({"tag": "receipt"}, True),
        ({"tag": ["other", "vip"]}, True),
        ({"tag": "VIP"}, False),
        ({"sender_domain": "mail.example.org"}, True),
        ({"sender_domain": "MAIL.Example.ORG."}, True),
        ({"sender_domain": "example.org"}, False),
        ({"sender_domain": "*.example.org"}, True),
        ({"sender_domain": "*.mail.example.org"}, False),
        ({"sender_domain": "*.ple.org"}, False),
        ({"sender_domain": ["x.example", "*.org"]}, True),
        ({"recipient_domain": ["one.example", "two.example"]}, True),
        ({"recipient_domain": "*.example"}, True),
        ({"recipient_domain": "one.example"}, False),
        ({"tenant": "acme", "tag": "vip", "sender_domain": "*.org", "recipient_domain": "*.example"}, True),
        ({"tenant": "acme", "tag": "vip", "sender_domain": "*.org", "recipient_domain": "one.example"}, False),
        ({"tenant": "acme", "tag": "other"}, False),
    ],
    ids=str,
)
def test_a_rule_fits_when_all_its_conditions_hold(condition: dict[str, Any], fits: bool) -> None:
    assert chosen({**condition, "mailer": "a"}, options={"tenant": "acme"}) == ("a" if fits else "default")


def test_a_condition_on_what_the_mail_does_not_have_does_not_hold() -> None:
    for condition in ({"tenant": "acme"}, {"tag": "vip"}):
        assert chosen({**condition, "mailer": "a"}, tags=None) == "default"


def test_bcc_counts_as_a_recipient() -> None:
    rule = {"recipient_domain": ["one.example", "two.example"], "mailer": "a"}

    assert chosen(rule, bcc=["c@two.example"]) == "a"
    assert chosen(rule, bcc=["c@three.example"]) == "default"


def test_the_default_sender_counts_as_the_sender() -> None:
    assert chosen({"sender_domain": "sender.example", "mailer": "a"}, from_email=None) == "a"


@pytest.mark.parametrize("written", ["Bücher.example", "BÜCHER.EXAMPLE", "xn--bcher-kva.example"])
def test_domains_are_the_same_in_letters_and_in_ascii(written: str) -> None:
    for address in ("x@bücher.example", "x@XN--bcher-kva.example"):
        assert chosen({"sender_domain": written, "mailer": "a"}, from_email=address) == "a"


WEIGHTS = {"mailer": {"a": 3, "b": 1}}


def test_a_retry_goes_the_same_way() -> None:
    ids = [f"mail-{number}" for number in range(200)]

    first = [chosen(WEIGHTS, mail_id=mail_id) for mail_id in ids]

    assert [chosen({"mailer": {"b": 1, "a": 3}}, mail_id=mail_id) for mail_id in ids] == first


def test_another_process_and_another_version_choose_the_same() -> None:
    """What a mail's first attempt chose may be chosen again after a restart."""
    assert [chosen(WEIGHTS, mail_id=f"mail-{number}") for number in range(12)] == list("aaaaaabaabaa")


def test_weights_are_shares() -> None:
    """Of 4,000 mails 3,000 for a: the standard deviation is sqrt(4000 * 3/4 * 1/4) = 27."""
    settings = settings_of(WEIGHTS)

    counted = Counter(choose(settings, {}, Options(), str(number)) for number in range(4000))

    assert counted.keys() == {"a", "b"}
    assert abs(counted["a"] - 3000) < 5 * 27


def test_another_mailer_takes_its_share_and_changes_no_other_mail() -> None:
    before, after = settings_of(WEIGHTS), settings_of({"mailer": {"a": 3, "b": 1, "c": 4}})
    ids = [str(number) for number in range(1000)]

    moves = Counter((choose(before, {}, Options(), mail_id), choose(after, {}, Options(), mail_id)) for mail_id in ids)

    assert set(moves) == {("a", "a"), ("b", "b"), ("a", "c"), ("b", "c")}
