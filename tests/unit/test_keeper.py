"""What processes tell each other about mailers that are held, and what people hear of it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import eventlet
import pytest

from mail_service.holds import Held, Keeper, Ticket, keeper
from mail_service.ledger.holdings import Hold
from mail_service.outcome import Diagnosis, Kind, Receipt, Scope
from tests.support.shared_holds import SharedHolds

SENDER = "ann@example.org"


class Process:
    """A keeper with what it tells."""

    def __init__(self, store: SharedHolds) -> None:
        self.told: list[tuple[str, Hold]] = []
        self.released: list[str] = []
        self.seconds = 0.0
        self.keeper = Keeper(
            store,
            hold_probe_s=10,
            tell=lambda what, hold: self.told.append((what, hold)),
            release=lambda mailer, _rate: self.released.append(mailer),
            crowd=2,
            monotonic=lambda: self.seconds,
        )

    def admit(self, mail: str = "mail", mailer: str = "default", sender: str = SENDER) -> Ticket | Held:
        return self.keeper.admit(mailer, mail, sender)

    def attempt(self, *diagnoses: Diagnosis, mail: str = "mail", mailer: str = "default", sender: str = SENDER) -> None:
        ticket = self.admit(mail, mailer, sender)
        assert isinstance(ticket, Ticket), ticket
        receipts = [Receipt(address=f"to{n}@example.org", diagnosis=each) for n, each in enumerate(diagnoses)]
        self.keeper.note(ticket, receipts)
        # what is shared is shared in another greenlet
        eventlet.sleep(0)
        eventlet.sleep(0)


ACCEPTED = Diagnosis(kind=Kind.ACCEPTED)
WRONG_KEY = Diagnosis(kind=Kind.CONFIGURATION, text="401: wrong key", code="http 401")
REFUSED = Diagnosis(kind=Kind.PERMANENT, text="550 no such user", code="smtp 550")
BROKEN = Diagnosis(kind=Kind.PERMANENT, text="TypeError", code="TypeError")
NO_CONNECTION = Diagnosis(kind=Kind.TRANSIENT, text="refused", code="ConnectionRefusedError", scope=Scope.MAILER)
BAD_SENDER = Diagnosis(kind=Kind.CONFIGURATION, text="not verified", code="http 400", scope=Scope.SENDER)


@pytest.fixture
def store() -> SharedHolds:
    return SharedHolds()


@pytest.fixture
def one(store: SharedHolds) -> Process:
    return Process(store)


@pytest.fixture
def two(store: SharedHolds) -> Process:
    return Process(store)


@pytest.fixture
def clock(one: Process, two: Process) -> Callable[[float], None]:
    """Moves the time that both go by."""

    def move(seconds: float) -> None:
        one.seconds += seconds
        two.seconds += seconds

    return move


def test_what_one_process_finds_holds_the_mail_of_all(one: Process, two: Process) -> None:
    one.attempt(WRONG_KEY)

    held = two.admit("other mail")

    assert isinstance(held, Held)
    assert "401: wrong key" in held.text
    assert isinstance(two.admit("other mail", mailer="second"), Ticket)


def test_people_are_told_once(one: Process, two: Process, caplog: pytest.LogCaptureFixture) -> None:
    early, late = one.admit("early"), two.admit("late")
    assert isinstance(early, Ticket)
    assert isinstance(late, Ticket)
    with caplog.at_level(logging.INFO):
        for process, ticket in ((one, early), (two, late)):
            process.keeper.note(ticket, [Receipt(address="to@example.org", diagnosis=WRONG_KEY)])
            eventlet.sleep(0.01)

    assert [(what, hold.mailer, str(hold.reason)) for what, hold in one.told + two.told] == [
        ("mailer_held", "default", "configuration")
    ]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_probe_that_succeeds_releases_the_mail_of_all(
    one: Process, two: Process, clock: Callable[[float], None]
) -> None:
    one.attempt(WRONG_KEY)
    assert isinstance(two.admit(), Held)
    clock(11)

    two.attempt(ACCEPTED, mail="probe")

    assert two.released == ["default"]
    assert [what for what, _ in two.told] == ["mailer_released"]
    assert isinstance(one.admit("next"), Ticket)


def test_a_probe_that_says_nothing_about_the_mailer_leaves_it_to_another(
    one: Process, clock: Callable[[float], None]
) -> None:
    one.attempt(WRONG_KEY)
    clock(11)

    one.attempt(BROKEN, mail="broken")
    assert isinstance(one.admit("another"), Ticket)
    assert one.released == []


def test_an_answer_about_one_mail_shows_that_the_mailer_works(one: Process, clock: Callable[[float], None]) -> None:
    one.attempt(WRONG_KEY)
    clock(11)

    one.attempt(REFUSED, mail="refused")

    assert one.released == ["default"]


def test_several_mails_in_a_row_without_a_connection_hold_the_mailer(one: Process) -> None:
    for number in range(5):
        one.attempt(NO_CONNECTION, mail=str(number))

    assert isinstance(one.admit("next"), Held)
    assert [str(hold.reason) for _, hold in one.told] == ["down"]


def test_a_fault_of_a_sender_holds_this_senders_mail_alone(one: Process, two: Process) -> None:
    one.attempt(BAD_SENDER, sender="bad@example.org")

    assert isinstance(two.admit("mail", sender="bad@example.org"), Held)
    assert isinstance(two.admit("mail", sender=SENDER), Ticket)
    assert one.told == []


def test_a_mail_that_was_accepted_for_one_of_many_shows_that_the_mailer_works(one: Process) -> None:
    one.attempt(ACCEPTED, WRONG_KEY)

    assert isinstance(one.admit("next"), Ticket)


def test_while_the_database_is_away_a_process_goes_by_what_it_sees(
    one: Process, two: Process, store: SharedHolds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "SHARE_AGAIN_S", 0.01)
    store.is_away = True
    one.attempt(WRONG_KEY)
    assert isinstance(one.admit("next"), Held)
    assert isinstance(two.admit("next"), Ticket)

    store.is_away = False
    eventlet.sleep(0.05)

    assert isinstance(two.admit("next"), Held)
    assert [what for what, _ in one.told] == ["mailer_held"]


def test_a_process_that_starts_later_finds_the_mailer_held(one: Process, store: SharedHolds) -> None:
    one.attempt(WRONG_KEY)

    assert isinstance(Process(store).admit(), Held)


def test_no_address_is_logged(one: Process, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        one.attempt(BAD_SENDER, sender="bad@example.org")

    assert caplog.records
    assert "example.org" not in caplog.text


def test_a_mailer_that_is_slow_gets_no_more_than_its_share_of_the_workers(
    one: Process, clock: Callable[[float], None]
) -> None:
    tickets = [one.admit("1"), one.admit("2")]
    assert isinstance(one.admit("3"), Ticket)
    clock(2)

    assert isinstance(one.admit("4"), Held)
    assert isinstance(one.admit("5", mailer="second"), Ticket)

    for ticket in tickets:
        assert isinstance(ticket, Ticket)
        one.keeper.note(ticket, [Receipt(address="to@example.org", diagnosis=ACCEPTED)])
    assert isinstance(one.admit("6"), Ticket)


def test_a_mailer_that_has_not_answered_yet_is_slow_sooner(one: Process, clock: Callable[[float], None]) -> None:
    one.attempt(ACCEPTED, mailer="proven")
    for mailer in ("proven", "new"):
        assert isinstance(one.admit("1", mailer=mailer), Ticket)
        assert isinstance(one.admit("2", mailer=mailer), Ticket)

    clock(keeper.UNPROVEN_SLOW_S + 0.01)

    assert one.keeper.slow_s == keeper.UNPROVEN_SLOW_S
    assert isinstance(one.admit("3", mailer="proven"), Ticket)
    assert isinstance(one.admit("3", mailer="new"), Held)


def test_the_only_mailer_in_use_has_the_usual_time_to_answer(one: Process, clock: Callable[[float], None]) -> None:
    assert isinstance(one.admit("1"), Ticket)
    assert isinstance(one.admit("2"), Ticket)

    clock(keeper.UNPROVEN_SLOW_S + 0.01)
    assert one.keeper.slow_s == keeper.SLOW_S
    assert isinstance(one.admit("3"), Ticket)

    assert isinstance(one.admit("1", mailer="second"), Ticket)
    clock(keeper.UNPROVEN_SLOW_S + 0.01)
    assert isinstance(one.admit("4"), Held)


def test_mail_of_a_mailer_that_may_yet_answer_looks_again_soon(one: Process, clock: Callable[[float], None]) -> None:
    one.attempt(ACCEPTED, mailer="proven")
    for number in range(2):
        assert isinstance(one.admit(f"first {number}"), Ticket)

    def waits() -> list[float]:
        return [one.keeper.look("default", SENDER) or 0 for _ in range(200)]

    clock(keeper.UNPROVEN_SLOW_S + 0.01)
    assert 0 < max(waits()) < 2

    clock(keeper.SLOW_S)
    assert max(waits()) > 10


def test_what_becomes_held_at_once_beyond_what_is_allowed_is_made_up_for(
    one: Process, clock: Callable[[float], None]
) -> None:
    one.attempt(WRONG_KEY)
    for number in range(int(2 * keeper.HOLDS_AT_ONCE)):
        assert isinstance(one.admit(f"held {number}"), Held)
    assert not one.keeper.may_hold_more

    clock(keeper.HOLDS_AT_ONCE / keeper.HOLDS_PER_S)
    assert not one.keeper.may_hold_more

    clock(2 / keeper.HOLDS_PER_S)
    assert one.keeper.may_hold_more
