"""A limit is kept by all processes together, costs no attempt, and loses nothing, whatever becomes of a process."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from mail_service import topology
from mail_service.envelope import seal
from mail_service.local.node import Node
from mail_service.local.smtp_server import Rule, SmtpServer

from ..support.amqp import connected
from ..support.postgresql import Postgresql
from ..support.service import Service, children, configuration
from ..support.waiting import eventually
from .conftest import PEOPLE, SMTP, House, open_house
from .test_rpc_methods import mail

#: mails in a second, and how long the counted windows are, seconds
RATE, WINDOW_S = 40, 10


def busiest(times: list[float], window_s: float) -> int:
    """The most mails that any window of so many seconds has."""
    times, most, begin = sorted(times), 0, 0
    for end, moment in enumerate(times):
        while moment - times[begin] >= window_s:
            begin += 1
        most = max(most, end - begin + 1)
    return most


def submit(house: House, count: int, **options: object) -> list[str]:
    """Ids of mails, each to somebody else, in the order in which they are accepted."""
    ids: list[str] = []
    for start in range(0, count, 200):
        batch = [mail(house.person(), options=options) for _ in range(min(200, count - start))]
        ids += [answer["id"] for answer in house.rpc.submit_many(batch)]
    return ids


@pytest.fixture(scope="module")
def _limited_house(rabbitmq_3: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    rabbitmq_3.add_vhosts("limited")
    folder = tmp_path_factory.mktemp("limited")
    with ExitStack() as stack, SmtpServer(*PEOPLE) as smtp:
        limited = {
            name: {"BACKEND": SMTP, "OPTIONS": {"host": "127.0.0.1", "port": smtp.port, "timeout": 5}, "limit": limit}
            for name, limit in {
                "two": {"concurrency": 2},
                "daily": {"day": 3},
                "hourly": {"rate": 1, "per": 3600},
                "quick": {"rate": 20, "burst": 5},
            }.items()
        }
        limited["broken"] = {"BACKEND": SMTP, "OPTIONS": {"host": "127.0.0.1", "port": 1}, "failover": ["quick"]}
        limits = {
            "tenants": {"*": {"rate": 1, "per": 3600}, "acme": {"rate": 1, "per": 3600}, "free": {"rate": 1000}},
            "domains": {"slow.example": {"rate": 1, "per": 3600}},
        }
        database = f"sqlite:///{folder / 'mail.db'}"
        house = open_house(stack, rabbitmq_3.uri("limited"), folder, database, more_mailers=limited, limits=limits)
        house.smtp = smtp
        yield house


@pytest.fixture
def limited_house(_limited_house: House) -> House:
    """The shared service: one process, RabbitMQ 3, SQLite, and a mailer for each kind of limit."""
    return _limited_house.revisited()


def is_held(house: House, mail_id: str, words: str) -> dict[str, Any]:
    """Wait until it is over the limit that has these words."""

    def held() -> Any:
        record = house.rpc.status(mail_id)
        return record if record["status"] == "held" and words in record["error"] else None

    return eventually(held)


def test_what_is_over_a_limit_is_held_with_the_limit_and_the_rest_goes_on(limited_house: House) -> None:
    first, second = submit(limited_house, 2, mailer="hourly")
    (other,) = submit(limited_house, 1)

    record = is_held(limited_house, second, "over the limit of mailer hourly: 1 in 3600 s")

    limited_house.becomes(first, "queued", "sent")
    limited_house.becomes(other, "queued", "sent")
    assert record["attempts"] == 0
    assert record["next_attempt_at"] > record["submitted_at"]
    told = limited_house.rpc.explain(second)
    assert "over the limit of mailer hourly" in told["why"]
    assert "when its turn comes" in told["next"]
    assert "mailer hourly: 1 in 3600 s (1 waiting)" in limited_house.rpc.health()["limits"]["text"]


def statuses_are(house: House, ids: list[str], expected: dict[str, int]) -> bool:
    return Counter(house.rpc.status(mail_id)["status"] for mail_id in ids) == expected


def over(house: House, **options: object) -> str:
    """The id of a mail that waits for longer than any test."""
    *_, mail_id = submit(house, 2, mailer="hourly", **options)
    is_held(house, mail_id, "mailer hourly")
    return mail_id


def test_a_caller_of_send_gets_the_record_of_what_is_over_a_limit(limited_house: House) -> None:
    over(limited_house)

    record = limited_house.rpc.send(mail(limited_house.person()), mailer="hourly")

    assert (record["status"], record["attempts"]) == ("held", 0)


def test_nobody_can_claim_to_have_had_a_turn(limited_house: House) -> None:
    over(limited_house)
    envelope = seal(mail(limited_house.person()), {"mailer": "hourly"}, door="submit")

    with connected(limited_house.amqp_uri) as connection, connection.Producer() as producer:
        headers = {topology.TURNS: ["mailer:hourly"]}
        producer.publish(
            envelope.body(), exchange="", routing_key=topology.lane_queue_name("normal"), headers=headers,
            content_type="application/json", content_encoding="utf-8",
        )  # fmt: skip

    assert limited_house.becomes(envelope.id, "held")["attempts"] == 0


def test_no_more_attempts_are_in_flight_than_the_limit_allows(limited_house: House) -> None:
    """The mail server takes 1.5 s for each of them."""
    people = [limited_house.person("lazy") for _ in range(3)]
    limited_house.rpc.submit_many([mail(person, options={"mailer": "two"}) for person in people])

    eventually(lambda: all(map(limited_house.mails_to, people)), 20)

    times = [taken.time for person in people for taken in limited_house.mails_to(person)]
    assert len(times) == len(people)
    assert busiest(times, 1.4) == 2


def test_a_day_has_so_many_and_the_rest_waits_for_midnight(limited_house: House) -> None:
    ids = submit(limited_house, 5, mailer="daily")

    eventually(lambda: statuses_are(limited_house, ids, {"sent": 3, "held": 2}))
    held = next(record for record in map(limited_house.rpc.status, ids) if record["status"] == "held")
    assert "3 a day" in held["error"]
    assert held["attempts"] == 0


def test_each_tenant_has_a_limit_of_its_own(limited_house: House) -> None:
    for tenant in ("acme", "globex"):
        ids = submit(limited_house, 2, tenant=tenant)
        eventually(partial(statuses_are, limited_house, ids, {"sent": 1, "held": 1}))
    (free,) = submit(limited_house, 1, tenant="free")
    eventually(lambda: limited_house.rpc.status(free)["status"] == "sent")


def test_a_domain_has_a_limit_in_whatever_letters(limited_house: House) -> None:
    people = [f"{limited_house.person().partition('@')[0]}@{name}" for name in ("Slow.Example", "SLOW.example")]
    first, second = [limited_house.rpc.submit(mail(person))["id"] for person in people]

    is_held(limited_house, second, "domain slow.example")
    eventually(lambda: limited_house.rpc.status(first)["status"] == "sent")


def test_a_mailer_that_stands_in_for_another_keeps_its_own_limit(limited_house: House) -> None:
    """20 a second, 5 of them at once: the other 35 take 1.75 s, less what the first one was late."""
    people = [limited_house.person() for _ in range(40)]
    limited_house.rpc.submit_many([mail(person, options={"mailer": "broken"}) for person in people])

    eventually(lambda: all(map(limited_house.mails_to, people)), 30)

    times = [taken.time for person in people for taken in limited_house.mails_to(person)]
    assert len(times) == len(people)
    assert max(times) - min(times) > 1.2


def test_what_is_over_a_limit_can_be_cancelled(limited_house: House) -> None:
    mail_id = over(limited_house)

    assert limited_house.rpc.cancel(mail_id)["status"] == "discarded"


def test_what_is_over_a_limit_expires_in_time(limited_house: House) -> None:
    end = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()

    mail_id = over(limited_house, expires_at=end)

    eventually(lambda: limited_house.rpc.status(mail_id)["status"] == "expired")


def test_what_is_over_a_limit_can_be_put_off_and_brought_back(limited_house: House) -> None:
    mail_id = over(limited_house)

    record = limited_house.rpc.reschedule(mail_id, at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())

    assert record["status"] == "queued"
    limited_house.rpc.reschedule(mail_id, at=datetime.now(UTC).isoformat())
    is_held(limited_house, mail_id, "mailer hourly")


def test_retry_now_does_not_go_over_a_limit(limited_house: House) -> None:
    mail_id = over(limited_house, tenant="free")
    before = len(limited_house.smtp.accepted())

    assert limited_house.rpc.retry_now(mailer="hourly", tenant="free") >= 1

    # a mail that comes after it has gone the same way
    is_held(limited_house, over(limited_house), "mailer hourly")
    assert limited_house.rpc.status(mail_id)["attempts"] == 0
    assert len(limited_house.smtp.accepted()) == before


def test_a_pause_holds_mail_that_waits_for_its_turn_and_when_it_ends_each_goes_once(limited_house: House) -> None:
    people = [limited_house.person() for _ in range(60)]
    batch = [mail(person, options={"mailer": "quick"}) for person in people]
    ids = [answer["id"] for answer in limited_house.rpc.submit_many(batch)]
    is_held(limited_house, ids[-1], "over the limit of mailer quick")

    limited_house.rpc.pause(mailer="quick", reason="moving house")
    try:

        def is_paused(mail_id: str) -> bool:
            record = limited_house.rpc.status(mail_id)
            return record["status"] == "sent" or "moving house" in str(record["error"])

        eventually(lambda: all(map(is_paused, ids)))
        sent = [mail_id for mail_id in ids if limited_house.rpc.status(mail_id)["status"] == "sent"]
        assert len(sent) < len(ids)
        assert sum(len(limited_house.mails_to(person)) for person in people) == len(sent)
    finally:
        limited_house.rpc.resume(mailer="quick")

    eventually(lambda: statuses_are(limited_house, ids, {"sent": len(ids)}))
    assert [len(limited_house.mails_to(person)) for person in people] == [1] * len(people)


def test_one_tenants_burst_does_not_keep_anothers_mail_waiting(amqp_uri: str, tmp_path: Path) -> None:
    """The mail server takes 0.2 s for each, and two at a time: A's mails take ten seconds."""
    with SmtpServer(Rule(at="end", hang_s=0.2)) as smtp:
        config = {**configuration(amqp_uri, tmp_path, smtp_port=smtp.port), "max_workers": 2}
        with Service(config, tmp_path) as service:
            service.rpc.submit_many([mail("a@example.org", options={"tenant": "a"}) for _ in range(100)])
            service.rpc.submit(mail("b@example.org"), tenant="b")

            eventually(lambda: ("b@example.org",) in [taken.rcpt_tos for taken in smtp.accepted()], 20)

            assert len(smtp.accepted()) < 60


