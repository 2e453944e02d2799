"""What the service tells about a mail, held against what happened to it; and what it forgets when it is asked to."""

from __future__ import annotations

from typing import Any

import pytest

from ..support.outside import RemoteError
from .conftest import House
from .test_pauses import somebody
from .test_rpc_methods import mail


def told(house: House, mail_id: str) -> dict[str, Any]:
    story: dict[str, Any] = house.rpc.explain(mail_id)
    assert sorted(story) == ["next", "record", "timeline", "why"]
    assert story["record"] == house.rpc.status(mail_id)
    times = [event["at"] for event in story["timeline"]]
    assert times == sorted(times)
    return story


def texts(story: dict[str, Any], what: str) -> list[str]:
    return [event["text"] for event in story["timeline"] if event["what"] == what]


def test_a_mail_that_was_sent_at_the_third_attempt(any_house: House) -> None:
    mail_id = any_house.rpc.send(mail(any_house.person("twice")), tenant="acme", priority="high")["id"]

    story = told(any_house, mail_id)

    assert [event["what"] for event in story["timeline"]] == ["accepted", *["attempt"] * 3, "sent"]
    (accepted,) = texts(story, "accepted")
    assert "a caller of send: priority high, mailer default, tenant acme, 1 recipient" in accepted
    first, second, third = texts(story, "attempt")
    assert "450 4.2.0 Come back twice" in first
    assert "450 4.2.0 Come back twice" in second
    assert "250" in third
    assert story["why"] == "Every recipient was accepted."


def test_a_mail_that_waits_for_its_next_attempt(any_house: House) -> None:
    mail_id = any_house.rpc.submit(mail(any_house.person("later")), backoff="hourly")["id"]
    record = any_house.becomes(mail_id, "deferred")

    story = told(any_house, mail_id)

    assert "450 4.2.0 Come back later" in story["why"]
    assert record["next_attempt_at"] in story["next"]
    assert "attempt 2" in story["next"]


def test_a_mail_that_a_pause_holds(any_house: House) -> None:
    tenant = somebody()
    any_house.rpc.pause(tenant=tenant, reason="moving")
    mail_id = any_house.rpc.send(mail(any_house.person()), tenant=tenant)["id"]

    story = told(any_house, mail_id)

    assert f"paused (tenant {tenant})" in story["why"]
    assert "moving" in story["why"]
    assert f"mail-service resume --tenant {tenant}" in story["next"]
    any_house.rpc.resume(tenant=tenant)
    any_house.becomes(mail_id, "sent")
    assert told(any_house, mail_id)["why"] == "Every recipient was accepted."


def test_a_mail_that_its_mailer_holds(own_house: House) -> None:
    mail_id = own_house.rpc.send(mail(own_house.person("overfull")), mailer="throttling")["id"]

    story = told(own_house, mail_id)

    assert "454 4.7.0 Throttling failure" in story["why"]
    assert "probe" in story["next"]


def test_a_mail_that_failed(any_house: House) -> None:
    mail_id = any_house.rpc.submit(mail(any_house.person("refused")))["id"]
    any_house.becomes(mail_id, "failed")

    story = told(any_house, mail_id)

    assert "550 5.1.1 No such person" in story["why"]
    assert f"mail-service errors replay {mail_id}" in story["next"]
    assert "failed for good" in texts(story, "attempt")[0]


def test_a_mail_that_was_suppressed(any_house: House) -> None:
    person = any_house.person()
    any_house.rpc.suppress(person, "bounced twice")
    mail_id = any_house.rpc.submit(mail(person))["id"]
    any_house.becomes(mail_id, "suppressed")

    story = told(any_house, mail_id)

    assert story["why"].startswith("Nobody was left to mail: the address is suppressed since ")
    assert "bounced twice" in story["why"]
    assert "unsuppress" in story["next"]
    assert texts(story, "attempt") == []


def test_nobody_knows_the_id(house: House) -> None:
    with pytest.raises(RemoteError) as raised:
        house.rpc.explain("nobody knows this id")

    assert raised.value.exc_type == "NotFound"


def test_a_forgotten_recipient_stands_nowhere_and_the_others_do(any_house: House) -> None:
    ann, bob = any_house.person("refused.Ann"), any_house.person("bob")
    sent = any_house.rpc.send(mail([bob, any_house.person()]))["id"]
    failed = any_house.rpc.submit(mail([ann, bob]))["id"]
    any_house.becomes(failed, "partly_sent")
    waits = any_house.rpc.submit(mail([any_house.person("later"), bob]), backoff="hourly")["id"]
    any_house.becomes(waits, "deferred")

    assert any_house.rpc.forget(bob.upper()) == 2

    for mail_id in (sent, failed):
        assert bob not in str(told(any_house, mail_id)).lower()
    entry = any_house.rpc.error(failed)
    assert ann in entry["record"]["recipients"]
    assert bob not in str(entry).lower()
    assert entry["message"] is None
    assert any_house.rpc.errors(recipient=bob) == []
    assert bob in any_house.rpc.status(waits)["recipients"]
    with pytest.raises(RemoteError, match="forgotten") as raised:
        any_house.rpc.replay(failed)
    assert raised.value.exc_type == "Conflict"
    assert any_house.rpc.forget(bob) == 0
