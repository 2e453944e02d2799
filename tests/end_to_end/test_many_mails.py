"""The promise of section 1: two thousand mails, a third of them refused once, and everything killed in the middle."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy

from mail_service.local.node import Node
from mail_service.local.smtp_server import Rule

from ..support.outside import RemoteError, Rpc
from ..support.postgresql import Postgresql
from ..support.waiting import eventually
from .conftest import House, open_house
from .test_rpc_methods import mail

COUNT = 2000


def people(count: int = COUNT) -> list[str]:
    """Every third of them is refused once."""
    return [f"{'third' if number % 3 == 0 else 'other'}-{number}@example.org" for number in range(count)]


REFUSE_A_THIRD_ONCE = Rule(at="rcpt", to="third-*", reply="450 4.2.0 Come back once", times=1)


def deliveries(house: House) -> Counter[str]:
    return Counter(address for taken in house.smtp.accepted() for address in taken.rcpt_tos)


def submit_all(house: House, everybody: list[str]) -> None:
    """Half of them by ``submit_many``, half by ``submit``; each has its address as its id."""
    middle = len(everybody) // 2
    for start in range(0, middle, 250):
        batch = everybody[start : min(start + 250, middle)]
        answers = house.rpc.submit_many([mail(person, options={"id": person}) for person in batch])
        assert [answer["status"] for answer in answers] == ["queued"] * len(batch)
    for start in range(middle, len(everybody), 100):
        begun = [house.rpc.begin("submit", mail(person), id=person) for person in everybody[start : start + 100]]
        for each in begun:
            house.rpc.wait(each, 60)


def attempts_in(database: str) -> dict[str, list[str]]:
    """The diagnosis of each attempt, by mail."""
    engine = sqlalchemy.create_engine(database)
    with engine.connect() as connection:
        rows = connection.execute(sqlalchemy.text("select mail_id, diagnosis from attempt order by n")).all()
    engine.dispose()
    return {
        mail_id: [diagnosis for _, diagnosis in group]
        for mail_id, group in itertools.groupby(sorted(rows, key=lambda row: str(row[0])), key=lambda row: row[0])
    }


def all_are_sent(database: str) -> bool:
    """Or an AssertionError that tells of the others, and of what happened to them."""
    engine = sqlalchemy.create_engine(database)
    with engine.connect() as connection:
        others = connection.execute(sqlalchemy.text("select * from mail where status <> 'sent'")).mappings().all()
        attempts = connection.execute(
            sqlalchemy.text("select * from attempt where mail_id in (select id from mail where status <> 'sent')")
        ).mappings()
        told = [dict(row) for row in attempts]
    engine.dispose()
    assert not others, (others, told)
    return True


def statuses_in(database: str) -> Counter[str]:
    engine = sqlalchemy.create_engine(database)
    with engine.connect() as connection:
        rows = connection.execute(sqlalchemy.text("select status from mail")).scalars().all()
    engine.dispose()
    return Counter(rows)


@pytest.mark.slow
def test_two_thousand_mails_are_each_delivered_exactly_once(amqp_uri: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        house = open_house(stack, amqp_uri, tmp_path, f"sqlite:///{tmp_path / 'mail.db'}", REFUSE_A_THIRD_ONCE)
        everybody = people()

        submit_all(house, everybody)

        eventually(lambda: len(house.smtp.accepted()) >= COUNT, 90, every_s=0.2)
        assert deliveries(house) == Counter(everybody)
        eventually(lambda: statuses_in(house.database) == {"sent": COUNT})
        attempts = attempts_in(house.database)
        for person in everybody:
            expected = ["transient", "accepted"] if person.startswith("third") else ["accepted"]
            assert attempts[person] == expected
        assert house.rpc.errors() == []


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("where", "count"), [("rabbitmq 3, sqlite", COUNT), ("rabbitmq 4, postgresql", 800)], ids=["sqlite", "postgresql"]
)
def test_nothing_is_lost_when_all_processes_are_killed_in_the_middle(
    request: pytest.FixtureRequest, tmp_path: Path, where: str, count: int
) -> None:
    """Whoever got a mail twice has an attempt on record whose outcome is unknown."""
    node: Node = request.getfixturevalue("rabbitmq_3" if "sqlite" in where else "rabbitmq_4")
    vhost = f"killed-{tmp_path.name.replace('_', '-')}"
    node.add_vhosts(vhost)
    if "sqlite" in where:
        database = f"sqlite:///{tmp_path / 'mail.db'}"
    else:
        server: Postgresql = request.getfixturevalue("postgresql")
        database = server.fresh_database()
    with ExitStack() as stack:
        stack.callback(node.delete_vhosts, vhost)
        # refused once, and in flight at all three crashes: that is four attempts
        patient = {"quick": {"schedule": [100, 200], "limit": 10}}
        house = open_house(
            stack, node.uri(vhost), tmp_path, database, REFUSE_A_THIRD_ONCE, processes=2, schedules=patient
        )
        everybody = people(count)
        for start in range(0, count, 100):
            begun = [house.rpc.begin("submit", mail(each), id=each) for each in everybody[start : start + 100]]
            for each in begun:
                house.rpc.wait(each, 60)
            if start in (count // 4, count // 2):
                house.service.kill9()
                house.service.start(wait=False)
        house.service.kill9()
        house.service.start()

        eventually(lambda: set(deliveries(house)) == set(everybody), 120, every_s=0.5)
        eventually(lambda: all_are_sent(database), 60, every_s=0.5)

        attempts = attempts_in(database)
        twice = [person for person, times in deliveries(house).items() if times > 1]
        assert [person for person in twice if "unknown" not in attempts[person]] == []
        by_person: dict[str, set[str]] = {}
        for taken in house.smtp.accepted():
            by_person.setdefault(taken.rcpt_tos[0], set()).add(taken.email["Message-ID"])
        assert {len(ids) for ids in by_person.values()} == {1}
        # in flight: at most ten workers of one lane in two processes, three times
        assert len(twice) <= 3 * 2 * 10


@pytest.mark.slow
def test_callers_of_send_are_answered_across_a_crash(own_house: House) -> None:
    """The wait travels with the mail, so the process that ends it need not be the one that took it."""
    person = own_house.person("once")
    begun = own_house.rpc.begin("send", mail(person), id="waits", backoff="seconds")
    own_house.becomes("waits", "deferred")

    own_house.service.kill9()
    own_house.service.start()

    assert own_house.rpc.wait(begun)["status"] == "sent"
    assert len(own_house.mails_to(person)) == 1


def test_an_attempt_in_flight_at_a_crash_is_known_to_be_unknown(own_house: House) -> None:
    own_house.smtp.script(Rule(at="end", accept=True, hang_s=30, times=1))
    person = own_house.person()
    own_house.rpc.submit(mail(person), id="flying", backoff="none")
    eventually(lambda: own_house.mails_to(person))

    own_house.service.kill9()
    own_house.service.start()

    assert own_house.becomes("flying", "sent")["attempts"] == 2
    first, second = own_house.mails_to(person)
    assert first.email["Message-ID"] == second.email["Message-ID"]
    assert attempts_in(own_house.database)["flying"] == ["unknown", "accepted"]


def test_an_attempt_in_flight_at_a_crash_is_not_repeated_where_the_mailer_gives_up(own_house: House) -> None:
    own_house.smtp.script(Rule(at="end", accept=True, hang_s=30, times=1))
    person = own_house.person()
    own_house.rpc.submit(mail(person), id="flying", mailer="give_up")
    eventually(lambda: own_house.mails_to(person))

    own_house.service.kill9()
    own_house.service.start()

    record = own_house.becomes("flying", "failed")
    assert "unknown" in record["error"]
    assert len(own_house.mails_to(person)) == 1
    assert [attempt["diagnosis"] for attempt in own_house.rpc.error("flying")["attempts"]] == ["unknown"]


def test_a_mail_that_kills_the_process_is_taken_out_and_the_others_go_on(amqp_uri: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        house = open_house(stack, amqp_uri, tmp_path, f"sqlite:///{tmp_path / 'mail.db'}", processes=1)
        poison = house.rpc.submit(mail(house.person("crash")), mailer="rehearsal", backoff="hourly")["id"]
        eventually(lambda: "is started again" in house.log, 30)

        people_ = [house.person() for _ in range(5)]
        others = [house.rpc.submit(mail(person), id=person)["id"] for person in people_]

        for each in others:
            house.becomes(each, "sent", timeout_s=40)
        record = house.becomes(poison, "deferred", "failed", timeout_s=40)
        assert record["attempts"] == 1


def test_the_same_id_from_many_processes_is_one_mail(any_house: House) -> None:
    person = any_house.person()
    callers = [Rpc(any_house.amqp_uri) for _ in range(4)]
    begun = [(caller, caller.begin("send", mail(person), id=f"rush-{person}")) for caller in callers * 5]

    answers = [caller.wait(each) for caller, each in begun]

    for caller in callers:
        caller.close()
    assert {(answer["id"], answer["status"]) for answer in answers} == {(f"rush-{person}", "sent")}
    assert len(any_house.mails_to(person)) == 1


def test_of_two_messages_with_one_id_at_the_same_time_one_is_mailed_and_none_is_lost(any_house: House) -> None:
    """Whoever comes second gets a Conflict, or, where both were let in at once, an entry in the error log."""
    person = any_house.person()
    mail_id = f"race-{person}"
    begun = [any_house.rpc.begin("submit", mail(person, subject=f"Number {number}"), id=mail_id) for number in range(6)]
    refused = 0
    for each in begun:
        try:
            any_house.rpc.wait(each)
        except RemoteError as error:
            assert error.exc_type == "Conflict"  # noqa: PT017
            refused += 1

    any_house.becomes(mail_id, "sent")

    def entries() -> list[str]:
        return [record["id"] for record in any_house.rpc.errors(recipient=person)]

    eventually(lambda: refused + len(entries()) == 5)
    assert len(any_house.mails_to(person)) == 1
