"""Mail that waits can be cancelled and rescheduled; mail that does not is left alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ..support.outside import RemoteError
from ..support.waiting import eventually
from .conftest import House
from .test_pauses import somebody, submit
from .test_rpc_methods import mail


def later(**how: float) -> str:
    return (datetime.now(UTC) + timedelta(**how)).isoformat(timespec="microseconds")


def waits(house: House, how: str) -> tuple[str, str]:
    """A mail that waits in one of the ways in which mail does, and its recipient."""
    person = house.person("later" if how == "deferred" else "ann")
    options: dict[str, dict[str, Any]] = {"deferred": {"backoff": "hourly"}, "held": {"tenant": somebody()}}
    if how == "held":
        house.rpc.pause(tenant=options["held"]["tenant"])
    given = mail(person, send_at=later(days=20)) if how == "queued" else mail(person)
    mail_id = house.rpc.submit(given, **options.get(how, {}))["id"]
    house.becomes(mail_id, how)
    return mail_id, person


def message_of(house: House, mail_id: str) -> dict[str, Any]:
    """The message in the error log: there at once, unless no worker has seen the mail yet."""
    message: dict[str, Any] = eventually(lambda: house.rpc.error(mail_id)["message"])
    return message


WAYS = pytest.mark.parametrize("how", ["queued", "deferred", "held"])


@WAYS
def test_a_cancelled_mail_is_discarded_at_once_and_never_sent(any_house: House, how: str) -> None:
    mail_id, person = waits(any_house, how)

    record = any_house.rpc.cancel(mail_id)

    assert record["status"] == "discarded"
    assert record == any_house.rpc.status(mail_id)
    assert record["recipients"][person]["status"] == "discarded"
    assert record["next_attempt_at"] is None
    assert "cancelled" in record["error"]
    assert message_of(any_house, mail_id)["to"] == person
    assert any_house.rpc.errors(recipient=person) == [record]
    any_house.rpc.retry_now()
    assert any_house.rpc.status(mail_id) == record
    assert any_house.mails_to(person) == []


def test_whoever_is_first_a_mail_is_either_attempted_or_cancelled(any_house: House) -> None:
    waiting = submit(any_house, 60, priority="bulk")

    cancelled = [mail_id for mail_id in reversed(waiting) if _is_cancelled(any_house, mail_id)]

    for mail_id, person in waiting.items():
        status = "discarded" if mail_id in cancelled else "sent"
        any_house.becomes(mail_id, status)
        assert len(any_house.mails_to(person)) == (mail_id not in cancelled)
    for mail_id in cancelled[:5]:
        assert message_of(any_house, mail_id)["to"] == waiting[mail_id]
        assert any_house.rpc.replay(mail_id) == [mail_id]
        any_house.becomes(mail_id, "sent")


def _is_cancelled(house: House, mail_id: str) -> bool:
    try:
        house.rpc.cancel(mail_id)
    except RemoteError as error:
        if error.exc_type != "Conflict":
            raise
        return False
    return True


def test_who_waits_for_a_cancelled_mail_gets_an_error(any_house: House) -> None:
    person = any_house.person("later")
    call = any_house.rpc.begin("send", mail(person), id=f"waits-{person}", backoff="seconds")
    eventually(lambda: any_house.events.types(f"waits-{person}") == ["email_deferred"])
    joined = any_house.rpc.begin("send", mail(person), id=f"waits-{person}")

    any_house.rpc.cancel(f"waits-{person}")

    for waiting in (joined, call):
        with pytest.raises(RemoteError, match="cancelled") as raised:
            any_house.rpc.wait(waiting)
        assert raised.value.exc_type == "DeliveryFailed"


def test_only_mail_that_waits_can_be_cancelled_or_rescheduled(any_house: House) -> None:
    sent = any_house.rpc.send(mail(any_house.person()))["id"]
    slow = any_house.rpc.submit(mail(any_house.person("slow")))["id"]

    for method, more in (("cancel", ()), ("reschedule", (later(days=1),))):
        with pytest.raises(RemoteError, match="sent") as raised:
            any_house.rpc.wait(any_house.rpc.begin(method, sent, *more))
        assert raised.value.exc_type == "Conflict"
        with pytest.raises(RemoteError) as raised:
            any_house.rpc.wait(any_house.rpc.begin(method, "nobody knows this id", *more))
        assert raised.value.exc_type == "NotFound"
    eventually(lambda: "at this moment" in any_house.rpc.explain(slow)["why"])
    with pytest.raises(RemoteError, match="at this moment") as raised:
        any_house.rpc.cancel(slow)
    assert raised.value.exc_type == "Conflict"


@WAYS
def test_a_mail_is_rescheduled_to_an_earlier_time(any_house: House, how: str) -> None:
    mail_id, person = waits(any_house, how)
    any_house.rpc.resume()
    at = later(seconds=1)

    record = any_house.rpc.reschedule(mail_id, at)

    assert record["status"] in ("queued", "deferred", "sent")
    attempt = eventually(lambda: _attempts_since(any_house, mail_id, at))[0]
    assert attempt["at"] >= at
    if how != "deferred":
        any_house.becomes(mail_id, "sent")
        assert len(any_house.mails_to(person)) == 1


def _attempts_since(house: House, mail_id: str, moment: str) -> list[dict[str, str]]:
    timeline = house.rpc.explain(mail_id)["timeline"]
    return [each for each in timeline if each["what"] == "attempt" and each["at"] >= moment[:26]]


@WAYS
def test_a_mail_is_rescheduled_to_weeks_ahead_and_stays_there(any_house: House, how: str) -> None:
    mail_id, person = waits(any_house, how)
    at = later(days=40)
    before = any_house.rpc.status(mail_id)["attempts"]

    record = any_house.rpc.reschedule(mail_id, at)

    assert record["next_attempt_at"] == at
    assert record["status"] == ("deferred" if how == "deferred" else "queued")
    assert record["recipients"][person]["status"] == record["status"]
    any_house.rpc.resume()
    explained = any_house.rpc.explain(mail_id)
    assert at in explained["why"]
    assert at in explained["next"]
    # another mail that is handed in and sent meanwhile shows that there was time for a mistake
    (other,) = submit(any_house, 1)
    any_house.becomes(other, "sent")
    assert any_house.rpc.status(mail_id)["attempts"] == before
    assert any_house.rpc.cancel(mail_id)["status"] == "discarded"


def test_retry_now_goes_before_what_was_rescheduled(any_house: House) -> None:
    mail_id, person = waits(any_house, "deferred")
    any_house.rpc.reschedule(mail_id, later(days=3))

    assert any_house.rpc.retry_now(recipient=person) == 1

    eventually(lambda: any_house.rpc.status(mail_id)["attempts"] == 2)


@pytest.mark.parametrize("at", [None, "", "tomorrow", 5, "9999-12-31T23:59:59-14:00"])
def test_what_is_no_time_is_refused(house: House, at: Any) -> None:
    with pytest.raises(RemoteError, match="at: ") as raised:
        house.rpc.reschedule("whatever", at)

    assert raised.value.exc_type == "InvalidMessage"


def test_a_mail_is_not_put_off_beyond_its_own_end(any_house: House) -> None:
    tenant = somebody()
    any_house.rpc.pause(tenant=tenant)
    (mail_id,) = submit(any_house, 1, tenant=tenant, expires_at=later(hours=1))
    any_house.becomes(mail_id, "held")

    with pytest.raises(RemoteError, match="expires_at"):
        any_house.rpc.reschedule(mail_id, later(hours=2))

    any_house.rpc.resume(tenant=tenant)
    any_house.becomes(mail_id, "sent")
