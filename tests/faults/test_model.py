"""The order that loses nothing, tried in every order that hypothesis thinks of; and that a wrong order is found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from mail_service.ledger import Ledger
from mail_service.ledger.records import Claim, Copy, Granted
from mail_service.outcome import Kind
from tests.support.messages import examples

from .model import Message, Plan, Process, Settle, World, as_a_lane_does

#: more than any delivery has
STEPS = 12
OUTCOMES = (Kind.ACCEPTED, Kind.TRANSIENT, Kind.UNKNOWN, Kind.PERMANENT)
_which = st.integers(0, 7)
#: most of the time something works, or little would be seen of what comes after it
_rarely = st.sampled_from([False, False, False, False, True])


class Protocol(RuleBasedStateMachine):
    """Publish, deliver, crash anywhere, redeliver, store down."""

    ledger: type[Ledger] = Ledger
    settle: Settle = staticmethod(as_a_lane_does)

    def __init__(self) -> None:
        super().__init__()
        self.world = World(ledger=self.ledger, settle=self.settle)
        self._stack = ExitStack()
        self._stack.enter_context(self.world.at_work())

    @rule(which=_which)
    def submit(self, which: int) -> None:
        """The same id again is the same mail."""
        self.world.submit(f"mail-{which % 3}")

    @precondition(lambda self: self.world.ready)
    @rule(
        which=_which,
        outcome=st.sampled_from(OUTCOMES),
        is_taken=st.booleans(),
        dies_at=st.none() | st.integers(0, STEPS),
        unconfirmed=_rarely,
        lands=st.booleans(),
        unheard=st.sampled_from([None, None, None, None, 0, 1, 2]),
        meanwhile=st.sampled_from(["nothing", "link breaks", "store goes", "the other one dies", "another delivery"]),
    )
    def deliver(self, which: int, meanwhile: str, **plan: Any) -> None:
        """A worker gets a message, and all kinds of things happen."""
        process = self.world.processes[which % len(self.world.processes)]
        message = self._ready(which)

        def happen() -> None:
            match meanwhile:
                case "link breaks":
                    self.world.break_link(process)
                case "store goes":
                    self.world.is_store_down = True
                case "the other one dies":
                    self.world.kill(self._other(process))
                case "another delivery":
                    # of the same mail perhaps: the broker took it back
                    self.world.break_link(process)
                    self.world.deliver(self._other(process), self._ready(which), Plan())

        self.world.deliver(process, message, Plan(**plan, meanwhile=happen))

    def _ready(self, which: int) -> Message:
        return self.world.ready[which % len(self.world.ready)]

    def _other(self, process: Process) -> Process:
        return next(other for other in self.world.processes if other is not process)

    @precondition(lambda self: self.world.delayed)
    @rule(which=_which)
    def time_passes(self, which: int) -> None:
        self.world.ready.append(self.world.delayed.pop(which % len(self.world.delayed)))

    @rule(is_down=_rarely)
    def store(self, is_down: bool) -> None:
        self.world.is_store_down = is_down

    @rule(which=_which)
    def kill(self, which: int) -> None:
        self.world.kill(self.world.processes[which % len(self.world.processes)])

    @invariant()
    def no_mail_is_nowhere(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        with self._stack:
            self.world.finish()


def _tried(machine: type[Protocol], count: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=count,
            stateful_step_count=25,
            deadline=None,
            database=None,
            derandomize=True,
            print_blob=False,
            report_multiple_bugs=False,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_mail_of_which_nobody_thinks_ill_is_delivered() -> None:
    """Or the rest of this would prove nothing."""
    world = World()
    with world.at_work():
        world.submit("mail-1")
        world.deliver(world.processes[0], world.ready[0], Plan())
        world.finish()

        assert len(world.taken["mail-1"]) == 1
        assert world.known()["mail-1"].status == "sent"


def test_no_order_of_events_loses_a_mail_or_needlessly_doubles_it() -> None:
    _tried(Protocol, examples(40))


class AcknowledgesFirst(Protocol):
    """Store and acknowledge, swapped."""

    @staticmethod
    def settle(process: Process, message: Message, worker: Any, result: Any, exc: BaseException | None) -> None:
        process.ack_message(message)
        as_a_lane_does(process, message, worker, result, exc)


def test_the_loss_is_found_when_a_message_is_acknowledged_before_it_is_stored() -> None:
    with pytest.raises(AssertionError, match=r"is nowhere|lost=[1-9]"):
        _tried(AcknowledgesFirst, 1000)


class DoesNotClaim(Ledger):
    """Nobody notes that an attempt begins."""

    def claim(self, copy: Copy) -> Claim:
        return Granted(mail=copy.mail)


class ForgetsTheEnd(Ledger):
    """A copy that comes again is attempted, though its mail has ended."""

    @staticmethod
    def _decide_final(row: Any, copy: Copy) -> Claim:
        return Granted(mail=copy.mail)


def one_death(ledger: type[Ledger]) -> Iterator[str]:
    """Let one mail be delivered with every outcome, death and breakage; tell of those that end badly."""
    for outcome, dies_at, is_broken in product(OUTCOMES, [None, *range(STEPS)], [False, True]):
        world = World(ledger=ledger)
        with world.at_work():
            first, second = world.processes

            def meanwhile(world: World = world, first: Process = first, second: Process = second) -> None:
                # the broker takes the copy back, and gives it to the other process
                world.break_link(first)
                world.deliver(second, world.ready[0], Plan())

            world.submit("mail-1")
            plan = Plan(outcome=outcome, dies_at=dies_at)
            if is_broken:
                plan.meanwhile = meanwhile
            world.deliver(first, world.ready[0], plan)
            try:
                world.check()
                world.finish()
            except AssertionError as problem:
                yield f"{outcome}, dies at {dies_at}, broken {is_broken}: {problem}"


def test_no_single_death_loses_a_mail_or_needlessly_doubles_it() -> None:
    assert list(one_death(Ledger)) == []


@pytest.mark.parametrize("ledger", [DoesNotClaim, ForgetsTheEnd])
def test_a_ledger_with_a_mistake_is_found_out(ledger: type[Ledger]) -> None:
    assert next(one_death(ledger), None)
