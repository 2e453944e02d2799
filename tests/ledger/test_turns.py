"""What processes share about limits, on each of the two databases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from mail_service import clock
from mail_service.envelope import ReplyTo
from mail_service.ledger import Ledger
from mail_service.ledger.database import Database
from mail_service.ledger.records import Crowded, Granted
from mail_service.ledger.turns import Aside, TurnQueue, Turns, Wish
from mail_service.outcome import Status
from mail_service.settings import Limit

from .building import a_change, a_copy, a_mail, in_status

KEY = "mailer:default"
LIMIT = Limit(rate=20)
DEAD = "elsewhere/1/1"


@pytest.fixture
def turns(database: Database) -> Turns:
    return Turns(database)


@pytest.fixture
def limited(database: Database) -> Ledger:
    return Ledger(database, attempt_timeout_s=120, has_slots=True)


@pytest.fixture
def other(url: str) -> Iterator[Database]:
    """Of another process."""
    database = Database(url)
    yield database
    database.close()


def held(**changes: object) -> Aside:
    mail = a_mail(**changes)
    mail = replace(mail, status=Status.HELD, recipients=mail.with_open(Status.HELD, "over"), error="over")
    return Aside(mail=mail, content=b"{}")


def test_two_processes_share_the_turns(turns: Turns, other: Database) -> None:
    one_an_hour = Wish(key=KEY, limit=Limit(rate=1, per=3600), wanted=9)
    mine, theirs = turns.ask(one_an_hour), Turns(other).ask(one_an_hour)

    assert (len(mine.beats), len(theirs.beats)) == (1, 0)
    assert theirs.again_s > 3000


def test_limits_do_not_share_turns(turns: Turns) -> None:
    turns.ask(Wish(key=KEY, limit=LIMIT, wanted=1000))

    assert turns.ask(Wish(key="mailer:second", limit=LIMIT, wanted=1)).beats


def test_what_is_used_of_a_day_is_known(turns: Turns) -> None:
    turns.ask(Wish(key=KEY, limit=Limit(day=9), wanted=4))

    assert turns.counts()[KEY].used == 4


def test_no_more_attempts_are_granted_than_the_limit_allows(limited: Ledger) -> None:
    claims = [limited.claim(a_copy(id=f"m{number}", slots={KEY: 2})) for number in range(3)]

    assert [type(claim) for claim in claims] == [Granted, Granted, Crowded]
    limited.record(a_change(in_status("sent", id="m0")))
    assert isinstance(limited.claim(a_copy(id="m2", slots={KEY: 2})), Granted)


def test_a_refused_claim_leaves_no_trace(limited: Ledger) -> None:
    limited.claim(a_copy(id="m0", slots={KEY: 1}))

    limited.claim(a_copy(id="m1", slots={KEY: 1, "domain:x": 5}))

    assert limited.find("m1") is None
    assert isinstance(limited.claim(a_copy(id="m2", slots={"domain:x": 1})), Granted)


def test_turns_are_given_for_as_many_attempts_as_others_leave(
    limited: Ledger, turns: Turns, database: Database
) -> None:
    limited.claim(a_copy(id="m0", slots={KEY: 3}))
    turns._me = "another process"

    granted = turns.ask(Wish(key=KEY, limit=Limit(concurrency=3), wanted=9, under_way=1))

    assert len(granted.beats) == 1


def test_a_process_that_is_gone_takes_no_slot(limited: Ledger) -> None:
    limited._me = DEAD
    limited._owned_for *= 0
    limited.claim(a_copy(id="m0", slots={KEY: 1}))
    limited._me = "elsewhere/2/2"

    assert isinstance(limited.claim(a_copy(id="m1", slots={KEY: 1})), Granted)


def test_a_slot_may_be_taken_in_the_middle_of_an_attempt(limited: Ledger, turns: Turns) -> None:
    until = clock.iso(clock.later(60))
    limited.claim(a_copy(id="m0"))

    assert turns.enter(KEY, 1, "m0", until)
    assert turns.enter(KEY, 1, "m0", until)
    assert not turns.enter(KEY, 1, "m1", until)
    limited.record(a_change(in_status("sent", id="m0")))
    assert turns.enter(KEY, 1, "m1", until)


def test_queues_are_known_to_every_process(turns: Turns, other: Database) -> None:
    queue = TurnQueue(name="mail.turn.v1.high.x.0", key=KEY, lane="high", part=0)
    turns.register(queue)
    turns.register(queue)

    assert Turns(other).queues() == [queue]


class TestNoting:
    def test_a_mail_that_nobody_has_seen_is_held_and_keeps_its_content(self, turns: Turns, ledger: Ledger) -> None:
        noted = turns.note(held())

        assert noted.is_news
        known = ledger.find("mail")
        assert known is not None
        assert (known.status, known.error, known.attempts) == (Status.HELD, "over", 0)
        assert {state["status"] for state in known.recipients.values()} == {"held"}

    def test_a_mail_that_was_accepted_is_held(self, turns: Turns, ledger: Ledger) -> None:
        ledger.accept(a_mail())

        assert turns.note(held()).is_news
        assert not turns.note(held()).is_news

    def test_a_retry_is_held_with_its_attempts(self, turns: Turns, ledger: Ledger) -> None:
        ledger.claim(a_copy())
        ledger.record(a_change(in_status("deferred")))

        noted = turns.note(held(generation=1, attempts=1))

        assert (noted.mail.status, noted.mail.attempts, noted.mail.generation) == (Status.HELD, 1, 1)

    @pytest.mark.parametrize("status", ["sent", "failed", "discarded"])
    def test_a_mail_that_is_over_stays_so(self, turns: Turns, ledger: Ledger, status: str) -> None:
        ledger.claim(a_copy())
        ledger.record(a_change(in_status(status)))

        noted = turns.note(held(generation=1))

        assert (str(noted.mail.status), noted.is_news) == (status, False)

    def test_a_mail_that_somebody_attempts_stays_as_it_is(self, turns: Turns, ledger: Ledger) -> None:
        ledger.claim(a_copy())

        assert not turns.note(held()).is_news
        ledger.record(a_change(in_status("sent")))
        known = ledger.find("mail")
        assert known is not None
        assert known.status == Status.SENT

    def test_an_older_copy_changes_nothing(self, turns: Turns, ledger: Ledger) -> None:
        ledger.claim(a_copy())
        ledger.record(a_change(in_status("deferred")))

        assert not turns.note(held(generation=0)).is_news

    def test_who_has_joined_the_wait_is_told(self, turns: Turns, ledger: Ledger) -> None:
        ledger.accept(a_mail())
        caller = ReplyTo(routing_key="reply", correlation_id="1")
        ledger.join("mail", "d" * 64, caller)

        assert turns.note(held()).waiters == [caller]
