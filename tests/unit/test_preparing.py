"""Hooks before sending: whatever they do ends in receipts, and their parts are handed over in one attempt."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import eventlet
import pytest
from nameko_amqp_retry import Backoff

from mail_service import clock, hooks, message
from mail_service.delivery.deadline import Deadline
from mail_service.delivery.handover import Handed, Order, Round, Turn
from mail_service.delivery.preparing import Preparing
from mail_service.delivery.settling import Step, settle
from mail_service.envelope import seal
from mail_service.holds import Held
from mail_service.hooks import Context, Part, Refused
from mail_service.ledger.records import Mail, recipient
from mail_service.outcome import Diagnosis, Kind, Receipt, Status
from mail_service.settings import Limit, Settings
from tests.support.messages import configure_django

configure_django()

SETTINGS = Settings(default_from="me@example.org", max_size=10_000, max_attachments=2)
PAGE = {"filename": "page.txt", "content": "Some text.", "mimetype": "text/plain"}
ANN, BOB, CY = "Ann@a.example", "bob@b.example", "cy@A.example"
DOCS = Path(__file__).parents[2] / "docs" / "hooks.md"


@dataclass
class Hands:
    """Notes what it is to hand over, and has the answer for it; accepted by default."""

    answer: Callable[[Mail], Kind | Held | Turn] = lambda _mail: Kind.ACCEPTED
    seen: list[tuple[Mapping[str, Any], list[str]]] = field(default_factory=list)
    seconds: list[float | None] = field(default_factory=list)
    turns: list[tuple[list[str], bool]] = field(default_factory=list)

    def attempt(self, order: Order) -> Handed | Held | Turn:
        mail = order.mail
        self.turns.append((list(order.passed), order.is_further))
        self.seen.append((order.canonical, mail.open_recipients))
        self.seconds.append(order.within_s)
        answer = self.answer(mail)
        if isinstance(answer, Held | Turn):
            return answer
        text = {Kind.TRANSIENT: "450 later"}.get(answer, "250 taken")
        receipts = [Receipt(address=each, diagnosis=Diagnosis(kind=answer, text=text)) for each in mail.open_recipients]
        return Handed(
            rounds=[Round(mailer="default", receipts=receipts, at=clock.now_iso(), seconds=0.5)], receipts=receipts
        )

    @property
    def to(self) -> list[list[str]]:
        return [waiting for _, waiting in self.seen]


@dataclass
class Attempted:
    """An attempt, and what it made of the mail."""

    handed: Handed | Held | Turn
    hands: Hands
    notes: list[Mail]
    mail: Mail

    @property
    def statuses(self) -> dict[str, str]:
        assert isinstance(self.handed, Handed)
        settled = settle(self.mail, self.handed.receipts)
        return {who: state["status"] for who, state in settled.mail.recipients.items()}

    @property
    def details(self) -> set[str]:
        assert isinstance(self.handed, Handed)
        return {each.diagnosis.text for each in self.handed.receipts}


def attempt(
    *functions: Any,
    hands: Hands | None = None,
    states: Mapping[str, Status] | None = None,
    deadline: Deadline | None = None,
    **fields: Any,
) -> Attempted:
    canonical = message.validate(
        {"to": [ANN], "cc": [f"Bob <{BOB}>"], "bcc": [CY], "subject": "Hello", "body": "Hi.", **fields},
        default_from=SETTINGS.default_from,
        max_size=SETTINGS.max_size,
    )
    moment = clock.now_iso()
    states = states or dict.fromkeys([ANN, BOB, CY], Status.QUEUED)
    mail = Mail(
        id="m",
        status=Status.QUEUED,
        mailer="default",
        tenant="acme",
        attempts=1,
        recipients={who: recipient(status) for who, status in states.items()},
        submitted_at=moment,
        updated_at=moment,
    )
    hands, notes = hands or Hands(), list[Mail]()
    named = {f"my.hooks.{function.__name__.strip('<>')}{n}": function for n, function in enumerate(functions)}
    preparing = Preparing(hands, named, settings=SETTINGS, deadline=deadline or Deadline(5), note=notes.append)
    handed = preparing.attempt(Order(envelope=seal(canonical, {}, door="event"), canonical=canonical, mail=mail))
    assert canonical["subject"] == fields.get("subject", "Hello"), "what was handed in has changed"
    return Attempted(handed, hands, notes, mail)


def test_a_hook_that_answers_nothing_leaves_the_mail_as_it_is() -> None:
    attempted = attempt(lambda _message, _context: None)

    assert attempted.hands.to == [[ANN, BOB, CY]]
    assert attempted.statuses == dict.fromkeys([ANN, BOB, CY], "sent")


def test_a_hook_may_change_the_message_in_place_or_answer_another_one() -> None:
    def in_place(message: dict[str, Any], _context: Context) -> None:
        message["subject"] = "[shop] " + message["subject"]
        message.setdefault("headers", {})["X-Shop"] = "1"

    def another(message: dict[str, Any], _context: Context) -> dict[str, Any]:
        return {**message, "html": "<p>Hi.</p>"}

    ((canonical, _),) = attempt(in_place, another).hands.seen

    assert canonical["subject"] == "[shop] Hello"
    assert canonical["headers"] == {"X-Shop": "1"}
    # checked as one that is handed in, and made canonical
    assert canonical["alternatives"] == [{"content": "<p>Hi.</p>", "mimetype": "text/html"}]


def test_a_hook_knows_whose_mail_it_is_and_who_still_waits() -> None:
    contexts: list[Context] = []

    attempt(
        lambda _message, context: contexts.append(context),
        states={ANN: Status.SENT, BOB: Status.DEFERRED, CY: Status.QUEUED},
    )

    assert contexts == [
        Context(
            id="m",
            tenant="acme",
            mailer="default",
            priority="normal",
            door="event",
            attempt=2,
            recipients=(BOB, CY),
        )
    ]


def test_per_recipient_is_handed_over_once_for_each() -> None:
    attempted = attempt(hooks.per_recipient)

    assert attempted.hands.to == [[ANN], [BOB], [CY]]
    assert {len(canonical["cc"]) for canonical, _ in attempted.hands.seen} == {1}
    assert isinstance(attempted.handed, Handed)
    # one line in the error log for each mailer, not for each part
    assert [(each.mailer, len(each.receipts), each.seconds) for each in attempted.handed.rounds] == [
        ("default", 3, 1.5)
    ]


def test_per_domain_is_handed_over_once_for_each_domain_in_any_case() -> None:
    assert attempt(hooks.per_domain).hands.to == [[ANN, CY], [BOB]]


def test_who_has_got_the_mail_is_in_no_part() -> None:
    states = {ANN: Status.SENT, BOB: Status.DEFERRED, CY: Status.DEFERRED}

    assert attempt(hooks.per_recipient, states=states).hands.to == [[BOB], [CY]]


def test_each_recipient_of_a_part_has_an_outcome_of_his_own() -> None:
    hands = Hands(lambda mail: Kind.TRANSIENT if BOB in mail.recipients else Kind.ACCEPTED)

    assert attempt(hooks.per_recipient, hands=hands).statuses == {ANN: "sent", BOB: "deferred", CY: "sent"}


def test_hooks_are_asked_about_the_parts_that_the_one_before_made() -> None:
    asked: list[tuple[str, ...]] = []

    attempt(hooks.per_domain, lambda _message, context: asked.append(context.recipients))

    assert asked == [(ANN, CY), (BOB,)]


def test_a_part_may_be_a_message_of_its_own() -> None:
    def alone(message: dict[str, Any], context: Context) -> Iterator[dict[str, Any]]:
        for address in context.recipients:
            yield {**message, "to": [address], "cc": [], "bcc": []}

    attempted = attempt(alone)

    assert attempted.hands.to == [[ANN], [BOB], [CY]]
    assert [canonical["to"] for canonical, _ in attempted.hands.seen] == [[ANN], [BOB], [CY]]


def test_a_refused_mail_has_failed_with_the_hooks_words_and_nobody_was_asked() -> None:
    def refuse(_message: dict[str, Any], _context: Context) -> None:
        raise Refused("no attachments on Sundays")

    attempted = attempt(refuse)

    assert attempted.hands.seen == []
    assert set(attempted.statuses.values()) == {"failed"}
    assert attempted.details == {"refused by my.hooks.refuse0: no attachments on Sundays"}


def test_a_hook_that_raises_is_a_permanent_failure_with_its_traceback() -> None:
    def broken(message: dict[str, Any], _context: Context) -> None:
        message["nothing"]["there"] = 1

    attempted = attempt(broken)

    assert isinstance(attempted.handed, Handed)
    (round_,) = attempted.handed.rounds
    diagnosis = round_.receipts[0].diagnosis
    assert (diagnosis.kind, diagnosis.code) == (Kind.PERMANENT, "hook")
    assert "Traceback" in diagnosis.trace
    assert "in broken" in diagnosis.trace
    assert "Traceback" not in diagnosis.text


@pytest.mark.parametrize("problem", [SystemExit(1), KeyboardInterrupt(), RecursionError()])
def test_whatever_a_hook_raises_the_process_goes_on(problem: BaseException) -> None:
    def fatal(_message: dict[str, Any], _context: Context) -> None:
        raise problem

    assert set(attempt(fatal).statuses.values()) == {"failed"}


def test_only_the_part_about_which_a_hook_raises_fails() -> None:
    def picky(_message: dict[str, Any], context: Context) -> None:
        if BOB in context.recipients:
            raise Refused("not to b.example")

    attempted = attempt(hooks.per_domain, picky)

    assert attempted.statuses == {ANN: "sent", BOB: "failed", CY: "sent"}


def test_a_hook_that_asks_for_a_retry_gets_one() -> None:
    class Later(Backoff):
        schedule = (7,)

    def later(_message: dict[str, Any], _context: Context) -> None:
        raise Later

    attempted = attempt(later)

    assert isinstance(attempted.handed, Handed)
    assert isinstance(attempted.handed.backoff, Later)
    assert set(attempted.statuses.values()) == {"deferred"}


def test_a_hook_that_takes_too_long_is_tried_again() -> None:
    attempted = attempt(lambda _message, _context: eventlet.sleep(60), deadline=Deadline(0.05))

    assert attempted.hands.seen == []
    assert set(attempted.statuses.values()) == {"deferred"}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda message: "nonsense", "expected a message, got str"),
        (lambda message: [1], "expected a message, got int"),
        (lambda message: {**message, "tto": ["x@y.z"]}, "the message cannot be used: tto: there is no such field"),
        (lambda message: {**message, "body": "x" * 20_000}, "the message cannot be used"),
        (lambda message: {**message, "attachments": [PAGE] * 3}, "at most 2 are allowed (mail.max_attachments)"),
        (lambda message: {**message, "bcc": ["archive@example.org"]}, "1 recipients are none of the mail's"),
        (lambda message: [message, Part(message, [BOB])], "1 recipients are in two parts"),
        (lambda message: [Part({**message, "cc": []}, [BOB])], "a part is for recipients that its message does not"),
    ],
    ids=[
        "a text",
        "a number",
        "an unknown field",
        "too large",
        "more than allowed",
        "somebody else",
        "twice",
        "not named",
    ],
)
def test_an_answer_that_cannot_be_used_is_a_permanent_failure(answer: Any, text: str) -> None:
    attempted = attempt(lambda message, _context: answer(message))

    assert attempted.hands.seen == []
    assert set(attempted.statuses.values()) == {"failed"}
    (detail,) = attempted.details
    assert text in detail


def test_who_is_left_out_has_failed_and_is_never_forgotten() -> None:
    attempted = attempt(lambda message, _context: [Part(message, [ANN])])

    assert attempted.statuses == {ANN: "sent", BOB: "failed", CY: "failed"}
    assert "left out by my.hooks.lambda0" in attempted.details


def test_an_empty_list_of_parts_is_a_failure_for_everybody() -> None:
    assert set(attempt(lambda _message, _context: []).statuses.values()) == {"failed"}


HELD = Held(seconds=30, text="mailer default is held")


def test_a_mail_of_which_every_part_is_held_is_held() -> None:
    assert attempt(hooks.per_recipient, hands=Hands(lambda _mail: HELD)).handed == HELD


def test_parts_that_are_held_wait_when_others_were_handed_over() -> None:
    hands = Hands(lambda mail: HELD if BOB in mail.recipients else Kind.ACCEPTED)

    attempted = attempt(hooks.per_recipient, hands=hands)

    assert attempted.statuses == {ANN: "sent", BOB: "held", CY: "sent"}
    assert isinstance(attempted.handed, Handed)
    settled = settle(attempted.mail, attempted.handed.receipts)
    assert (settled.step, settled.wait_s, settled.mail.attempts) == (Step.HOLD, 30, 1)


def test_parts_that_are_late_are_attempted_again_and_share_the_time_of_one_attempt() -> None:
    deadline = Deadline(5)

    def slow(_mail: Mail) -> Kind:
        # as when the service is told to stop
        deadline.cut_short()
        return Kind.ACCEPTED

    attempted = attempt(hooks.per_recipient, hands=Hands(slow), deadline=deadline)

    assert attempted.hands.to == [[ANN]]
    assert attempted.statuses == {ANN: "sent", BOB: "deferred", CY: "deferred"}
    assert all(seconds is not None and seconds <= 5 for seconds in attempted.hands.seconds)


def test_whose_turn_is_over_is_noted_before_the_next_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mail_service.delivery.preparing.NOTE_EVERY_S", 0.0)
    hands = Hands(lambda mail: Kind.TRANSIENT if BOB in mail.recipients else Kind.ACCEPTED)

    notes = attempt(hooks.per_recipient, hands=hands).notes

    assert [[state["status"] for state in note.recipients.values()] for note in notes] == [
        ["sent", "queued", "queued"],
        ["sent", "queued", "queued"],
    ]


def test_the_hooks_in_the_docs_work() -> None:
    snippets = DOCS.read_text().split("```python\n")[1:]
    names: dict[str, Any] = {}
    for snippet in snippets:
        text = snippet.partition("```")[0]
        ast.parse(text)
        exec(compile(text, str(DOCS), "exec"), names)

    stamped = attempt(names["stamp"]).hands.seen[0][0]
    alone = attempt(names["alone"]).hands
    refused = attempt(names["no_secrets"], subject="Our secret")
    kept = attempt(names["no_secrets"])

    assert stamped["headers"]["X-Tenant"] == "acme"
    assert [canonical["to"] for canonical, _ in alone.seen] == [[ANN], [BOB], [CY]]
    assert set(refused.statuses.values()) == {"failed"}
    assert set(kept.statuses.values()) == {"sent"}


def test_a_turn_is_for_one_part_and_the_others_wait_for_the_next() -> None:
    limit = Limit(rate=1)
    hands = Hands(lambda mail: Kind.ACCEPTED if ANN in mail.open_recipients else Turn(key="mailer:x", limit=limit))

    attempted = attempt(lambda message, _context: [Part(message, [who]) for who in (ANN, BOB, CY)], hands=hands)

    assert [is_further for _, is_further in hands.turns] == [False, True, True]
    assert attempted.statuses == {ANN: "sent", BOB: "held", CY: "held"}
    assert "over the limit of mailer x: 1 in 1 s" in attempted.details


def test_a_mail_of_which_no_part_has_its_turn_waits_for_it() -> None:
    turn = Turn(key="mailer:x", limit=Limit(rate=1))

    assert attempt(lambda _message, _context: None, hands=Hands(lambda _mail: turn)).handed == turn