def test_four_processes_keep_one_rate_while_one_is_killed_and_started_again(
    rabbitmq_4: Node, postgresql: Postgresql, tmp_path: Path
) -> None:
    """5 % over 10 s, by the mail server's clock; a high mail goes before the bulk that waits; nothing is lost."""
    rabbitmq_4.add_vhosts("limits")
    with ExitStack() as stack:
        uri, database = rabbitmq_4.uri("limits"), postgresql.fresh_database()
        house = open_house(stack, uri, tmp_path, database, processes=4, limit={"rate": RATE}, attempt_timeout=30)
        count = RATE * (WINDOW_S + 3) + RATE // 2
        ids = submit(house, count, priority="bulk")

        eventually(lambda: house.rpc.status(ids[-1])["status"] == "held")
        record = house.rpc.status(ids[-1])
        assert record["attempts"] == 0
        assert "limit of mailer default: 40 in 1 s" in record["error"]
        os.kill(children(house.service.pid)[0], signal.SIGKILL)
        urgent = house.person("urgent")
        before = len(house.smtp.accepted())
        house.rpc.submit(mail(urgent), priority="high")
        eventually(lambda: house.mails_to(urgent))
        assert len(house.smtp.accepted()) - before < RATE

        eventually(lambda: len({each.rcpt_tos for each in house.smtp.accepted()}) == count + 1, 40)
        times = sorted(each.time for each in house.smtp.accepted())
        # A process that has just begun hands its first mails over late, and then two at once, and where the machine is
        # late for a moment, one window begins with what was meant for the one before: so it is the usual window.
        counts = [
            sum(begin <= moment - times[0] - 1 < begin + WINDOW_S for moment in times)
            for begin in (tenth / 10 for tenth in range(20))
        ]
        assert 0.95 <= median(counts) / (RATE * WINDOW_S) <= 1.05
        assert busiest(times, WINDOW_S) <= 1.1 * RATE * WINDOW_S
        assert house.becomes(ids[-1], "sent")["attempts"] == 1
