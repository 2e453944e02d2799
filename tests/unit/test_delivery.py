"""One attempt: whatever a backend does, it ends in exactly one verdict. No broker and no database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from nameko_amqp_retry import Backoff

from mail_service import clock, topology
from mail_service.delivery.copies import Delivery, read
from mail_service.delivery.courier import Courier
from mail_service.delivery.deadline import Deadline
from mail_service.delivery.handover import Handover, guarded
from mail_service.delivery.settling import MOST_DEATHS, Step
from mail_service.delivery.verdicts import Dropped, HeldBack, Misplaced, Postponed, Tried
from mail_service.diagnosis import Context, diagnose
from mail_service.envelope import seal
from mail_service.errors import InvalidMessage
from mail_service.holds import Keeper, Pauses
from mail_service.ledger.pauses import Pause
from mail_service.ledger.records import (
    Change,
    Claim,
    Copy,
    Granted,
    InFlight,
    Interrupted,
    Mail,
    OtherMail,
    Outstanding,
    PutOff,
    Superseded,
    recipient,
)
from mail_service.mailers import AttemptFailed
from mail_service.outcome import Diagnosis, Kind, Receipt, Status
from mail_service.settings import Settings
from tests.support.messages import configure_django
from tests.support.shared_holds import SharedHolds
from tests.support.shared_pauses import SharedPauses, no_pauses

configure_django()

A, B = "a@example.org", "b@example.org"
SETTINGS = Settings(default_from="me@example.org")


@dataclass
class FakeLedger:
    """Grants every claim, unless it is told what to answer; keeps what is recorded."""

    answer: Callable[[Copy], Claim] = lambda copy: Granted(mail=copy.mail)
    claims: list[Copy] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    accepted: list[Mail] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    known: Callable[[Mail], Mail] = lambda mail: mail

    def claim(self, copy: Copy) -> Claim:
        self.claims.append(copy)
        return self.answer(copy)

    def record(self, change: Change) -> None:
        self.changes.append(change)

    def accept(self, mail: Mail, content: bytes | None = None) -> Mail:
        self.accepted.append(mail)
        self.contents += [content] if content else []
        return self.known(mail)


class FakeMailer:
    """Does what it is given: returns it, or raises it."""

    name, backend, on_unknown, keeps_send_at = "default", "tests.FakeMailer", "retry", False

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)
        self.sent: list[tuple[Any, list[str]]] = []

    def send(self, email: Any, waiting: Sequence[str], *, attempt: int = 0) -> list[Receipt]:
        self.sent.append((email, list(waiting)))
        outcome = self.outcomes.pop(0) if self.outcomes else Kind.ACCEPTED
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, Kind):
            return [Receipt(address=address, diagnosis=Diagnosis(kind=outcome)) for address in waiting]
        return outcome  # type: ignore[return-value]

    def check(self) -> str:
        return "fine"

    def close(self) -> None:
        pass


@dataclass
class OneMailer:
    """The same one under every name, or none."""

    mailer: FakeMailer | None

    def chain(self, _name: str, _tenant: str | None = None) -> list[Any]:
        return [self.mailer] if self.mailer else []


def a_courier(
    mailer: FakeMailer | None,
    ledger: FakeLedger | None = None,
    classify: Any = diagnose,
    deadline_s: float = 5,
    pauses: Pauses | None = None,
) -> Courier:
    keeper = Keeper(SharedHolds(), hold_probe_s=30, tell=lambda _what, _hold: None, release=lambda _mailer, _rate: None)
    pauses = pauses or no_pauses()
    handover = Handover(
        OneMailer(mailer), classify=guarded(classify), deadline=Deadline(deadline_s), keeper=keeper, pauses=pauses
    )
    return Courier(SETTINGS, ledger or FakeLedger(), lambda _name, _tenant: mailer, handover, keeper, pauses=pauses)


def a_delivery(
    *to: str, options: dict[str, Any] | None = None, headers: dict[str, Any] | None = None, **message: Any
) -> Delivery:
    envelope = seal({"to": list(to or (A,)), "subject": "s", **message}, options or {}, door="submit")
    return read(envelope.body(), headers or {}, redelivered=False, settings=SETTINGS)


def tried(attempt: Callable[[], Any]) -> Tried:
    """The attempt, whether it was returned or carried by a Backoff."""
    try:
        verdict = attempt()
    except Backoff as backoff:
        verdict = backoff.tried
    assert isinstance(verdict, Tried)
    return verdict


class CustomError(Exception):
    """Nobody has heard of it."""


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        pytest.param(CustomError("x"), Kind.PERMANENT, id="any exception is permanent"),
        pytest.param(UnprintableError(), Kind.PERMANENT, id="one that cannot be printed too"),
        pytest.param(MemoryError(), Kind.PERMANENT, id="no memory"),
        pytest.param(RecursionError(), Kind.PERMANENT, id="nested too deeply"),
        pytest.param(SystemExit(3), Kind.PERMANENT, id="an attempt to end the process"),
        pytest.param(KeyboardInterrupt(), Kind.PERMANENT, id="an interrupt that is none"),
        pytest.param(AttemptFailed(ConnectionRefusedError(), "connect"), Kind.TRANSIENT, id="refused connection"),
        pytest.param(AttemptFailed(TimeoutError(), "body"), Kind.UNKNOWN, id="a timeout after DATA"),
        pytest.param(AttemptFailed(TimeoutError(), "rcpt"), Kind.TRANSIENT, id="a timeout before DATA"),
        pytest.param([], Kind.UNKNOWN, id="a mailer that says nothing about a recipient"),
        pytest.param("nonsense", Kind.PERMANENT, id="a mailer that returns nonsense"),
    ],
)
def test_every_end_of_an_attempt_has_a_diagnosis(outcome: object, kind: Kind) -> None:
    courier = a_courier(FakeMailer(outcome))

    attempt = tried(lambda: courier.attempt(a_delivery()))

    assert attempt.settled.diagnosis.kind is kind


def test_an_unforeseen_exception_stands_in_the_error_log_with_its_traceback() -> None:
    attempt = tried(lambda: a_courier(FakeMailer(CustomError("boom"))).attempt(a_delivery()))

    assert attempt.change.attempts
    assert "Traceback" in attempt.change.attempts[0].text
    assert "CustomError: boom" in attempt.change.attempts[0].text
    assert "Traceback" not in str(attempt.change.mail.error)
    assert attempt.change.content is not None


def test_a_transient_failure_raises_the_schedules_backoff() -> None:
    courier = a_courier(FakeMailer(Kind.TRANSIENT))

    with pytest.raises(Backoff) as raised:
        courier.attempt(a_delivery(options={"backoff": "fixed"}))

    assert type(raised.value).schedule == (60_000,)
    assert type(raised.value).limit == 30


def test_a_backoff_that_the_backend_raises_itself_is_kept() -> None:
    class Mine(Backoff):
        schedule = (5,)

    with pytest.raises(Mine):
        a_courier(FakeMailer(Mine())).attempt(a_delivery())


def test_a_backend_that_never_returns_ends_as_unknown() -> None:
    import eventlet

    class Hanging(FakeMailer):
        def send(self, email: Any, waiting: Sequence[str], *, attempt: int = 0) -> list[Receipt]:
            while True:
                try:
                    eventlet.sleep(60)
                except BaseException:  # noqa: BLE001 - as a bad backend does
                    continue

    attempt = tried(lambda: a_courier(Hanging(), deadline_s=0.05).attempt(a_delivery()))

    assert attempt.settled.diagnosis.kind is Kind.UNKNOWN


def test_a_classifier_that_raises_is_a_permanent_failure_with_both_tracebacks() -> None:
    def classify(_exc: BaseException, _context: Context) -> Diagnosis:
        raise CustomError("in the classifier")

    attempt = tried(lambda: a_courier(FakeMailer(ValueError("first")), classify=classify).attempt(a_delivery()))

    assert attempt.settled.diagnosis.kind is Kind.PERMANENT
    assert attempt.change.attempts
    assert "in the classifier" in attempt.change.attempts[0].text
    assert "ValueError: first" in attempt.change.attempts[0].text
    assert "Traceback" not in str(attempt.change.mail.error)


def test_a_classifier_that_answers_nonsense_is_a_permanent_failure() -> None:
    attempt = tried(
        lambda: a_courier(FakeMailer(ValueError()), classify=lambda _exc, _context: "later").attempt(a_delivery())
    )

    assert attempt.settled.diagnosis.kind is Kind.PERMANENT


def test_a_mailer_that_is_not_configured_holds_the_mail() -> None:
    verdict = a_courier(None).attempt(a_delivery())

    assert isinstance(verdict, HeldBack)
    assert "no mailer is configured" in str(verdict.change.mail.error)


def test_a_mail_whose_mailer_is_held_is_not_attempted() -> None:
    mailer = FakeMailer(Kind.CONFIGURATION)
    courier = a_courier(mailer)
    courier.attempt(a_delivery())

    verdict = courier.attempt(a_delivery())

    assert isinstance(verdict, HeldBack)
    assert len(mailer.sent) == 1
    assert (verdict.change.mail.attempts, verdict.change.attempts) == (0, ())
    assert verdict.change.mail.recipients[A]["status"] == "held"


def test_a_copy_of_a_held_mail_is_put_off_without_asking_the_ledger() -> None:
    ledger = FakeLedger()
    courier = a_courier(FakeMailer(Kind.CONFIGURATION), ledger)
    courier.attempt(a_delivery())

    verdict = courier.attempt(a_delivery(headers={topology.HELD: True}))

    assert isinstance(verdict, Postponed)
    assert len(ledger.claims) == 1


def test_only_those_who_wait_are_handed_over_and_the_headers_name_all() -> None:
    mailer = FakeMailer()
    known = {A: recipient(Status.SENT), B: recipient(Status.DEFERRED)}
    ledger = FakeLedger(lambda copy: Granted(mail=replace(copy.mail, recipients=known)))

    a_courier(mailer, ledger).attempt(a_delivery(A, B))

    email, waiting = mailer.sent[0]
    assert waiting == [B]
    assert email.to == [A, B]


def test_message_id_and_date_are_those_of_the_acceptance_on_every_attempt() -> None:
    mailer, delivery = FakeMailer(), a_delivery()
    courier = a_courier(mailer)

    courier.attempt(delivery)
    courier.attempt(delivery)

    identities = {(made["Message-ID"], made["Date"]) for made in (email.message() for email, _ in mailer.sent)}
    assert identities == {(delivery.envelope.message_id, delivery.envelope.date)}


def test_a_mail_past_its_time_is_not_attempted() -> None:
    mailer = FakeMailer()

    attempt = tried(lambda: a_courier(mailer).attempt(a_delivery(options={"expires_at": "2020-01-01T00:00:00"})))

    assert attempt.change.mail.status is Status.EXPIRED
    assert mailer.sent == []


def test_a_mail_with_send_at_waits_for_it_and_is_known_meanwhile() -> None:
    mailer, ledger = FakeMailer(), FakeLedger()
    moment = clock.iso(clock.now() + timedelta(hours=1))

    verdict = a_courier(mailer, ledger).attempt(a_delivery(send_at=moment))

    assert isinstance(verdict, Postponed)
    assert 3_590_000 < verdict.delay_ms <= 3_600_000
    assert ledger.accepted[0].next_attempt_at == moment
    assert mailer.sent == []


def test_a_mail_that_was_rescheduled_asks_the_ledger_and_not_its_send_at() -> None:
    ledger = FakeLedger(known=lambda mail: replace(mail, not_before="2020-01-01T00:00:00.000000+00:00"))
    mailer = FakeMailer()

    verdict = a_courier(mailer, ledger).attempt(a_delivery(send_at="2099-01-01T00:00:00Z"))

    assert isinstance(verdict, Tried)
    assert len(mailer.sent) == 1


def test_a_mail_that_is_put_off_comes_back_at_its_time_and_its_content_is_kept() -> None:
    until = clock.iso(clock.later(3600))
    ledger = FakeLedger(answer=lambda copy: PutOff(mail=replace(copy.mail, not_before=until)))

    verdict = a_courier(FakeMailer(), ledger).attempt(a_delivery())

    assert isinstance(verdict, Postponed)
    assert verdict.delay_ms == pytest.approx(3_600_000, abs=5000)
    assert len(ledger.contents) == 1


def test_the_copy_of_a_cancelled_mail_leaves_its_content_and_is_dropped() -> None:
    ledger = FakeLedger(answer=lambda copy: Superseded(mail=copy.mail, wants_content=True))

    verdict = a_courier(FakeMailer(), ledger).attempt(a_delivery())

    assert isinstance(verdict, Dropped)
    assert len(ledger.contents) == 1


def a_store_with(**about: Any) -> Pauses:
    store = SharedPauses()
    store.put(Pause(since=clock.now_iso(), **about))
    return Pauses(store, hold_probe_s=30, release=lambda _pause, _rate: None)


def test_a_paused_mail_is_held_without_an_attempt() -> None:
    mailer = FakeMailer()

    verdict = a_courier(mailer, pauses=a_store_with(mailer="default", reason="why")).attempt(a_delivery(A, B))

    assert isinstance(verdict, HeldBack)
    assert verdict.is_news
    assert mailer.sent == []
    mail = verdict.change.mail
    assert {state["status"] for state in mail.recipients.values()} == {"held"}
    assert mail.attempts == 0
    assert mail.error is not None
    assert mail.error.endswith(": why")


def test_a_mail_that_is_known_to_be_paused_waits_without_a_claim() -> None:
    ledger = FakeLedger()

    verdict = a_courier(FakeMailer(), ledger, pauses=a_store_with()).attempt(a_delivery(headers={topology.HELD: True}))

    assert isinstance(verdict, Postponed)
    assert ledger.claims == []


@pytest.mark.parametrize("headers", [{}, {topology.HELD: True}], ids=["new", "held"])
def test_a_paused_mail_expires(headers: dict[str, Any]) -> None:
    delivery = a_delivery(options={"expires_at": "2020-01-01T00:00:00Z"}, headers=headers)

    verdict = a_courier(FakeMailer(), pauses=a_store_with()).attempt(delivery)

    assert isinstance(verdict, Tried)
    assert verdict.change.mail.status == Status.EXPIRED


SUPPRESSED = recipient(Status.SUPPRESSED, detail="the address is suppressed")


def granted_without(*addresses: str) -> Callable[[Copy], Claim]:
    """A claim that leaves somebody out."""
    return lambda copy: Granted(
        mail=replace(copy.mail, recipients={**copy.mail.recipients, **dict.fromkeys(addresses, SUPPRESSED)})
    )


@pytest.mark.parametrize("pauses", [None, a_store_with()], ids=["", "paused"])
def test_a_mail_with_nobody_left_ends_suppressed_without_an_attempt(pauses: Pauses | None) -> None:
    mailer = FakeMailer()

    verdict = a_courier(mailer, FakeLedger(answer=granted_without(A, B)), pauses=pauses).attempt(a_delivery(A, B))

    assert isinstance(verdict, Tried)
    assert mailer.sent == []
    mail = verdict.change.mail
    assert (mail.status, mail.attempts) == (Status.SUPPRESSED, 0)
    assert mail.error == "nobody was left to mail: the address is suppressed"
    assert verdict.change.content


def test_who_is_left_gets_the_mail_and_the_record_says_who_did_not() -> None:
    mailer = FakeMailer()

    verdict = a_courier(mailer, FakeLedger(answer=granted_without(A))).attempt(a_delivery(A, B))

    assert isinstance(verdict, Tried)
    assert [waiting for _, waiting in mailer.sent] == [[B]]
    mail = verdict.change.mail
    assert mail.status == Status.PARTLY_SENT
    assert mail.error == "1 not mailed: the address is suppressed"


def test_a_mail_whose_send_at_has_come_is_sent_without_it() -> None:
    mailer = FakeMailer()

    a_courier(mailer).attempt(a_delivery(send_at="2020-01-01T00:00:00Z"))

    assert not hasattr(mailer.sent[0][0], "send_at")


def test_a_provider_that_keeps_send_at_gets_it_at_once() -> None:
    mailer = FakeMailer()
    mailer.keeps_send_at = True

    a_courier(mailer).attempt(a_delivery(send_at="2099-01-01T00:00:00Z"))

    assert mailer.sent[0][0].send_at is not None


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        pytest.param(lambda copy: InFlight(), Postponed, id="somebody else attempts it: come back"),
        pytest.param(lambda copy: Superseded(mail=copy.mail), Dropped, id="a newer copy is on its way: drop"),
        pytest.param(lambda copy: Outstanding(mail=copy.mail), Postponed, id="its successor may be missing: put it"),
        pytest.param(lambda copy: OtherMail(), Misplaced, id="the id is another mail's: to the error log"),
    ],
)
def test_a_claim_that_is_not_granted_sends_nothing(claim: Callable[[Copy], Claim], verdict: type) -> None:
    mailer = FakeMailer()

    assert isinstance(a_courier(mailer, FakeLedger(claim)).attempt(a_delivery()), verdict)
    assert mailer.sent == []


def test_an_attempt_cut_off_by_a_crash_is_unknown_and_counted() -> None:
    mailer = FakeMailer()

    attempt = tried(
        lambda: a_courier(mailer, FakeLedger(lambda copy: Interrupted(mail=copy.mail))).attempt(a_delivery())
    )

    assert mailer.sent == []
    assert (attempt.settled.step, attempt.settled.diagnosis.kind) == (Step.RETRY, Kind.UNKNOWN)
    assert (attempt.settled.mail.attempts, attempt.settled.mail.deaths) == (1, 1)


def test_a_mail_that_ended_the_process_too_often_has_failed() -> None:
    ledger = FakeLedger(lambda copy: Interrupted(mail=replace(copy.mail, deaths=MOST_DEATHS - 1)))

    attempt = tried(lambda: a_courier(FakeMailer(), ledger).attempt(a_delivery()))

    assert attempt.settled.mail.status is Status.FAILED


def test_an_attempt_that_ends_resets_the_count_of_deaths() -> None:
    ledger = FakeLedger(lambda copy: Granted(mail=replace(copy.mail, deaths=3)))

    assert tried(lambda: a_courier(FakeMailer(), ledger).attempt(a_delivery())).settled.mail.deaths == 0


def test_a_copy_that_is_not_due_goes_on_waiting() -> None:
    ledger = FakeLedger()
    headers = {topology.DUE: clock.now_ms() + 60_000}

    verdict = a_courier(FakeMailer(), ledger).attempt(a_delivery(headers=headers))

    assert isinstance(verdict, Postponed)
    assert 55_000 < verdict.delay_ms <= 60_000
    assert ledger.claims == []


def test_a_change_that_travelled_is_written_down_and_nothing_else() -> None:
    delivery, mailer, ledger = a_delivery(), FakeMailer(), FakeLedger()
    done = replace(delivery.mail, status=Status.SENT, generation=1)
    envelope = replace(delivery.envelope, unrecorded=[Change(mail=done).to_json()])
    headers = {topology.STATE: topology.STATE_LOG}
    carrier = read(envelope.body(), headers, redelivered=False, settings=SETTINGS)

    verdict = a_courier(mailer, ledger).attempt(carrier)

    assert isinstance(verdict, Dropped)
    assert [change.mail.status for change in ledger.changes] == [Status.SENT]
    assert (ledger.claims, mailer.sent) == ([], [])


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({}, id="empty"),
        pytest.param({"mail": {}, "attempt": None}, id="no mail"),
        pytest.param({"mail": {"id": "x", "status": "nonsense"}, "attempt": None}, id="no status"),
        pytest.param(7, id="a number"),
    ],
)
def test_forged_changes_are_left_out(facts: object) -> None:
    ledger, mailer = FakeLedger(), FakeMailer()
    delivery = a_delivery()
    forged = replace(delivery, envelope=replace(delivery.envelope, unrecorded=[facts]))  # type: ignore[list-item]

    a_courier(mailer, ledger).attempt(forged)

    assert ledger.changes == []
    assert len(mailer.sent) == 1


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({topology.ATTEMPTS: "many", topology.GENERATION: -1}, id="no numbers"),
        pytest.param({topology.ATTEMPTS: 2**70, topology.GENERATION: 2**40}, id="numbers that no database takes"),
        pytest.param({topology.ATTEMPTS: True, topology.GENERATION: None, topology.DUE: "soon"}, id="other types"),
    ],
)
def test_forged_headers_count_as_nothing(headers: dict[str, Any]) -> None:
    mail = a_delivery(headers=headers).mail

    assert (mail.attempts, mail.generation) == (0, 0)


def test_a_message_that_got_past_a_door_is_checked_again() -> None:
    envelope = seal({"to": ["a@example.org"], "subject": "x\r\nBcc: b@example.org"}, {}, door="submit")

    with pytest.raises(InvalidMessage) as raised:
        read(envelope.body(), {}, redelivered=False, settings=SETTINGS)

    assert raised.value.field == "subject"
