"""What is paused waits in every process, costs nothing, and goes on at once when it is resumed."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ..support.outside import RemoteError
from ..support.waiting import eventually
from .conftest import House, open_house
from .test_rpc_methods import KEYS, mail


def somebody() -> str:
    """A tenant of this test's own: the house is shared."""
    return f"tenant-{uuid.uuid4().hex[:8]}"


def submit(house: House, count: int, **options: Any) -> dict[str, str]:
    """Address by id."""
    people = [house.person() for _ in range(count)]
    answers = house.rpc.submit_many([mail(person, options=options) for person in people])
    return {answer["id"]: person for answer, person in zip(answers, people, strict=True)}


def test_what_is_paused_is_held_with_the_reason_and_goes_on_at_once_when_it_is_resumed(any_house: House) -> None:
    house, tenant = any_house, somebody()
    paused = house.rpc.pause(tenant=tenant, reason="moving house")

    waiting = submit(house, 40, tenant=tenant)

    for mail_id in waiting:
        record = house.becomes(mail_id, "held")
        assert (record["attempts"], "moving house" in record["error"]) == (0, True)
        assert next(iter(record["recipients"].values()))["detail"] == record["error"]
    assert house.rpc.send(mail(house.person()), tenant="other")["status"] == "sent"
    assert house.rpc.pauses().count(paused) == 1
    health = house.rpc.health()["pauses"]
    assert health["ok"]
    assert tenant in health["text"]

    assert house.rpc.resume(tenant=tenant) == [paused]

    for mail_id, person in waiting.items():
        assert house.becomes(mail_id, "sent", timeout_s=10)["attempts"] == 1
        assert len(house.mails_to(person)) == 1
    eventually(lambda: all(sorted(house.events.types(each)) == ["email_held", "email_sent"] for each in waiting))
    assert paused not in house.rpc.pauses()


def test_a_caller_of_send_gets_the_record_of_the_held_mail(any_house: House) -> None:
    tenant = somebody()
    any_house.rpc.pause(tenant=tenant)

    record = any_house.rpc.send(mail(any_house.person()), tenant=tenant)

    assert sorted(record) == sorted(KEYS)
    assert record["status"] == "held"
    assert record["next_attempt_at"]
    any_house.rpc.resume(tenant=tenant)
    any_house.becomes(record["id"], "sent")


@pytest.mark.parametrize(
    ("criteria", "held", "free"),
    [
        pytest.param({"mailer": "second"}, {"mailer": "second"}, {"mailer": "default"}, id="a mailer"),
        pytest.param(
            {"priority": "bulk", "mailer": "second"},
            {"priority": "bulk", "mailer": "second"},
            {"priority": "high", "mailer": "second"},
            id="a priority of a mailer",
        ),
    ],
)
def test_only_what_has_all_that_is_named_is_held(
    any_house: House, criteria: dict[str, str], held: dict[str, str], free: dict[str, str]
) -> None:
    tenant = somebody()
    any_house.rpc.pause(tenant=tenant, **criteria)
    (waits,) = submit(any_house, 1, tenant=tenant, **held)
    (goes,) = submit(any_house, 1, tenant=tenant, **free)

    any_house.becomes(waits, "held")
    any_house.becomes(goes, "sent")

    any_house.rpc.resume(tenant=tenant, **criteria)
    any_house.becomes(waits, "sent")


def test_resume_ends_every_pause_that_has_what_is_named(any_house: House) -> None:
    tenant = somebody()
    any_house.rpc.pause(tenant=tenant, mailer="second")
    any_house.rpc.pause(tenant=tenant, priority="bulk")
    other = any_house.rpc.pause(tenant=somebody())

    ended = any_house.rpc.resume(tenant=tenant)

    assert [(each["mailer"], each["priority"]) for each in ended] == [("second", None), (None, "bulk")]
    assert other in any_house.rpc.pauses()
    any_house.rpc.resume(tenant=other["tenant"])


