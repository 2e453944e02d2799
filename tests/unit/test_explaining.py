"""The story of a mail is true for every state that it can be in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mail_service import clock
from mail_service.doors.explaining import explain
from mail_service.ledger.histories import History
from mail_service.ledger.holdings import Hold, Reason
from mail_service.ledger.pauses import Pause
from mail_service.ledger.records import RAW, Attempt, Mail, recipient
from mail_service.ledger.waiting import CANCELLED
from mail_service.outcome import FINAL, Kind, Status

START = "2026-11-22T03:00:00.000000+00:00"
END = "2026-11-22T03:00:09.000000+00:00"
LATER = clock.iso(clock.later(3600))


def a_history(status: str = "queued", *, attempts: Any = (), **facts: Any) -> History:
    of_mail = {name: facts.pop(name) for name in list(facts) if name in Mail.__dataclass_fields__}
    mail = Mail(
        **{
            "id": "m",
            "status": Status(status),
            "mailer": "default",
            "recipients": {"ann@example.org": recipient(Status(status))},
            "submitted_at": START,
            "updated_at": END,
            **of_mail,
        }
    )
    return History(mail=mail, attempts=attempts, **{"has_content": True, **facts})


def an_attempt(kind: Kind = Kind.TRANSIENT, text: str = "450 4.2.0 Later", second: int = 1) -> Attempt:
    return Attempt(
        at=START.replace(":00.000000", f":{second:02}.000000"),
        mailer="default",
        diagnosis=str(kind),
        text=text,
        milliseconds=1234,
        recipients={"ann@example.org": recipient(Status.SENT, detail="250 Ok")},
    )


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("error", [None, "550 no. Sorry."])
def test_every_status_has_a_reason_and_what_comes_next(status: Status, error: str | None) -> None:
    told = explain(a_history(status, error=error))

    assert sorted(told) == ["next", "record", "timeline", "why"]
    for sentence in (told["why"], told["next"]):
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert "None" not in sentence
        assert ".." not in sentence
    assert told["timeline"][0]["what"] == "accepted"
    assert status.is_final or "replay" not in told["next"]
    assert all(sorted(event) == ["at", "text", "what"] for event in told["timeline"])


WAITING = {
    "queued": (a_history(priority="bulk"), "waits for a worker of priority bulk", "as soon as one is free"),
    "send_at": (a_history(next_attempt_at=LATER), "send_at has not come", LATER),
    "rescheduled": (a_history(not_before=LATER, next_attempt_at=LATER), f"rescheduled it to {LATER}", LATER),
    "deferred": (
        a_history("deferred", error="450 later", attempts=[an_attempt()], next_attempt_at=LATER),
        "may pass: 450 later",
        f"At {LATER}: attempt 1",
    ),
    "held alone": (a_history("held", error="454 slow", next_attempt_at=LATER), "held: 454 slow", f"At {LATER}: looked"),
    "held by a pause that is over": (
        a_history("held", error="paused (all mail) since then", next_attempt_at=LATER),
        "a pause, which is over",
        f"at the latest: At {LATER}",
    ),
    "being attempted": (a_history(is_being_attempted=True), "attempted at this moment", "at most 120 seconds"),
    "interrupted": (a_history(is_interrupted=True), "process ended", "on_unknown"),
}


@pytest.mark.parametrize("name", WAITING)
def test_why_a_mail_waits_and_what_it_waits_for(name: str) -> None:
    history, why, then = WAITING[name]

    told = explain(history)

    assert why in told["why"]
    assert then in told["next"]


def test_a_pause_is_told_of_before_a_worker_has_found_out() -> None:
    pause = Pause(mailer="default", reason="moving", since=START)

    told = explain(a_history(), pauses=[pause, Pause(tenant="other", since=START)])

    assert told["why"] == f"It is paused (mailer default) since {START}: moving."
    assert "`mail-service resume --mailer default`" in told["next"]


def test_a_pause_with_an_end_says_when() -> None:
    told = explain(a_history("held"), pauses=[Pause(since=START, until=LATER)])

    assert told["next"].startswith(f"It goes on at {LATER}, or ")
    assert "`mail-service resume`" in told["next"]


def test_a_paused_mail_that_was_rescheduled_says_both() -> None:
    told = explain(a_history(not_before=LATER), pauses=[Pause(since=START)])

    assert told["next"].endswith(f", but not before {LATER}.")


def test_a_held_mailer_says_what_would_release_its_mail() -> None:
    hold = Hold(mailer="default", reason=Reason.CONFIGURATION, text="535 no", since=START, until=LATER)

    for status in ("held", "queued"):
        told = explain(a_history(status, error="535 no" if status == "held" else None), holds=[hold])

        assert "535 no" in told["why"]
        assert f"probe, next at {LATER}" in told["next"]
        assert "`mail-service retry-now --mailer default`" in told["next"]


def test_a_mail_that_may_expire_says_when() -> None:
    assert explain(a_history("deferred", expires_at=LATER))["next"].endswith(f"still not sent at {LATER}.")


FINAL_STORIES = {
    "sent": (a_history("sent", has_content=False), "Every recipient was accepted.", "Nothing: it is done."),
    "failed": (a_history("failed", error="550 no"), "failed for good: 550 no.", "`mail-service errors replay m`"),
    "forgotten": (a_history("failed", has_content=False), "failed for good", "cannot be replayed"),
    "expired": (a_history("expired", expires_at=END), "used up", f"expires_at was {END}"),
    "suppressed": (
        a_history(
            "suppressed",
            error=f"nobody was left to mail: the address is suppressed since {START}",
            recipients={
                "ann@example.org": recipient(Status.SUPPRESSED, detail=f"the address is suppressed since {START}")
            },
        ),
        f"Nobody was left to mail: the address is suppressed since {START}.",
        "`mail-service unsuppress` first",
    ),
    "cancelled": (a_history("discarded", error=CANCELLED), f"It was {CANCELLED}.", "errors replay"),
    "discarded": (a_history("discarded", error="550 no"), "dealt with: 550 no.", "errors replay"),
}


@pytest.mark.parametrize("name", FINAL_STORIES)
def test_how_a_mail_ended_and_what_can_be_done(name: str) -> None:
    history, why, then = FINAL_STORIES[name]

    told = explain(history, pauses=[Pause(since=START)])

    assert why in told["why"]
    assert then in told["next"]
    assert history.mail.status in FINAL


def test_the_timeline_tells_who_said_what_in_order() -> None:
    attempts = [
        an_attempt(second=1),
        an_attempt(Kind.PERMANENT, "KeyError: 'x'\nTraceback (most recent call last):\n  File …", second=2),
        an_attempt(Kind.ACCEPTED, "", second=3),
    ]
    history = a_history("sent", attempts=attempts, door="event", tenant="acme", priority="high")

    timeline = explain(history)["timeline"]

    assert [(event["what"], event["text"]) for event in timeline] == [
        (
            "accepted",
            "accepted as a send_email event: priority high, mailer default, tenant acme, 1 recipient",
        ),
        ("attempt", "attempt 1 by mailer default failed in a way that may pass after 1.23 s: 450 4.2.0 Later"),
        ("attempt", "attempt 2 by mailer default failed for good after 1.23 s: KeyError: 'x'"),
        ("attempt", "attempt 3 by mailer default accepted after 1.23 s: 250 Ok"),
        ("sent", "sent"),
    ]
    assert [event["at"] for event in timeline] == sorted(event["at"] for event in timeline)


def test_what_was_no_mail_has_a_story_too() -> None:
    history = a_history("failed", door=RAW, error="body: is not JSON")

    told = explain(replace(history, mail=replace(history.mail, recipients={})))

    assert told["timeline"][0]["text"] == "arrived as a message that could not be used"
