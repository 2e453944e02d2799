"""When one mailer's gate closes, who may probe, and how it opens."""

from __future__ import annotations

import pytest

from mail_service.holds.gate import FAILURES, FIRST_RATE, Gate, Pass, Wait
from mail_service.outcome import Diagnosis, Kind, Scope

PROBE_S = 10.0
OWN, OTHER = "own@example.org", "other@example.org"


def fault(kind: Kind, wait_s: float | None = None) -> Diagnosis:
    return Diagnosis(kind=kind, text="no", wait_s=wait_s)


def passed(gate: Gate, now: float, mail: str = "mail", sender: str = OWN) -> Pass:
    answer = gate.admit(mail, sender, now)
    assert isinstance(answer, Pass)
    return answer


def waits(gate: Gate, now: float, mail: str = "waits") -> float:
    answer = gate.admit(mail, OWN, now)
    assert isinstance(answer, Wait)
    return answer.seconds


def closed(kind: Kind = Kind.CONFIGURATION, wait_s: float | None = None) -> Gate:
    """A gate that was closed at second 0."""
    gate = Gate(PROBE_S)
    assert gate.failed(passed(gate, 0, "first"), fault(kind, wait_s), 0) == Scope.MAILER
    return gate


@pytest.mark.parametrize("kind", [Kind.CONFIGURATION, Kind.THROTTLED])
def test_one_fault_of_the_mailer_closes_it(kind: Kind) -> None:
    assert waits(closed(kind), 0.1) > 0


def test_it_closes_after_several_different_mails_met_a_provider_that_is_down() -> None:
    gate = Gate(PROBE_S)
    for number in range(FAILURES - 1):
        assert gate.failed(passed(gate, 0, str(number)), fault(Kind.TRANSIENT), 0) == Scope.MAIL

    assert gate.failed(passed(gate, 0, "last"), fault(Kind.UNKNOWN), 0) == Scope.MAILER


def test_one_mail_that_fails_again_and_again_does_not_close_it() -> None:
    gate = Gate(PROBE_S)

    assert {gate.failed(passed(gate, n, "same"), fault(Kind.TRANSIENT), n) for n in range(20)} == {Scope.MAIL}


def test_a_success_in_between_begins_the_count_anew() -> None:
    gate = Gate(PROBE_S)
    for number in range(20):
        if number % (FAILURES - 1) == 0:
            gate.succeeded(passed(gate, 0, "good"), 0)
        assert gate.failed(passed(gate, 0, str(number)), fault(Kind.TRANSIENT), 0) == Scope.MAIL


def test_a_closed_gate_lets_one_probe_through_in_each_interval() -> None:
    gate = closed()

    assert waits(gate, PROBE_S - 1) > 0
    assert passed(gate, PROBE_S, "probe").is_probe
    assert waits(gate, PROBE_S + 1) > 0
    assert passed(gate, 2 * PROBE_S, "probe 2").is_probe


def test_who_waits_looks_again_within_an_interval() -> None:
    assert waits(closed(Kind.THROTTLED, wait_s=3600), 0) <= PROBE_S


def test_those_who_wait_do_not_all_look_at_the_same_time() -> None:
    gate = closed()

    looks = [waits(gate, 0, str(number)) for number in range(100)]

    assert looks == sorted(set(looks))
    assert looks[-1] - looks[0] >= 1


def test_a_throttle_is_waited_for_as_long_as_the_provider_asked() -> None:
    gate = closed(Kind.THROTTLED, wait_s=3)

    assert waits(gate, 2.9) > 0
    assert passed(gate, 3).is_probe


def test_a_throttle_without_a_time_waits_twice_as_long_each_time() -> None:
    gate = closed(Kind.THROTTLED)
    lengths, now = [], 0.0
    for number in range(6):
        assert gate.closed
        lengths.append(gate.closed.until - now)
        now = gate.closed.until
        gate.failed(passed(gate, now, str(number)), fault(Kind.THROTTLED), now)

    assert lengths == [1, 2, 4, 8, 10, 10]


def test_a_probe_that_succeeds_opens_it_slowly() -> None:
    gate = closed()
    assert gate.succeeded(passed(gate, PROBE_S, "probe"), PROBE_S)

    now = PROBE_S
    at_once = sum(isinstance(gate.admit(str(n), OWN, now), Pass) for n in range(200))
    later = sum(isinstance(gate.admit(f"later {n}", OWN, now + 60), Pass) for n in range(200))

    assert 1 <= at_once <= FIRST_RATE
    assert later == 200


def test_an_attempt_that_began_before_does_not_open_it() -> None:
    gate = Gate(PROBE_S)
    early = passed(gate, 0, "early")
    gate.failed(passed(gate, 0, "first"), fault(Kind.CONFIGURATION), 0)

    assert not gate.succeeded(early, 1)
    assert waits(gate, 1) > 0


def test_a_mail_that_was_held_before_and_alone_does_not_close_it_again() -> None:
    """Else one mail that the provider never takes would stall all others again and again."""
    gate = Gate(PROBE_S)
    gate.failed(passed(gate, 0, "bad"), fault(Kind.THROTTLED), 0)
    gate.succeeded(passed(gate, 1, "good"), 1)

    assert gate.failed(passed(gate, 30, "bad"), fault(Kind.THROTTLED), 30) == Scope.MAIL
    passed(gate, 60, "good")


def test_a_sender_who_alone_is_refused_is_held_alone() -> None:
    gate = Gate(PROBE_S)
    gate.succeeded(passed(gate, 0, "good", OTHER), 0)

    assert gate.failed(passed(gate, 1, "bad", OWN), fault(Kind.CONFIGURATION), 1) == Scope.SENDER
    passed(gate, 1, "next", OTHER)


def test_a_second_sender_who_is_refused_too_closes_it_for_all() -> None:
    gate = Gate(PROBE_S)
    gate.succeeded(passed(gate, 0, "a", OWN), 0)
    gate.succeeded(passed(gate, 1, "b", OTHER), 1)

    assert gate.failed(passed(gate, 2, "c", OWN), fault(Kind.CONFIGURATION), 2) == Scope.SENDER
    assert gate.failed(passed(gate, 2, "d", OTHER), fault(Kind.CONFIGURATION), 2) == Scope.MAILER


def test_after_a_throttle_it_goes_on_at_half_the_pace() -> None:
    gate = Gate(PROBE_S)
    for number in range(100):
        gate.succeeded(passed(gate, 0.5, str(number)), 0.5)
    gate.failed(passed(gate, 0.9, "too many"), fault(Kind.THROTTLED, wait_s=3), 0.9)

    gate.succeeded(passed(gate, 4, "probe"), 4)

    assert gate.rate(4) == pytest.approx(50, rel=0.1)
    assert gate.rate(14) == pytest.approx(100, rel=0.1)
