"""Who is mailed by a service with ``redirect_to`` or ``allow_recipients``, and what the record says."""

from __future__ import annotations

from base64 import b64decode
from email import message_from_bytes
from typing import Any

import pytest

from mail_service import message
from mail_service.delivery.guard import NOT_ALLOWED, Guard
from mail_service.ledger.records import Mail, recipient
from mail_service.outcome import Diagnosis, Kind, Receipt, Status

from ..support.messages import a_message, configure_django, in_base64

configure_django()

STAGING = "staging@example.org"


def canonical(**changes: Any) -> dict[str, Any]:
    return message.validate(a_message(**changes))


@pytest.mark.parametrize(
    ("pattern", "address", "allowed"),
    [
        pytest.param("*@example.org", "ann@example.org", True, id="a domain"),
        pytest.param("*@example.org", "ANN@Example.ORG", True, id="in any case"),
        pytest.param("*@Example.org", "ann@example.org", True, id="the pattern in any case"),
        pytest.param("*@example.org", "ann@sub.example.org", False, id="not its subdomains"),
        pytest.param("*@example.org", "ann@badexample.org", False, id="not what ends like it"),
        pytest.param("*@example.org", "ann@example.org.evil.example", False, id="not what begins like it"),
        pytest.param("*@example.org", '"ann@example.org"@evil.example', False, id="not a local part like it"),
        pytest.param("*@example.org", "root", False, id="no domain"),
        pytest.param("*@*.example.org", "ann@a.b.example.org", True, id="subdomains"),
        pytest.param("test-*@example.org", "test-1@example.org", True, id="local parts"),
        pytest.param("test-*@example.org", "best-1@example.org", False, id="other local parts"),
        pytest.param("a.n@example.org", "axn@example.org", False, id="a dot is a dot"),
        pytest.param("*@bücher.example", "ann@xn--bcher-kva.example", True, id="beyond ASCII"),
    ],
)
def test_a_pattern_allows(pattern: str, address: str, allowed: bool) -> None:
    assert Guard(allow=[pattern]).allows(address) is allowed


def test_without_either_setting_everybody_is_mailed() -> None:
    assert Guard().allows("ann@example.org")
    assert Guard().redirected(canonical()) is None


def test_an_empty_list_allows_nobody() -> None:
    assert not Guard(allow=[]).allows("ann@example.org")


def a_mail(*addresses: str) -> Mail:
    return Mail(
        id="m",
        status=Status.QUEUED,
        mailer="default",
        recipients={address: recipient(Status.QUEUED) for address in addresses},
    )


def test_who_is_not_allowed_is_suppressed_and_the_others_wait() -> None:
    mail = Guard(allow=["*@example.org"]).suppressed(a_mail("ann@example.org", "bob@elsewhere.example"))

    assert mail.open_recipients == ["ann@example.org"]
    assert mail.recipients["bob@elsewhere.example"] == recipient(Status.SUPPRESSED, detail=NOT_ALLOWED)


def test_nobody_is_suppressed_whose_mail_somebody_else_gets() -> None:
    mail = a_mail("bob@elsewhere.example")

    assert Guard(STAGING, allow=["*@example.org"]).suppressed(mail) is mail


def test_a_redirected_mail_is_for_one_and_names_those_it_was_for() -> None:
    redirected = Guard(STAGING).redirected(
        canonical(to=["Ann <ann@example.org>"], cc=["bob@example.org"], bcc=["carl@example.org"])
    )

    assert redirected is not None
    changed = redirected.canonical
    assert (changed["to"], changed["cc"], changed["bcc"]) == ([STAGING], [], [])
    assert changed["headers"] == {
        "X-Original-To": "ann@example.org, bob@example.org",
        "X-Original-Bcc": "carl@example.org",
    }
    assert redirected.waiting(["ann@example.org", "bob@example.org"]) == [STAGING]
    email = message.load(dict(message.validate(changed)))
    assert email.recipients() == [STAGING]


def test_who_is_allowed_gets_the_mail_and_does_not_see_the_bcc_of_others() -> None:
    redirected = Guard(STAGING, allow=["*@example.org"]).redirected(
        canonical(to=["ann@example.org", "bob@elsewhere.example"], bcc=["carl@elsewhere.example"])
    )

    assert redirected is not None
    assert redirected.canonical["to"] == ["ann@example.org", STAGING]
    assert redirected.canonical["headers"] == {"X-Original-To": "bob@elsewhere.example"}
    assert redirected.waiting(["ann@example.org", "bob@elsewhere.example"]) == ["ann@example.org", STAGING]


def test_a_mail_for_allowed_people_alone_is_left_as_it_is() -> None:
    assert Guard(STAGING, allow=["*@example.org"]).redirected(canonical()) is None
    assert Guard(STAGING).redirected(canonical(to=[STAGING])) is None


def test_the_message_that_was_handed_in_is_not_changed() -> None:
    before = canonical(headers={"X-Own": "1"})

    Guard(STAGING).redirected(before)

    assert before == canonical(headers={"X-Own": "1"})


def test_a_header_of_the_same_name_is_replaced() -> None:
    redirected = Guard(STAGING).redirected(canonical(headers={"x-original-to": "forged@example.org", "X-Own": "1"}))

    assert redirected is not None
    assert redirected.canonical["headers"] == {"X-Own": "1", "X-Original-To": "ann@example.org"}


def test_the_bytes_of_a_whole_mime_message_get_the_header_in_front_and_stay_as_they_are() -> None:
    raw = b"From: shop@example.org\r\nTo: ann@example.org\r\n\r\nText\r\n"

    redirected = Guard(STAGING).redirected(canonical(mime=in_base64(raw), cc=["bob@example.org"]))

    assert redirected is not None
    sent = b64decode(redirected.canonical["mime"])
    assert sent.endswith(raw)
    assert message_from_bytes(sent)["X-Original-To"].split() == ["ann@example.org,", "bob@example.org"]


def test_who_gets_the_mail_sees_what_a_template_has_for_the_first_of_the_others() -> None:
    data = {"ann@example.org": {"name": "Ann"}, "bob@example.org": {"name": "Bob"}}

    redirected = Guard(STAGING).redirected(canonical(to=list(data), merge_data=data))

    assert redirected is not None
    assert redirected.canonical["merge_data"][STAGING] == {"name": "Ann"}


def test_the_record_says_who_got_it_instead() -> None:
    redirected = Guard(STAGING, allow=["ann@example.org"]).redirected(
        canonical(to=["ann@example.org", "bob@elsewhere.example", "carl@elsewhere.example"])
    )
    assert redirected is not None
    accepted = Diagnosis(kind=Kind.ACCEPTED)

    receipts = redirected.receipts(
        [
            Receipt(address="ann@example.org", diagnosis=accepted),
            Receipt(address=STAGING, diagnosis=accepted, message_id="7"),
        ],
        ["ann@example.org", "bob@elsewhere.example", "carl@elsewhere.example"],
    )

    assert [(each.address, each.diagnosis.text, each.message_id) for each in receipts] == [
        ("ann@example.org", "", None),
        ("bob@elsewhere.example", f"sent to {STAGING} instead (mail.redirect_to)", "7"),
        ("carl@elsewhere.example", f"sent to {STAGING} instead (mail.redirect_to)", "7"),
    ]
