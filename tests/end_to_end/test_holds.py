"""A mailer that is throttled, wrongly configured or down keeps its mail waiting; other mailers do not notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mail_service.local.node import Node
from mail_service.local.smtp_server import Rule, Settings, SmtpServer

from ..support.outside import Events
from ..support.postgresql import Postgresql
from ..support.waiting import eventually
from .conftest import SMTP, House, open_house
from .test_rpc_methods import mail


@pytest.fixture(params=["one process", "two processes"])
def server_and_house(
    request: pytest.FixtureRequest, amqp_uri: str, tmp_path: Path
) -> Iterator[tuple[SmtpServer, House]]:
    """A mailer ``other`` with a server of its own, beside the healthy ``default``."""
    with ExitStack() as stack:
        server = stack.enter_context(SmtpServer(settings=Settings(username="me", password="right")))
        options = {"host": "127.0.0.1", "port": server.port, "timeout": 5, "username": "me", "password": "right"}
        house = open_house(
            stack,
            amqp_uri,
            tmp_path,
            f"sqlite:///{tmp_path / 'mail.db'}",
            processes=2 if "two" in request.param else None,
            more_mailers={"other": {"BACKEND": SMTP, "OPTIONS": options}},
            hold_probe=2,
        )
        yield server, house


def submit(house: House, count: int, mailer: str = "other") -> dict[str, str]:
    """Mails through a mailer: address by id."""
    people = [house.person() for _ in range(count)]
    answers = house.rpc.submit_many([mail(person, options={"mailer": mailer}) for person in people])
    return {answer["id"]: person for answer, person in zip(answers, people, strict=True)}


def changes_of(events: Events, mailer: str) -> list[tuple[str, str]]:
    return [
        (kind, facts["reason"]) for kind, facts in events.all() if facts.get("mailer") == mailer and "reason" in facts
    ]


def test_a_wrong_password_holds_the_mailer_and_its_mail_goes_out_when_it_is_right_again(
    server_and_house: tuple[SmtpServer, House],
) -> None:
    server, house = server_and_house
    server.script(Rule(at="auth", reply="535 5.7.8 Wrong password"))
    waiting = submit(house, 30)
    for mail_id in waiting:
        house.becomes(mail_id, "held")

    assert house.rpc.send(mail(house.person()))["status"] == "sent"
    health = house.rpc.health()
    assert (health["mailer other"]["ok"], health["mailer default"]["ok"]) == (False, True)
    assert "535" in health["mailer other"]["text"]
    record = house.rpc.status(next(iter(waiting)))
    assert record["attempts"] == 0
    assert "535" in record["error"]
    assert len(server.fired()) < len(waiting)

    server.script()

    for mail_id, person in waiting.items():
        assert house.becomes(mail_id, "sent")["attempts"] == 1
        assert sum(person in each.rcpt_tos for each in server.accepted()) == 1
    assert house.rpc.health()["mailer other"]["ok"]
    eventually(
        lambda: (
            changes_of(house.events, "other")
            == [("mailer_held", "configuration"), ("mailer_released", "configuration")]
        )
    )


def test_a_throttle_slows_all_mail_of_its_mailer_and_costs_no_attempt(
    server_and_house: tuple[SmtpServer, House],
) -> None:
    server, house = server_and_house
    server.script(Rule(at="end", reply="454 4.7.0 Throttling failure: Maximum sending rate exceeded", times=5))

    waiting = submit(house, 30)

    for mail_id, person in waiting.items():
        assert house.becomes(mail_id, "sent", timeout_s=30)["attempts"] == 1
        assert sum(person in each.rcpt_tos for each in server.accepted()) == 1
    assert ("mailer_held", "throttled") in changes_of(house.events, "other")


def test_a_provider_that_is_down_is_not_tried_mail_by_mail_and_its_mail_flows_again_by_itself(
    server_and_house: tuple[SmtpServer, House],
) -> None:
    server, house = server_and_house
    server.stop()

    waiting = submit(house, 60)
    eventually(lambda: ("mailer_held", "down") in changes_of(house.events, "other"))
    later = submit(house, 20)
    for mail_id in later:
        assert house.becomes(mail_id, "held")["attempts"] == 0
    server.start()

    for mail_id, person in (waiting | later).items():
        house.becomes(mail_id, "sent", timeout_s=30)
        assert sum(person in each.rcpt_tos for each in server.accepted()) == 1
    eventually(lambda: ("mailer_released", "down") in changes_of(house.events, "other"))


def test_a_provider_that_hangs_does_not_take_the_workers_of_another(
    server_and_house: tuple[SmtpServer, House],
) -> None:
    server, house = server_and_house
    server.script(Rule(at="connect", hang_s=60))
    submit(house, 40)

    healthy = submit(house, 20, "default")

    for mail_id in healthy:
        house.becomes(mail_id, "sent", timeout_s=4)
    assert server.accepted() == []


def test_as_many_hanging_attempts_as_workers_leave_room_for_the_mail_behind_them(amqp_uri: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(SmtpServer(Rule(at="connect", hang_s=60)))
        more = {"other": {"BACKEND": SMTP, "OPTIONS": {"host": "127.0.0.1", "port": server.port, "timeout": 60}}}
        database = f"sqlite:///{tmp_path / 'mail.db'}"
        house = open_house(stack, amqp_uri, tmp_path, database, more_mailers=more, attempt_timeout=60)
        hanging = submit(house, 10)

        (healthy,) = submit(house, 1, "default")

        house.becomes(healthy, "sent")
        assert {house.rpc.status(mail_id)["status"] for mail_id in hanging} == {"queued"}
        # an orderly end would wait for them
        house.service.kill9()


def test_a_hold_outlives_a_restart(server_and_house: tuple[SmtpServer, House]) -> None:
    server, house = server_and_house
    server.script(Rule(at="auth", reply="535 5.7.8 Wrong password"))
    (mail_id,) = submit(house, 1)
    house.becomes(mail_id, "held")
    house.service.kill9()
    house.service.start()

    assert not house.rpc.health()["mailer other"]["ok"]

    server.script()
    house.becomes(mail_id, "sent")


def test_retry_now_probes_a_mailer_at_once(amqp_uri: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(SmtpServer(Rule(at="mail", reply="530 5.7.0 Authentication required")))
        more = {"other": {"BACKEND": SMTP, "OPTIONS": {"host": "127.0.0.1", "port": server.port}}}
        database = f"sqlite:///{tmp_path / 'mail.db'}"
        house = open_house(stack, amqp_uri, tmp_path, database, more_mailers=more, hold_probe=3600)
        waiting = submit(house, 10)
        for mail_id in waiting:
            house.becomes(mail_id, "held")
        server.script()

        assert house.rpc.retry_now(mailer="other") == 10

        for mail_id in waiting:
            house.becomes(mail_id, "sent")


class TestFailover:
    """Another mailer in the same attempt, where the first certainly did not take the mail."""

    @pytest.fixture
    def house(self, rabbitmq_4: Node, amqp_uri: str, postgresql: Postgresql, tmp_path: Path) -> Iterator[House]:
        with ExitStack() as stack:
            first = stack.enter_context(SmtpServer())
            self.first = first
            options = {"host": "127.0.0.1", "port": first.port, "timeout": 5}
            more = {"first": {"BACKEND": SMTP, "OPTIONS": options, "failover": ["closed", "default"]}}
            yield open_house(
                stack, amqp_uri, tmp_path, postgresql.fresh_database(), more_mailers=more, hold_probe=2, processes=2
            )

    @pytest.mark.parametrize(
        "rule",
        [
            Rule(at="connect", reply="421 4.3.2 Shutting down"),
            Rule(at="rcpt", reply="450 4.2.0 Later"),
            Rule(at="end", reply="451 4.3.0 Local error"),
            Rule(at="mail", drop=True),
        ],
        ids=["421", "450 at RCPT", "451 at the end", "dropped at MAIL"],
    )
    def test_a_mail_that_was_certainly_not_taken_goes_through_the_next_mailer(self, house: House, rule: Rule) -> None:
        self.first.script(rule)
        person = house.person()

        record = house.rpc.send(mail(person), mailer="first")

        assert (record["status"], record["attempts"], record["mailer"]) == ("sent", 1, "first")
        assert len(house.mails_to(person)) == 1

    def test_a_mail_that_may_have_been_taken_does_not(self, house: House) -> None:
        self.first.script(Rule(at="end", accept=True, drop=True, times=1))
        person = house.person()

        record = house.rpc.send(mail(person), mailer="first")

        assert (record["status"], record["attempts"]) == ("sent", 2)
        assert house.mails_to(person) == []
        assert len(self.first.accepted()) == 2

    def test_who_was_accepted_by_the_first_is_not_mailed_by_the_next(self, house: House) -> None:
        taken, late = house.person("taken"), house.person("late")
        self.first.script(Rule(at="rcpt", to="late*", reply="450 4.2.0 Later"))

        record = house.rpc.send(mail([taken, late]), mailer="first")

        assert record["status"] == "sent"
        assert [each.rcpt_tos for each in self.first.accepted()] == [(taken,)]
        assert [each.rcpt_tos for each in house.mails_to(late)] == [(late,)]

    def test_a_recipient_who_is_refused_is_refused_everywhere(self, house: House) -> None:
        self.first.script(Rule(at="rcpt", reply="550 5.1.1 No such person"))
        person = house.person()
        mail_id = house.rpc.submit(mail(person), mailer="first")["id"]

        house.becomes(mail_id, "failed")

        assert house.mails_to(person) == []

    def test_each_mailer_that_was_asked_stands_in_the_error_log(self, house: House) -> None:
        self.first.script(Rule(at="rcpt", reply="450 4.2.0 Later"))
        mail_id = house.rpc.submit(mail(house.person("later")), mailer="first", backoff="none")["id"]

        house.becomes(mail_id, "expired")

        asked: list[dict[str, Any]] = house.rpc.error(mail_id)["attempts"]
        assert [each["mailer"] for each in asked] == ["first", "closed", "default"] * 2
        assert {each["diagnosis"] for each in asked} == {"transient"}

    def test_a_mailer_that_is_held_is_passed_over(self, house: House) -> None:
        self.first.script(Rule(at="mail", reply="530 5.7.0 Authentication required"))
        people = [house.person() for _ in range(10)]

        for person in people:
            assert house.rpc.send(mail(person), mailer="first")["status"] == "sent"

        assert not house.rpc.health()["mailer first"]["ok"]
        assert len(self.first.fired()) < len(people)
