"""A mail under a limit is set aside until its turn has come, and a turn is for one attempt. No broker, no database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mail_service import clock, topology
from mail_service.delivery.copies import Delivery, read, with_turn
from mail_service.delivery.courier import Courier
from mail_service.delivery.deadline import Deadline
from mail_service.delivery.handover import Handover
from mail_service.delivery.settling import Step
from mail_service.delivery.verdicts import Dropped, HeldBack, Postponed, SetAside, Tried, Verdict, made_use
from mail_service.diagnosis import diagnose
from mail_service.envelope import seal
from mail_service.holds import Keeper, Ticket
from mail_service.ledger.records import Crowded
from mail_service.limits.keys import Rules
from mail_service.mailers import AttemptFailed
from mail_service.outcome import Diagnosis, Kind, Receipt, Scope, Status
from mail_service.settings import Limit, Limits, MailerSettings, Settings
from tests.support.messages import configure_django
from tests.support.shared_holds import SharedHolds
from tests.support.shared_pauses import no_pauses

from .test_delivery import FakeLedger, FakeMailer, tried

configure_django()

OWN, DOMAIN = "mailer:default", "domain:example.org"
BACKEND = "django.core.mail.backends.dummy.EmailBackend"


class House:
    """A courier whose mailers have limits, by name, and what it was asked."""

    def __init__(
        self,
        of_mailers: Mapping[str, Limit],
        *outcomes: object,
        chain: tuple[str, ...] = ("default",),
        wait_s: float = 0.0,
        has_turn: bool = False,
        **more: Any,
    ) -> None:
        mailers = {name: MailerSettings(name=name, backend=BACKEND, limit=of_mailers.get(name)) for name in chain}
        self.settings = Settings(default_from="me@example.org", mailers=mailers, **more)
        self.ledger = FakeLedger()
        self.mailers = {}
        for name in chain:
            self.mailers[name] = FakeMailer(*outcomes)
            self.mailers[name].name = name
        rules = Rules(
            self.settings,
            lambda name, _tenant: (name, of_mailers[name]) if name in of_mailers else None,
            of_mailers.get,
        )
        self.entered: list[str] = []
        self._has_turn = has_turn
        self.keeper = Keeper(SharedHolds(), hold_probe_s=30, tell=lambda *_: None, release=lambda *_: None)
        handover = Handover(
            self,
            classify=diagnose,
            deadline=Deadline(5),
            keeper=self.keeper,
            pauses=no_pauses(),
            rules=rules,
            enter=self._enter,
        )
        self.courier = Courier(
            self.settings,
            self.ledger,
            lambda name, _tenant: self.mailers.get(name),
            handover,
            self.keeper,
            pauses=no_pauses(),
            rules=rules,
            turn_in_s=lambda _key, _lane: wait_s,
        )

    def _enter(self, key: str, _limit: Limit, _mail_id: str) -> bool:
        self.entered.append(key)
        return self._has_turn

    def chain(self, _name: str, _tenant: str | None = None) -> list[Any]:
        return list(self.mailers.values())

    def delivery(self, *turns: str, options: dict[str, Any] | None = None) -> Delivery:
        envelope = seal({"to": ["a@example.org"], "subject": "s"}, options or {}, door="submit")
        headers = {topology.TURNS: list(turns)} if turns else {}
        return read(envelope.body(), headers, redelivered=False, settings=self.settings)

    def attempt(self, *turns: str, **options: Any) -> Verdict:
        return self.courier.attempt(self.delivery(*turns, options=options))


RATE = Limit(rate=1)


def test_a_mail_under_a_limit_is_set_aside_before_anything_is_claimed() -> None:
    house = House({"default": RATE}, wait_s=5)

    verdict = house.attempt()

    assert isinstance(verdict, SetAside)
    assert (verdict.key, verdict.is_noted, house.ledger.claims) == (OWN, True, [])
    assert verdict.mail.status == Status.HELD
    assert verdict.mail.error == "over the limit of mailer default: 1 in 1 s"


def test_a_mail_whose_turn_comes_at_once_is_noted_nowhere() -> None:
    verdict = House({"default": RATE}, wait_s=0.5).attempt()

    assert isinstance(verdict, SetAside)
    assert not verdict.is_noted


def test_a_mail_that_has_had_its_turn_is_attempted() -> None:
    verdict = House({"default": RATE}).attempt(OWN)

    assert isinstance(verdict, Tried)
    assert verdict.settled.mail.status == Status.SENT


def test_the_domain_comes_first_and_its_turn_is_kept_for_the_mailers() -> None:
    house = House({"default": RATE}, limits=Limits(domains={"example.org": RATE}))

    first, second = house.attempt(), house.attempt(DOMAIN)

    assert isinstance(first, SetAside)
    assert isinstance(second, SetAside)
    assert [(each.key, list(each.passed)) for each in (first, second)] == [(DOMAIN, []), (OWN, [DOMAIN])]
    assert isinstance(house.attempt(DOMAIN, OWN), Tried)


def test_a_mail_that_has_expired_waits_for_no_turn() -> None:
    past = clock.iso(clock.later(-5))

    verdict = House({"default": RATE}).attempt(expires_at=past)

    assert isinstance(verdict, Tried)
    assert verdict.settled.mail.status == Status.EXPIRED


def test_a_claim_asks_for_a_slot_of_each_limit_on_attempts() -> None:
    house = House({"default": Limit(rate=1, concurrency=3)}, limits=Limits(domains={"example.org": RATE}))

    house.attempt(DOMAIN, OWN)

    assert house.ledger.claims[0].slots == {OWN: 3}


def test_who_finds_no_slot_gives_its_turn_back_and_waits_for_another() -> None:
    house = House({"default": Limit(concurrency=3)}, limits=Limits(domains={"example.org": RATE}))
    house.ledger.answer = lambda _copy: Crowded(key=OWN)

    verdict = house.attempt(DOMAIN, OWN)

    assert isinstance(verdict, SetAside)
    assert (verdict.key, list(verdict.passed)) == (OWN, [DOMAIN])
    assert not made_use(verdict, None, OWN)
    assert made_use(verdict, None, DOMAIN)


@pytest.mark.parametrize(("has_turn", "step"), [(True, Step.FINAL), (False, Step.RETRY)])
def test_a_mailer_that_stands_in_is_asked_if_a_turn_is_free(has_turn: bool, step: Step) -> None:
    house = House({"second": RATE}, chain=("default", "second"), has_turn=has_turn)
    house.mailers["default"].outcomes = [AttemptFailed(ConnectionRefusedError(), "connect")]

    attempt = tried(house.attempt)

    assert attempt.settled.step == step
    assert house.entered == ["mailer:second"]
    assert len(house.mailers["second"].sent) == has_turn


def test_beside_a_held_mailer_a_mail_waits_for_its_turn_with_the_other() -> None:
    house = House({"default": RATE, "second": RATE}, chain=("default", "second"))
    ticket = house.keeper.admit("default", "y", "")
    fault = Diagnosis(kind=Kind.CONFIGURATION, text="key", scope=Scope.MAILER)
    assert isinstance(ticket, Ticket)
    house.keeper.note(ticket, [Receipt(address="a@example.org", diagnosis=fault)])

    verdict = house.attempt(OWN)

    assert isinstance(verdict, HeldBack)
    assert (verdict.turn, list(verdict.passed)) == ("mailer:second", [])
    assert "mailer second" in str(verdict.change.mail.error)
    assert isinstance(house.attempt("mailer:second"), Tried)
    assert len(house.mailers["second"].sent) == 1


@pytest.mark.parametrize(
    ("result", "was_used"),
    [
        (lambda house: house.attempt(OWN), True),
        (lambda house: Postponed(delay_ms=5, mail=house.delivery().mail), False),
        (lambda house: Dropped(mail=house.delivery().mail), False),
        (lambda house: house.attempt(OWN, expires_at=clock.iso(clock.later(-5))), False),
    ],
    ids=["an attempt", "another worker has it", "an old copy", "it has expired"],
)
def test_only_an_attempt_uses_a_turn(result: Callable[[House], Verdict], was_used: bool) -> None:
    assert made_use(result(House({"default": RATE})), None, OWN) is was_used


def test_an_exception_may_have_been_an_attempt() -> None:
    assert made_use(None, RuntimeError(), OWN)


@pytest.mark.parametrize("forged", ["mailer:default", 5, None, [5, None], {"mailer:default": 1}])
def test_a_header_that_is_no_list_of_keys_gives_no_turn(forged: Any) -> None:
    house = House({"default": RATE})
    delivery = read(
        seal({"to": ["a@example.org"], "subject": "s"}, {}, door="submit").body(),
        {topology.TURNS: forged},
        redelivered=False,
        settings=house.settings,
    )

    assert isinstance(house.courier.attempt(delivery), SetAside)
    assert with_turn({topology.TURNS: forged}, OWN)[-1] == OWN
