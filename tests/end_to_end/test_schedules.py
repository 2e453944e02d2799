"""Sections 2 and 5: when a mail is tried again, and who goes first."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import kombu
import pytest

from mail_service import topology
from mail_service.envelope import seal
from mail_service.local.node import Node
from mail_service.local.smtp_server import Rule, SmtpServer

from ..support.amqp import put
from ..support.outside import dispatch
from ..support.service import Service, configuration
from ..support.waiting import eventually
from .conftest import House, open_house
from .test_rpc_methods import mail

FINAL = ("sent", "partly_sent", "failed", "expired")

#: name of the schedule, and the delays after each failure in seconds, as the contract computes them
DELAYS = {
    "schedule [1000, 2000], limit 2": ("seconds", [1.0, 2.0]),
    "first 300, factor 3, longest 1200, limit 4": ("growing", [0.3, 0.9, 1.2, 1.2]),
    "schedule [100, 200], limit 2": ("quick", [0.1, 0.2]),
}


@pytest.mark.parametrize(("schedule", "delays"), DELAYS.values(), ids=DELAYS)
def test_a_retry_is_never_early_and_at_most_a_quarter_and_two_seconds_late(
    any_house: House, schedule: str, delays: list[float]
) -> None:
    person = any_house.person("later")

    mail_id = any_house.rpc.submit(mail(person), backoff=schedule)["id"]

    record = any_house.becomes(mail_id, *FINAL)
    assert (record["status"], record["attempts"]) == ("expired", len(delays) + 1)
    times = [fired.time for fired in any_house.smtp.fired() if person in fired.rcpt_tos]
    assert len(times) == len(delays) + 1
    for before, after, delay in zip(times, times[1:], delays, strict=False):
        assert delay <= after - before <= delay * 1.25 + 2
    starts = [datetime.fromisoformat(attempt["at"]) for attempt in any_house.rpc.error(mail_id)["attempts"]]
    for earlier, later, delay in zip(starts, starts[1:], delays, strict=False):
        assert delay <= (later - earlier).total_seconds() <= delay * 1.25 + 2


@pytest.mark.parametrize(
    ("schedule", "seconds"),
    [("seconds", 1), ("hourly", 3600), ("growing", 0.3)],
)
def test_the_record_says_when_the_next_attempt_is(house: House, schedule: str, seconds: float) -> None:
    mail_id = house.rpc.submit(mail(house.person("later")), backoff=schedule)["id"]

    events = eventually(lambda: house.events.of(mail_id))

    record = events[0][1]
    wait = datetime.fromisoformat(record["next_attempt_at"]) - datetime.fromisoformat(record["updated_at"])
    assert seconds * 0.99 <= wait.total_seconds() <= seconds * 1.25 + 2


def test_a_retry_that_would_be_too_late_for_max_age_is_not_waited_for(house: House) -> None:
    """A second apart, at most 3.5 s after acceptance: nobody waits for the attempt at 4 s."""
    person = house.person("later")

    mail_id = house.rpc.submit(mail(person), backoff="aged")["id"]

    record = house.becomes(mail_id, *FINAL)
    assert record["status"] == "expired"
    assert 2 <= record["attempts"] <= 4
    ended = datetime.fromisoformat(record["updated_at"]) - datetime.fromisoformat(record["submitted_at"])
    assert ended.total_seconds() <= 3.5 + 1


@pytest.mark.parametrize("priority", ["high", "normal", "bulk"])
def test_the_limit_is_exact_on_both_brokers_in_every_lane(any_house: House, priority: str) -> None:
    people = [any_house.person("later") for _ in range(10)]
    begun = [any_house.rpc.begin("submit", mail(person), priority=priority) for person in people]
    ids = [any_house.rpc.wait(each)["id"] for each in begun]

    assert [any_house.becomes(mail_id, *FINAL)["attempts"] for mail_id in ids] == [3] * 10

    tries = [address for fired in any_house.smtp.fired() for address in fired.rcpt_tos]
    assert [tries.count(person) for person in people] == [3] * 10


def test_each_door_has_its_own_schedule(amqp_uri: str, tmp_path: Path) -> None:
    schedules = {name: {"schedule": [100], "limit": limit} for name, limit in (("a", 1), ("b", 2), ("c", 3))}
    with ExitStack() as stack:
        database = f"sqlite:///{tmp_path / 'mail.db'}"
        doors = {"send": "a", "submit": "b", "event": "c"}
        house = open_house(stack, amqp_uri, tmp_path, database, schedules=schedules, backoff=doors)

        house.rpc.begin("send", mail(house.person("later")), id="send")
        house.rpc.submit(mail(house.person("later")), id="submit")
        house.rpc.submit_many([mail(house.person("later"), options={"id": "submit_many"})])
        dispatch(amqp_uri, "orders", mail(house.person("later"), options={"id": "event"}))

        attempts = {name: house.becomes(name, "expired")["attempts"] for name in (*doors, "submit_many")}
        assert attempts == {"send": 2, "submit": 3, "submit_many": 3, "event": 4}


def test_send_at_is_waited_for_where_no_provider_does(any_house: House) -> None:
    person = any_house.person()
    moment = datetime.now(UTC) + timedelta(seconds=3)

    mail_id = any_house.rpc.submit(mail(person, send_at=moment.isoformat()))["id"]

    assert any_house.becomes(mail_id, "sent")["attempts"] == 1
    (taken,) = any_house.mails_to(person)
    assert 0 <= taken.time - moment.timestamp() <= 3 * 0.25 + 2


def test_a_send_at_that_has_passed_is_now(house: House) -> None:
    assert house.rpc.send(mail(house.person(), send_at="2020-01-01T00:00:00Z"))["status"] == "sent"


def test_a_full_bulk_lane_does_not_delay_high_mail(own_house: House) -> None:
    """Two hundred bulk mails of a second and a half each wait for ten workers; a high one is through at once."""
    own_house.smtp.script(Rule(at="end", to="lazy*", hang_s=1.5))
    bulk = own_house.rpc.submit_many([mail(own_house.person("lazy"), options={"priority": "bulk"}) for _ in range(200)])
    eventually(own_house.smtp.fired)

    started = len(own_house.smtp.accepted())
    record = own_house.rpc.send(mail(own_house.person()), priority="high")

    assert record["status"] == "sent"
    assert len(own_house.smtp.accepted()) - started < 30
    statuses = [own_house.rpc.status(answer["id"])["status"] for answer in bulk]
    assert statuses.count("queued") > 100


def test_waiting_mail_of_a_higher_priority_does_not_stand_behind_other_mail(own_house: House) -> None:
    """All lanes fill up while the service is stopped; the mails take a while, so that the order of the ends shows."""
    own_house.smtp.script(Rule(at="end", hang_s=0.05))
    own_house.service.stop()
    from mail_service.client import MailClient

    with MailClient(own_house.amqp_uri) as client:
        for priority in ("bulk", "normal", "high"):
            client.submit_many([mail(own_house.person(priority), options={"priority": priority}) for _ in range(200)])
    own_house.service.start()

    eventually(lambda: len(own_house.smtp.accepted()) == 600, 60)

    order = [taken.rcpt_tos[0].partition("-")[0] for taken in own_house.smtp.accepted()]
    # each lane starts when it is ready; while all are under way none gets less than another, but for a few rounds of 10
    began = max(order.index(priority) for priority in ("bulk", "normal", "high"))
    ended = min(len(order) - order[::-1].index(priority) for priority in ("bulk", "normal", "high"))
    together = Counter(order[began:ended])
    assert sum(together.values()) >= 200
    assert together["high"] >= together["bulk"] - 40
    assert together["normal"] >= together["bulk"] - 40


def test_new_mail_passes_a_crowd_that_comes_again(amqp_uri: str, tmp_path: Path) -> None:
    """As after an outage: 300 mails are due at once, and then somebody asks for a new password."""
    crowd = [seal(mail(f"ann-{number}@example.org"), {}, door="submit").body().decode() for number in range(300)]
    put(amqp_uri, topology.again_queue("normal"), *crowd)
    put(amqp_uri, topology.lane_queue("normal"), seal(mail("new@example.org"), {}, door="submit").body().decode())

    with (
        SmtpServer(Rule(at="end", hang_s=0.02)) as smtp,
        Service(configuration(amqp_uri, tmp_path, smtp_port=smtp.port), tmp_path),
    ):
        eventually(lambda: len(smtp.accepted()) == len(crowd) + 1, 30)
        order = [taken.rcpt_tos for taken in smtp.accepted()]

    assert order.index(("new@example.org",)) < 100


def test_a_queue_with_other_arguments_is_named_at_the_start(amqp_uri: str, rabbitmq: Node, tmp_path: Path) -> None:
    with kombu.Connection(amqp_uri) as connection:
        kombu.Queue("mail.send.v1.normal", durable=True)(connection.default_channel).declare()
    service = Service(configuration(amqp_uri, tmp_path), tmp_path)
    try:
        service.start(wait=False)
        status = service.process.wait(30)
    finally:
        service.__exit__()

    assert status != 0
    assert "mail.send.v1.normal" in service.log
