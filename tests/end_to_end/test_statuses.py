"""Section 3, statuses: what becomes of a mail, by what the mail server, or a backend, does with it."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from mail_service.local.smtp_server import Rule, SmtpServer

from ..support.outside import RemoteError
from ..support.waiting import eventually
from .conftest import House
from .test_rpc_methods import mail

FINAL = ("sent", "partly_sent", "failed", "expired", "suppressed", "discarded")

#: the first recipient's name (see PEOPLE), status, attempts, diagnosis of each attempt
OUTCOMES = {
    "accepted": ("ann", "sent", 1, None),
    "550 at RCPT": ("refused", "failed", 1, ["permanent"]),
    "450 at RCPT": ("later", "expired", 3, ["transient"] * 3),
    "554 at the end": ("spam", "failed", 1, ["permanent"]),
    "451 at the end": ("tired", "expired", 3, ["transient"] * 3),
    "dropped at the end": ("cut", "expired", 3, ["unknown"] * 3),
}


@pytest.mark.parametrize(("name", "status", "attempts", "diagnoses"), OUTCOMES.values(), ids=OUTCOMES)
def test_the_outcome_follows_what_the_server_says(
    any_house: House, name: str, status: str, attempts: int, diagnoses: list[str] | None
) -> None:
    person = any_house.person(name)

    answer = any_house.rpc.submit(mail(person))

    record = any_house.becomes(answer["id"], *FINAL)
    assert (record["status"], record["attempts"]) == (status, attempts)
    assert record["recipients"][person]["status"] == status
    assert record["next_attempt_at"] is None
    if diagnoses is None:
        with pytest.raises(RemoteError, match="NotFound"):
            any_house.rpc.error(answer["id"])
    else:
        assert record["error"]
        assert record["recipients"][person]["detail"]
        entry = any_house.rpc.error(answer["id"])
        assert [attempt["diagnosis"] for attempt in entry["attempts"]] == diagnoses


def test_three_replies_in_one_mail(any_house: House) -> None:
    """
    RCPT 250, 450 and 550: the first is never mailed again, the second alone and with all headers, the third failed.
    """
    fine, once, refused = any_house.person("fine"), any_house.person("once"), any_house.person("refused")

    answer = any_house.rpc.submit(mail([fine, once], cc=[refused], subject="All three"))

    record = any_house.becomes(answer["id"], *FINAL)
    assert record["status"] == "partly_sent"
    assert record["attempts"] == 2
    assert {who: state["status"] for who, state in record["recipients"].items()} == {
        fine: "sent",
        once: "sent",
        refused: "failed",
    }
    first, second = any_house.mails_to(fine) + any_house.mails_to(once)
    assert first.rcpt_tos == (fine,)
    assert second.rcpt_tos == (once,)
    for taken in (first, second):
        assert taken.email["To"] == f"{fine}, {once}"
        assert taken.email["Cc"] == refused
    assert first.data == second.data
    entry = any_house.rpc.error(answer["id"])
    assert [sorted(attempt["recipients"]) for attempt in entry["attempts"]] == [sorted([fine, once, refused]), [once]]
    attempts_at_refused = [fired for fired in any_house.smtp.fired() if refused in fired.rcpt_tos]
    assert len(attempts_at_refused) == 1


def test_failed_and_expired_in_one_mail_is_failed(house: House) -> None:
    later, refused = house.person("later"), house.person("refused")

    record = house.becomes(house.rpc.submit(mail([later, refused]))["id"], *FINAL)

    assert record["status"] == "failed"
    assert record["recipients"][later]["status"] == "expired"
    assert record["recipients"][refused]["status"] == "failed"


def test_sent_and_expired_in_one_mail_is_partly_sent_and_send_answers_the_record(house: House) -> None:
    fine, later = house.person("fine"), house.person("later")

    record = house.rpc.send(mail([fine, later]))

    assert record["status"] == "partly_sent"
    assert record["recipients"][fine]["status"] == "sent"
    assert record["recipients"][later]["status"] == "expired"
    assert len(house.mails_to(fine)) == 1


def test_a_deferred_mail_says_when_it_is_tried_again(house: House) -> None:
    person = house.person("later")

    answer = house.rpc.submit(mail(person), backoff="hourly")

    record = house.becomes(answer["id"], "deferred")
    assert record["attempts"] == 1
    assert record["recipients"][person]["status"] == "deferred"
    assert record["next_attempt_at"] > record["updated_at"]
    assert "450" in record["error"]


def test_a_throttled_mail_is_held_costs_no_attempt_and_goes_on_by_itself(any_house: House) -> None:
    person = any_house.person("throttled")

    answer = any_house.rpc.submit(mail(person), mailer="throttling")

    held = any_house.becomes(answer["id"], "held")
    assert held["attempts"] == 0
    assert held["recipients"][person]["status"] == "held"
    record = any_house.becomes(answer["id"], "sent", timeout_s=30)
    assert record["attempts"] == 1
    assert len(any_house.mails_to(person)) == 1


def test_a_fault_in_the_configuration_holds_the_mail_until_it_is_gone(house: House) -> None:
    """The sender is refused five times, more often than the schedule has retries."""
    person = house.person()

    answer = house.rpc.send(mail(person, from_email=house.person("stranger")))

    assert answer["status"] == "held"
    record = house.becomes(answer["id"], "sent", timeout_s=30)
    assert record["attempts"] == 1


def test_a_server_that_is_not_there_is_transient(house: House) -> None:
    with pytest.raises(RemoteError) as raised:
        house.rpc.send(mail(house.person()), mailer="closed")

    assert raised.value.exc_type == "Expired"


def test_an_unknown_outcome_is_tried_again_with_the_same_message_id_and_date(any_house: House) -> None:
    person = any_house.person("dropped")

    record = any_house.rpc.send(mail(person), backoff="seconds")

    assert (record["status"], record["attempts"]) == ("sent", 2)
    first, second = any_house.mails_to(person)
    assert first.email["Message-ID"] == second.email["Message-ID"]
    assert first.email["Message-ID"].endswith("@example.org>")
    assert first.email["Date"] == second.email["Date"]
    assert first.data == second.data
    submitted = parsedate_to_datetime(first.email["Date"])
    assert abs(submitted.timestamp() - first.time) < 30


def test_an_unknown_outcome_is_not_tried_again_where_the_mailer_gives_up(any_house: House) -> None:
    person = any_house.person("dropped")
    mail_id = f"unknown-{person}"

    with pytest.raises(RemoteError) as raised:
        any_house.rpc.send(mail(person), id=mail_id, mailer="give_up")

    assert raised.value.exc_type == "DeliveryFailed"
    record = any_house.rpc.status(mail_id)
    assert (record["status"], record["attempts"]) == ("failed", 1)
    assert "unknown" in record["error"]
    assert "unknown" in record["recipients"][person]["detail"]
    assert "unknown" in raised.value.value
    entry = any_house.rpc.error(mail_id)
    assert entry["attempts"][0]["diagnosis"] == "unknown"
    assert len(any_house.mails_to(person)) == 1


def test_an_attempt_that_takes_too_long_is_unknown(house: House) -> None:
    person = house.person("slow")

    record = house.rpc.send(mail(person), id=f"slow-{person}")

    assert record["attempts"] == 2
    assert record["status"] == "sent"
    assert record["recipients"][person]["status"] == "sent"


FUSSY = {
    "zero": ("zero", "failed", None),
    "None": ("none", "sent", None),
    "one": ("one", "sent", None),
    "True": ("true", "sent", None),
    "TypeError": ("type", "failed", "TypeError: a strange mistake"),
    "UnicodeDecodeError": ("unicode", "failed", "UnicodeDecodeError"),
    "SystemExit": ("exit", "failed", None),
    "KeyboardInterrupt": ("interrupt", "failed", None),
    "RecursionError": ("recursion", "failed", "RecursionError"),
    "MemoryError": ("memory", "failed", "MemoryError"),
    "an exception without a text": ("unprintable", "failed", None),
    "a BaseException": ("base", "failed", None),
    "a text that no database takes": ("nul", "failed", "half a pair"),
    "a text of 5 MB": ("huge", "failed", "ValueError"),
    "Backoff": ("backoff", "expired", None),
}


@pytest.mark.parametrize(("name", "status", "traceback"), FUSSY.values(), ids=FUSSY)
def test_whatever_a_backend_does_the_mail_ends(any_house: House, name: str, status: str, traceback: str | None) -> None:
    person = any_house.person(name)
    mail_id = f"fussy-{person}"

    any_house.rpc.submit(mail(person), id=mail_id, mailer="fussy")

    record = any_house.becomes(mail_id, *FINAL)
    assert record["status"] == status
    if status == "failed":
        assert record["attempts"] == 1
        entry = any_house.rpc.error(mail_id)
        assert len(entry["attempts"]) == 1
        if traceback:
            assert traceback in entry["attempts"][0]["text"]
            assert "Traceback" in entry["attempts"][0]["text"]


@pytest.mark.parametrize("name", ["nonsense", "minus"])
def test_a_backend_that_returns_nonsense_ends_somewhere(house: House, name: str) -> None:
    mail_id = house.rpc.submit(mail(house.person(name)), mailer="fussy")["id"]

    house.becomes(mail_id, *FINAL)


@pytest.mark.parametrize("name", ["never", "swallow"])
def test_a_backend_that_never_returns_is_unknown(house: House, name: str) -> None:
    answer = house.rpc.submit(mail(house.person(name)), mailer="fussy", backoff="hourly")

    record = house.becomes(answer["id"], "deferred", timeout_s=20)

    assert record["attempts"] == 1
    assert house.rpc.send(mail(house.person()))["status"] == "sent"


def test_what_a_mailer_cannot_express_is_a_permanent_failure(any_house: House) -> None:
    person = any_house.person()

    with pytest.raises(RemoteError) as raised:
        any_house.rpc.send(mail(person, template_id="welcome"), id=f"template-{person}")

    assert raised.value.exc_type == "DeliveryFailed"
    assert "template_id" in raised.value.value
    assert any_house.mails_to(person) == []
    assert any_house.rpc.status(f"template-{person}")["attempts"] == 1


@pytest.mark.parametrize(
    "changes",
    [{"merge_data": {}}, {"merge_global_data": {"a": 1}}, {"esp_extra": {"a": 1}}, {"merge_headers": {}}],
    ids=lambda changes: next(iter(changes)),
)
def test_other_fields_that_smtp_cannot_express_fail_too(house: House, changes: dict[str, Any]) -> None:
    """Even an empty ``merge_data`` asks for a mail of its own to each recipient."""
    person = house.person()

    with pytest.raises(RemoteError) as raised:
        house.rpc.send(mail([person, house.person()], **changes))

    assert raised.value.exc_type == "DeliveryFailed"
    assert house.mails_to(person) == []


@pytest.mark.parametrize(
    ("rules", "hold_s"),
    [([Rule(at="end", reply="454 4.7.0 Throttling failure, try again in 4 seconds", times=1)], 4)],
    ids=["try again in 4 seconds"],
)
def test_a_wait_that_the_other_side_asks_for_is_kept(own_house: House, rules: list[Rule], hold_s: float) -> None:
    smtp: SmtpServer = own_house.smtp
    smtp.script(*rules)
    person = own_house.person()

    mail_id = own_house.rpc.submit(mail(person))["id"]

    own_house.becomes(mail_id, "sent")
    (refused,) = smtp.fired()
    (taken,) = own_house.mails_to(person)
    assert hold_s <= taken.time - refused.time <= hold_s * 1.25 + 2


def test_one_mail_never_holds_up_another(house: House) -> None:
    """Twelve mails hang, more than there are workers for one lane, and another lane is not kept waiting."""
    stuck = [
        house.rpc.submit(mail(house.person("never")), mailer="fussy", backoff="hourly", priority="bulk")["id"]
        for _ in range(12)
    ]

    assert house.rpc.send(mail(house.person()), priority="high")["status"] == "sent"

    eventually(lambda: all(house.rpc.status(each)["status"] == "deferred" for each in stuck), 25)
