from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import eventlet
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mail_service import clock
from mail_service.envelope import ReplyTo
from mail_service.errors import ConfigurationError, Conflict
from mail_service.ledger import Ledger, StoreDown, owner, tables
from mail_service.ledger.database import Database
from mail_service.ledger.records import (
    Change,
    Copy,
    Granted,
    InFlight,
    Interrupted,
    Mail,
    OtherMail,
    Outstanding,
    Superseded,
    recipient,
)
from mail_service.outcome import Status
from tests.support.service import ROOT

from .building import a_change, a_copy, a_mail, in_status

CALLER = ReplyTo(routing_key="caller", correlation_id="1")
OTHER_CALLER = ReplyTo(routing_key="caller", correlation_id="2")


@pytest.fixture
def living_process() -> Iterator[int]:
    """The pid of another process."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.communicate()


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def named(pid: int) -> str:
    """How the process *pid* of this machine signs."""
    return "/".join([owner.this_process().split("/")[0], str(pid), owner._started(pid)])


def owned_by(ledger: Ledger, name: str, *, until: str | None = None) -> None:
    """The mail was claimed by the process *name*."""

    def take(connection: Connection, items: Sequence[str]) -> list[None]:
        until_ = until or clock.iso(clock.later(100))
        connection.execute(sa.update(tables.mail).values(owner=name, owned_until=until_))
        return [None] * len(items)

    ledger.accept(a_mail())
    ledger.database.write(take, "")


def row(ledger: Ledger, mail_id: str = "mail") -> Any:
    return ledger.database.read(lambda c: c.execute(sa.select(tables.mail).where(tables.mail.c.id == mail_id)).one())


def attempts(ledger: Ledger) -> list[Any]:
    return list(ledger.database.read(lambda c: c.execute(sa.select(tables.attempt).order_by(tables.attempt.c.n)).all()))


class TestClaim:
    def test_a_mail_that_nobody_knows_is_granted_and_owned(self, ledger: Ledger) -> None:
        claim = ledger.claim(a_copy())

        assert isinstance(claim, Granted)
        assert row(ledger).owner == owner.this_process()
        assert row(ledger).owned_until > clock.iso(clock.later(100))

    def test_a_mail_that_was_accepted_is_granted_as_the_ledger_has_it(self, ledger: Ledger) -> None:
        ledger.accept(a_mail(tenant="shop"))

        claim = ledger.claim(a_copy(tenant=None))

        assert isinstance(claim, Granted)
        assert claim == Granted(mail=ledger.find("mail") or a_mail())
        assert claim.mail.tenant == "shop"

    def test_the_same_id_with_another_message_is_another_mail(self, ledger: Ledger) -> None:
        ledger.accept(a_mail())

        assert isinstance(ledger.claim(a_copy(digest="e" * 64)), OtherMail)
        assert row(ledger).owner is None

    #: the state of the row, the copy that comes, and the answer; generations count the copies put on their way
    CASES: tuple[tuple[str, Mail, Copy, type], ...] = (
        ("its next copy", in_status("deferred"), a_copy(generation=1, attempts=1), Granted),
        ("an older copy, for the first time", in_status("deferred"), a_copy(), Superseded),
        ("an older copy, again", in_status("deferred"), a_copy(redelivered=True), Outstanding),
        ("an older copy of a held one, again", in_status("held"), a_copy(redelivered=True), Outstanding),
        ("a copy ahead of the row", in_status("deferred"), a_copy(generation=2), Granted),
        ("any copy of one that was sent", in_status("sent"), a_copy(redelivered=True), Superseded),
        ("a newer copy of one that was sent", in_status("sent"), a_copy(generation=5), Superseded),
        ("a copy of one that failed", in_status("failed"), a_copy(generation=1), Superseded),
        ("a replay of one that failed", in_status("failed"), a_copy(generation=2, replay=True), Granted),
        ("an old replay of one that failed", in_status("failed"), a_copy(generation=1, replay=True), Superseded),
        ("a copy of one that was discarded", in_status("discarded"), a_copy(generation=1), Superseded),
    )

    @pytest.mark.parametrize(("state", "copy", "answer"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
    def test_who_may_attempt_it(self, state: Mail, copy: Copy, answer: type, ledger: Ledger) -> None:
        ledger.record(a_change(state))

        claim = ledger.claim(copy)

        assert type(claim) is answer
        assert (row(ledger).owner is None) == (answer is not Granted)

    def test_a_replay_reopens_it_for_those_who_have_no_acceptance(self, ledger: Ledger) -> None:
        recipients = {"a@b.c": recipient(Status.SENT), "x@y.z": recipient(Status.FAILED, detail="550")}
        ledger.record(a_change(in_status("partly_sent", recipients=recipients, error="550", deaths=2)))

        claim = ledger.claim(a_copy(generation=2, replay=True, recipients=recipients))

        assert isinstance(claim, Granted)
        assert claim.mail.open_recipients == ["x@y.z"]
        assert (claim.mail.attempts, claim.mail.deaths, claim.mail.error) == (0, 0, None)
        assert row(ledger).status == "queued"

    def test_the_mail_of_this_process_that_is_being_attempted_is_in_flight(self, ledger: Ledger) -> None:
        ledger.claim(a_copy())

        assert isinstance(ledger.claim(a_copy(redelivered=True)), InFlight)
        assert isinstance(ledger.claim(a_copy(generation=1)), InFlight)

    def test_a_double_of_the_mail_that_is_being_attempted_is_superseded(self, ledger: Ledger) -> None:
        ledger.claim(a_copy())

        assert isinstance(ledger.claim(a_copy()), Superseded)

    def test_the_mail_of_another_living_process_is_in_flight(self, ledger: Ledger, living_process: int) -> None:
        owned_by(ledger, named(living_process))

        assert isinstance(ledger.claim(a_copy(redelivered=True)), InFlight)
        assert isinstance(ledger.claim(a_copy()), Superseded)

    OWNERS: tuple[tuple[str, Callable[[], str], float, type], ...] = (
        ("one that is dead", lambda: named(dead_process()), 100, Interrupted),
        ("one with this pid, started at another time", lambda: f"{owner.this_process()}1", 100, Interrupted),
        ("one on another host, in time", lambda: "elsewhere/1/2", 100, InFlight),
        ("one on another host, too late", lambda: "elsewhere/1/2", -1, Interrupted),
    )

    @pytest.mark.parametrize(
        ("name", "seconds", "answer"), [case[1:] for case in OWNERS], ids=[case[0] for case in OWNERS]
    )
    def test_a_process_that_is_gone_was_interrupted(
        self, name: Callable[[], str], seconds: float, answer: type, ledger: Ledger
    ) -> None:
        owned_by(ledger, name(), until=clock.iso(clock.later(seconds)))

        assert type(ledger.claim(a_copy(redelivered=True))) is answer

    def test_who_gets_an_interrupted_mail_owns_it(self, ledger: Ledger) -> None:
        owned_by(ledger, named(dead_process()))

        assert isinstance(ledger.claim(a_copy(redelivered=True)), Interrupted)
        assert isinstance(ledger.claim(a_copy(redelivered=True)), InFlight)

    def test_two_copies_in_one_group_are_one_mail(self, ledger: Ledger) -> None:
        claims = at_once(lambda: ledger.claim(a_copy()), lambda: ledger.claim(a_copy(redelivered=True)))

        assert [type(claim) for claim in claims] == [Granted, InFlight]

    def test_of_two_processes_one_gets_it(self, url: str) -> None:
        first, second = (Ledger(Database(url), attempt_timeout_s=120) for _ in range(2))
        second._me = named(1)
        try:
            for number in range(20):
                copy = a_copy(id=str(number), redelivered=True)
                claims = at_once(partial(first.claim, copy), partial(second.claim, copy))

                assert sorted(type(claim).__name__ for claim in claims) == ["Granted", "InFlight"]
        finally:
            first.database.close()
            second.database.close()

    def test_a_claim_whose_commit_was_not_heard_of_is_granted_again(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The database died between its commit and its answer: nobody has attempted anything."""
        unheard(ledger.database, monkeypatch)
        with pytest.raises(StoreDown):
            ledger.claim(a_copy())

        assert isinstance(ledger.claim(a_copy()), Granted)
        assert isinstance(ledger.claim(a_copy()), Superseded)

    def test_an_interruption_whose_commit_was_not_heard_of_stays_one(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        owned_by(ledger, named(dead_process()))
        unheard(ledger.database, monkeypatch)
        with pytest.raises(StoreDown):
            ledger.claim(a_copy(redelivered=True))

        assert isinstance(ledger.claim(a_copy(redelivered=True)), Interrupted)


def unheard(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next transaction is committed, and its answer lost."""
    transaction = database._transaction

    def lose(group: Any) -> Any:
        transaction(group)
        monkeypatch.undo()
        raise StoreDown("the connection was closed in the middle of the answer")

    monkeypatch.setattr(database, "_transaction", lose)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """The answers of calls that wait for one commit."""
    return [greenlet.wait() for greenlet in [eventlet.spawn(call) for call in calls]]


class TestRecord:
    def test_it_lets_go_of_the_mail(self, ledger: Ledger) -> None:
        ledger.claim(a_copy())

        ledger.record(a_change(in_status("deferred", next_attempt_at=clock.now_iso())))

        assert row(ledger).owner is None
        assert isinstance(ledger.claim(a_copy(generation=1)), Granted)

    def test_it_keeps_everything(self, ledger: Ledger) -> None:
        mail = in_status("failed", tenant="shop", priority="bulk", error="550 no", deaths=1, door="event")
        ledger.record(a_change(mail, content=b"the envelope"))

        assert ledger.find("mail") == mail
        assert bytes(row(ledger).content) == b"the envelope"
        assert [(each.diagnosis, each.text, each.milliseconds) for each in attempts(ledger)] == [
            ("transient", "450 later", 12)
        ]

    def test_a_mail_that_was_never_claimed_is_made(self, ledger: Ledger) -> None:
        ledger.record(a_change(in_status("failed", id="raw"), diagnosis=None))

        assert ledger.find("raw") is not None
        assert attempts(ledger) == []

    def test_a_late_change_does_not_undo_a_newer_one_but_its_attempt_counts(self, ledger: Ledger) -> None:
        ledger.record(a_change(in_status("sent", generation=3, attempts=3)))

        ledger.record(a_change(in_status("deferred", generation=2, attempts=2)))

        assert row(ledger).status == "sent"
        assert len(attempts(ledger)) == 2

    def test_two_changes_of_a_mail_in_one_group_leave_the_newer(self, ledger: Ledger) -> None:
        at_once(
            lambda: ledger.record(a_change(in_status("sent", generation=2))),
            lambda: ledger.record(a_change(in_status("deferred", generation=1))),
        )

        assert row(ledger).status == "sent"
        assert len(attempts(ledger)) == 2

    def test_a_change_that_is_recorded_twice_is_one_attempt(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The commit was not heard of, so the change travelled with a copy and came back."""
        change = a_change(in_status("failed"))
        unheard(ledger.database, monkeypatch)
        with pytest.raises(StoreDown):
            ledger.record(change)

        ledger.record(Change.from_json(change.to_json(), change.content or b""))

        assert len(attempts(ledger)) == 1

    @pytest.mark.parametrize(
        "text", ["\x00", "\ud800", "\x1b[0m", "é" * 100_000], ids=["NUL", "surrogate", "esc", "long"]
    )
    def test_any_text_can_be_written_down(self, text: str, ledger: Ledger) -> None:
        change = a_change(in_status("failed", error=text, recipients={"a@b.c": recipient(Status.FAILED, detail=text)}))
        assert change.attempts

        ledger.record(replace(change, attempts=[replace(change.attempts[0], text=text)]))

        mail = ledger.find("mail")
        assert mail
        assert mail.recipients["a@b.c"]["detail"] == text

    def test_it_answers_those_who_wait_once(self, ledger: Ledger) -> None:
        ledger.accept(a_mail())
        for caller in (CALLER, OTHER_CALLER, CALLER):
            ledger.join("mail", "d" * 64, caller)

        assert ledger.record(a_change(in_status("deferred"))).waiters == ()
        final = ledger.record(a_change(in_status("sent", generation=2)))
        assert {caller.correlation_id for caller in final.waiters} == {"1", "2"}
        assert ledger.record(a_change(in_status("sent", generation=3))).waiters == ()

    def test_who_waits_is_answered_when_it_is_held(self, ledger: Ledger) -> None:
        ledger.accept(a_mail())
        ledger.join("mail", "d" * 64, CALLER)

        assert ledger.record(a_change(in_status("held"))).waiters == [CALLER]


class TestAccept:
    def test_it_makes_a_mail_known(self, ledger: Ledger) -> None:
        mail = a_mail(tenant="shop", priority="high", door="send")
        ledger.accept(mail)

        assert ledger.find("mail") == mail
        assert ledger.find("another") is None

    def test_one_that_is_known_stays_as_it_is(self, ledger: Ledger) -> None:
        ledger.record(a_change(in_status("sent")))

        ledger.accept(a_mail())

        assert row(ledger).status == "sent"

    def test_a_mail_may_be_accepted_twice_in_one_group(self, ledger: Ledger) -> None:
        at_once(*[lambda: ledger.accept(a_mail())] * 3)

        assert row(ledger).status == "queued"


class TestJoin:
    def test_nobody_can_wait_for_a_mail_that_is_not_known(self, ledger: Ledger) -> None:
        assert ledger.join("mail", "d" * 64, CALLER) is None

    def test_another_message_is_a_conflict(self, ledger: Ledger) -> None:
        ledger.accept(a_mail())

        with pytest.raises(Conflict, match="'mail'"):
            ledger.join("mail", "e" * 64, CALLER)

    def test_a_conflict_does_not_disturb_others_in_its_group(self, ledger: Ledger) -> None:
        ledger.accept(a_mail())

        def conflict() -> str:
            with pytest.raises(Conflict):
                ledger.join("mail", "e" * 64, CALLER)
            return "conflict"

        answers = at_once(lambda: ledger.join("mail", "d" * 64, OTHER_CALLER), conflict, lambda: ledger.claim(a_copy()))

        assert [type(answer).__name__ for answer in answers] == ["Mail", "str", "Granted"]
        assert ledger.record(a_change(in_status("sent"))).waiters == [OTHER_CALLER]

    @pytest.mark.parametrize("status", ["sent", "failed", "held", "expired"])
    def test_one_that_is_final_or_held_is_answered_at_once(self, status: str, ledger: Ledger) -> None:
        ledger.record(a_change(in_status(status)))

        answer = ledger.join("mail", "d" * 64, CALLER)

        assert answer
        assert answer.status == status
        assert ledger.record(a_change(in_status("sent", generation=2))).waiters == ()

    def test_amqps_longest_addresses_fit(self, ledger: Ledger) -> None:
        ledger.accept(a_mail())
        caller = ReplyTo(routing_key="r" * 255, correlation_id="c" * 255)

        ledger.join("mail", "d" * 64, caller)

        assert ledger.record(a_change(in_status("sent"))).waiters == [caller]


class TestIntake:
    def test_an_event_that_is_delivered_again_keeps_its_id(self, ledger: Ledger) -> None:
        assert ledger.begin_intake("print", a_mail(id="first"), redelivered=False) == "first"

        assert ledger.begin_intake("print", a_mail(id="second"), redelivered=True) == "first"
        assert ledger.find("second") is None

    def test_equal_events_are_as_many_mails(self, ledger: Ledger) -> None:
        ids = [ledger.begin_intake("print", a_mail(id=str(n)), redelivered=False) for n in range(3)]

        assert ids == ["0", "1", "2"]

    def test_equal_events_that_are_delivered_again_together_get_an_id_each(self, ledger: Ledger) -> None:
        for n in range(2):
            ledger.begin_intake("print", a_mail(id=str(n)), redelivered=False)

        again = at_once(
            *[lambda n=n: ledger.begin_intake("print", a_mail(id=f"new {n}"), redelivered=True) for n in range(2)]
        )

        assert sorted(again) == ["0", "1"]

    def test_an_event_whose_intake_ended_is_a_new_one(self, ledger: Ledger) -> None:
        ledger.begin_intake("print", a_mail(id="first"), redelivered=False)
        ledger.end_intake("first")

        assert ledger.begin_intake("print", a_mail(id="second"), redelivered=True) == "second"


class TestDatabase:
    def test_one_bad_write_does_not_spoil_its_group(self, ledger: Ledger) -> None:
        def explode(_connection: Connection, items: Sequence[int]) -> list[int]:
            if 13 in items:
                raise ValueError("13")
            return list(items)

        def bad() -> str:
            with pytest.raises(ValueError, match="13"):
                ledger.database.write(explode, 13)
            return "bad"

        answers = at_once(
            lambda: ledger.claim(a_copy(id="a")),
            lambda: ledger.database.write(explode, 1),
            bad,
            lambda: ledger.claim(a_copy(id="b")),
        )

        assert [type(answer).__name__ for answer in answers] == ["Granted", "int", "str", "Granted"]
        assert row(ledger, "a").owner
        assert row(ledger, "b").owner

    def test_writes_that_wait_are_committed_together(self, ledger: Ledger) -> None:
        groups = []
        transaction = ledger.database._transaction

        def count(group: Any) -> Any:
            groups.append(len(group))
            return transaction(group)

        ledger.database._transaction = count  # type: ignore[method-assign]
        at_once(*[lambda n=n: ledger.accept(a_mail(id=str(n))) for n in range(100)])

        assert sum(groups) == 100
        assert len(groups) <= 3

    def test_the_tables_are_made_once_by_processes_that_start_together(self, url: str) -> None:
        program = f"from mail_service.ledger.database import Database; Database({url!r}).check()"
        command = [sys.executable, "-W", "ignore", "-c", program]
        started = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]

        complaints = [process.communicate(timeout=60)[1] for process in started]

        assert [process.returncode for process in started] == [0] * 3, complaints

    def test_a_database_of_another_version_is_refused(self, url: str, database: Database) -> None:
        database.check()
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.execute(sa.text("update alembic_version set version_num = '9999'"))
        engine.dispose()
        other = Database(url)

        with pytest.raises(ConfigurationError, match=r"mail\.database: .*another version"):
            other.check()
        other.close()

    def test_the_tables_are_what_the_migrations_make(self, url: str, database: Database) -> None:
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        database.check()
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
        engine.dispose()

    def test_a_database_that_is_away_is_said_to_be_down(self) -> None:
        database = Database("postgresql+psycopg://nobody@127.0.0.1:1/nothing")

        with pytest.raises(StoreDown):
            database.check()
        with pytest.raises(StoreDown):
            Ledger(database, attempt_timeout_s=1).accept(a_mail())
        database.close()

    def test_what_it_says_of_a_failure_has_no_parameters(self) -> None:
        database = Database("postgresql+psycopg://nobody:secret@127.0.0.1:1/nothing")

        with pytest.raises(StoreDown) as caught:
            Ledger(database, attempt_timeout_s=1).accept(a_mail())

        assert "Ann" not in str(caught.value)
        assert "secret" not in str(caught.value)
        database.close()


class TestOwner:
    def test_this_process_lives(self) -> None:
        assert owner.may_be_alive(owner.this_process(), None)

    @pytest.mark.parametrize("name", ["", "x", "host/x/y", "host//"])
    def test_a_name_that_is_none_is_given_up_in_time(self, name: str) -> None:
        assert not owner.may_be_alive(name, None)
        assert not owner.may_be_alive(name, clock.iso(clock.later(-1)))
        assert owner.may_be_alive(name, clock.iso(clock.later(10)))


def test_what_was_over_when_its_process_died_is_known(database: Database, ledger: Ledger) -> None:
    everybody = {"ann@example.org": recipient(Status.QUEUED), "bob@example.org": recipient(Status.QUEUED)}
    dying = Ledger(database, attempt_timeout_s=1)
    claim = dying.claim(a_copy(recipients=everybody))
    assert isinstance(claim, Granted)

    dying.progress(replace(claim.mail, recipients={**everybody, "ann@example.org": recipient(Status.SENT)}))

    # the same process name, and nothing in flight: as after a start with the same pid
    found = ledger.claim(a_copy(recipients=everybody, redelivered=True))
    assert isinstance(found, Interrupted)
    assert found.mail.open_recipients == ["bob@example.org"]


def test_progress_of_a_mail_that_is_no_longer_ours_changes_nothing(ledger: Ledger) -> None:
    ledger.claim(a_copy())
    ledger.record(a_change(in_status("sent")))
    before = ledger.find("mail")

    ledger.progress(a_mail())

    assert ledger.find("mail") == before
