"""Nobody on the list is mailed, on any door; the others get their mail."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mail_service.client import MailClient

from ..support.outside import RemoteError, dispatch
from ..support.waiting import eventually
from .conftest import House
from .test_rpc_methods import mail


def test_a_suppressed_recipient_is_left_out_and_the_others_get_the_mail_with_complete_headers(
    any_house: House,
) -> None:
    ann, bob, cy = any_house.person("Ann"), any_house.person("bob"), any_house.person("cy")
    any_house.rpc.suppress(bob.upper(), "asked us to stop")

    record = any_house.rpc.send(mail([ann], cc=[f"Bob <{bob}>"], bcc=[cy]))

    assert record["status"] == "partly_sent"
    assert {address: state["status"] for address, state in record["recipients"].items()} == {
        ann: "sent",
        bob: "suppressed",
        cy: "sent",
    }
    assert "asked us to stop" in record["recipients"][bob]["detail"]
    assert "asked us to stop" in record["error"]
    (taken,) = any_house.mails_to(ann)
    assert sorted(taken.rcpt_tos) == sorted([ann, cy])
    assert bob in taken.email["Cc"]
    assert any_house.rpc.error(record["id"])["record"] == record


@pytest.mark.parametrize("field", ["to", "cc", "bcc"])
def test_a_mail_with_nobody_left_is_not_sent_and_stands_in_the_error_log(any_house: House, field: str) -> None:
    person = any_house.person()
    any_house.rpc.suppress(person)
    message = {name: value for name, value in mail(person).items() if name != "to"} | {field: [person.title()]}

    answer = any_house.rpc.submit(message)

    assert answer == {"id": answer["id"], "status": "queued"}
    record = any_house.becomes(answer["id"], "suppressed")
    assert record["attempts"] == 0
    assert [each["status"] for each in record["recipients"].values()] == ["suppressed"]
    assert any_house.rpc.errors(recipient=person, status="suppressed") == [record]
    assert any_house.rpc.error(answer["id"])["message"] == message
    assert eventually(lambda: any_house.events.types(answer["id"])) == ["email_suppressed"]
    assert any_house.mails_to(person) == []


def test_every_door_looks_at_the_list(any_house: House) -> None:
    person = any_house.person()
    any_house.rpc.suppress(person)
    own = [f"{door}-{person}" for door in ("many", "event", "client")]

    with pytest.raises(RemoteError, match="suppressed") as raised:
        any_house.rpc.send(mail(person))
    any_house.rpc.submit_many([mail(person, options={"id": own[0]})])
    dispatch(any_house.amqp_uri, "orders", mail(person, options={"id": own[1]}))
    with MailClient(any_house.amqp_uri) as client:
        client.submit(mail(person), id=own[2])

    assert raised.value.exc_type == "DeliveryFailed"
    for mail_id in own:
        any_house.becomes(mail_id, "suppressed")
    assert any_house.mails_to(person) == []


def test_who_is_suppressed_while_the_mail_waits_is_not_mailed(any_house: House) -> None:
    ann, bob = any_house.person("later"), any_house.person("later")
    mail_id = any_house.rpc.submit(mail([ann, bob]), backoff="hourly")["id"]
    any_house.becomes(mail_id, "deferred")
    any_house.rpc.suppress(ann)

    any_house.rpc.retry_now(recipient=ann)

    eventually(lambda: any_house.rpc.status(mail_id)["attempts"] == 2)
    record = any_house.rpc.status(mail_id)
    assert record["recipients"][ann]["status"] == "suppressed"
    assert record["recipients"][bob]["status"] == "deferred"
    any_house.rpc.suppress(bob)
    any_house.rpc.retry_now(recipient=bob)
    any_house.becomes(mail_id, "suppressed")


def test_a_mail_that_waits_for_its_time_ends_at_once_when_nobody_is_to_get_it(any_house: House) -> None:
    person = any_house.person()
    any_house.rpc.suppress(person)
    next_week = (datetime.now(UTC) + timedelta(days=7)).isoformat()

    mail_id = any_house.rpc.submit(mail(person, send_at=next_week))["id"]

    any_house.becomes(mail_id, "suppressed")


def test_who_is_on_the_list_no_more_gets_a_replay(any_house: House) -> None:
    ann, bob = any_house.person(), any_house.person()
    any_house.rpc.suppress(ann)
    mail_id = any_house.rpc.send(mail([ann, bob]))["id"]

    assert any_house.rpc.unsuppress(ann.upper()) is True
    assert any_house.rpc.replay(mail_id) == [mail_id]

    any_house.becomes(mail_id, "sent")
    assert (len(any_house.mails_to(ann)), len(any_house.mails_to(bob))) == (1, 1)
    assert any_house.rpc.unsuppress(ann) is False


def test_a_domain_is_suppressed_as_a_whole(any_house: House) -> None:
    domain = f"{uuid.uuid4().hex[:8]}.example.org"
    any_house.rpc.suppress(f"@{domain.upper()}")

    answers = any_house.rpc.submit_many([mail(f"ann@{domain}"), mail(f"ann@sub.{domain}")])

    any_house.becomes(answers[0]["id"], "suppressed")
    any_house.becomes(answers[1]["id"], "sent")


def test_an_entry_for_a_tenant_or_with_an_end_is_about_no_other_mail(any_house: House) -> None:
    ann, bob = any_house.person(), any_house.person()
    any_house.rpc.suppress(ann, tenant="acme")
    any_house.rpc.suppress(bob, until="2020-01-01T00:00:00Z")

    assert any_house.rpc.send(mail(ann))["status"] == "sent"
    assert any_house.rpc.send(mail(bob))["status"] == "sent"
    with pytest.raises(RemoteError, match="suppressed"):
        any_house.rpc.send(mail(ann), tenant="acme")


def test_the_list_is_shown_in_pages(any_house: House) -> None:
    mark = uuid.uuid4().hex[:8]
    people = [f"{mark}-{name}@example.org" for name in ("a", "b", "c")]
    for person in reversed(people):
        any_house.rpc.suppress(person.upper(), reason="because")
    any_house.rpc.suppress(people[1], tenant="acme")

    page = any_house.rpc.suppressions(limit=2, after=f"{mark}-@example.org")
    rest = any_house.rpc.suppressions(limit=1, after=page[-1]["address"])

    assert [(each["address"].lower(), each["tenant"]) for each in [*page, *rest]] == [
        (people[0], None),
        (people[1], None),
        (people[1], "acme"),
        (people[2], None),
    ]
    assert page[0] == {
        "address": people[0].upper(),
        "tenant": None,
        "reason": "because",
        "since": page[0]["since"],
        "until": None,
    }


@pytest.mark.parametrize("address", ["Ann <", "", "@", "a@b@c", None, 5, "a@example.org, b@example.org"])
def test_what_is_no_address_is_refused(house: House, address: Any) -> None:
    with pytest.raises(RemoteError, match="address") as raised:
        house.rpc.suppress(address)

    assert raised.value.exc_type == "InvalidMessage"


def test_no_address_of_the_list_is_logged(own_house: House) -> None:
    person = own_house.person("secretive")
    own_house.rpc.suppress(person, "his wish")
    own_house.becomes(own_house.rpc.submit(mail(person))["id"], "suppressed")
    own_house.rpc.unsuppress(person)
    own_house.rpc.forget(person)

    assert "unsuppressed" in own_house.log or "taken off the list" in own_house.log
    assert "secretive" not in own_house.log