def test_a_pause_ends_by_itself_when_its_time_is_over(any_house: House) -> None:
    tenant = somebody()
    paused = any_house.rpc.pause(tenant=tenant, seconds=2)
    waiting = submit(any_house, 5, tenant=tenant)
    for mail_id in waiting:
        any_house.becomes(mail_id, "held", "sent")

    for mail_id in waiting:
        assert any_house.becomes(mail_id, "sent", timeout_s=15)["updated_at"] >= paused["until"]
    eventually(lambda: paused not in any_house.rpc.pauses())


def test_a_pause_may_be_ended_in_some_seconds(any_house: House) -> None:
    tenant = somebody()
    any_house.rpc.pause(tenant=tenant)
    (mail_id,) = submit(any_house, 1, tenant=tenant)
    any_house.becomes(mail_id, "held")

    (paused,) = any_house.rpc.resume(tenant=tenant, seconds=1)

    assert paused["until"] > paused["since"]
    any_house.becomes(mail_id, "sent")


def test_a_pause_that_is_made_again_has_the_new_reason_and_time(any_house: House) -> None:
    tenant = somebody()
    any_house.rpc.pause(tenant=tenant, seconds=3600, reason="first")
    any_house.rpc.pause(tenant=tenant, reason="second")

    (paused,) = [each for each in any_house.rpc.pauses() if each["tenant"] == tenant]

    assert (paused["reason"], paused["until"]) == ("second", None)
    any_house.rpc.resume(tenant=tenant)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"mailer": "nobody"}, "mailer"),
        ({"priority": "urgent"}, "priority"),
        ({"tenant": ""}, "tenant"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": "60"}, "seconds"),
        ({"reason": 5}, "reason"),
        ({"lane": "bulk"}, "lane"),
    ],
)
def test_a_pause_that_would_do_nothing_or_is_misspelt_is_refused(
    house: House, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(RemoteError, match=field) as raised:
        house.rpc.pause(**arguments)

    assert raised.value.exc_type == "InvalidMessage"
    assert house.rpc.pauses() == []


def test_without_any_criterion_everything_is_paused_and_everything_is_resumed(own_house: House) -> None:
    own_house.rpc.pause()
    waiting = [mail_id for priority in ("high", "bulk") for mail_id in submit(own_house, 2, priority=priority)]
    for mail_id in waiting:
        own_house.becomes(mail_id, "held")

    assert len(own_house.rpc.resume()) == 1

    for mail_id in waiting:
        own_house.becomes(mail_id, "sent")


def test_a_pause_outlives_a_restart_and_mail_expires_while_it_lasts(amqp_uri: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        house = open_house(stack, amqp_uri, tmp_path, f"sqlite:///{tmp_path / 'mail.db'}", processes=2, hold_probe=2)
        house.rpc.pause(mailer="default", reason="for the night")
        (before,) = submit(house, 1)
        house.becomes(before, "held")
        house.service.kill9()
        house.service.start()
        soon = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
        (after,) = submit(house, 1)
        (expires,) = submit(house, 1, expires_at=soon)

        house.becomes(after, "held")
        assert eventually(lambda: house.rpc.status(expires)["status"] == "expired")
        assert house.rpc.status(before)["status"] == "held"
        assert [each["reason"] for each in house.rpc.pauses()] == ["for the night"]

        house.rpc.resume(mailer="default")

        house.becomes(before, "sent")
        house.becomes(after, "sent")


def test_a_paused_mailer_does_not_stand_in_for_another_one(amqp_uri: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        closed = {
            "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "OPTIONS": {"host": "127.0.0.1", "port": 1},
            "failover": ["second"],
        }
        database = f"sqlite:///{tmp_path / 'mail.db'}"
        house = open_house(stack, amqp_uri, tmp_path, database, more_mailers={"first": closed})
        house.rpc.pause(mailer="second")

        (mail_id,) = submit(house, 1, mailer="first", backoff="hourly")

        assert house.becomes(mail_id, "deferred")["attempts"] == 1
        house.rpc.resume(mailer="second")
        house.rpc.retry_now(mailer="first")
        house.becomes(mail_id, "sent")
