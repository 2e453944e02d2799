"""
The core protocol without time and without machines: a broker, a database and a mail server that are data, and processes
that are the service's own parts, which may die between any two steps.

Real are the ledger (on SQLite, in memory), the courier, the settling, the closing, the mail queue's headers and the
order in which a lane settles a message. Not real are the confirms, the commits and the mailer: each is a *step*, and a
process can be told before which of its steps it dies.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import sqlalchemy as sa

from mail_service.amqp.lanes import LaneConsumer
from mail_service.amqp.mailqueue import MailQueue
from mail_service.amqp.publisher import PublishFailed
from mail_service.amqp.retrying import BackoffPublisher
from mail_service.delivery.closing import Desk
from mail_service.delivery.copies import read
from mail_service.delivery.courier import Courier
from mail_service.delivery.handover import Handover, guarded
from mail_service.diagnosis import diagnose
from mail_service.envelope import seal
from mail_service.holds import Keeper
from mail_service.ledger import Ledger, StoreDown, owner, tables
from mail_service.ledger.patient import PatientLedger
from mail_service.outcome import Diagnosis, Kind, Receipt
from mail_service.settings import Settings
from mail_service.topology import LEVELS_MS
from tests.support.messages import a_message
from tests.support.shared_holds import SharedHolds
from tests.support.shared_pauses import no_pauses

from .counting import Known, count
from .reading import known_in

SETTINGS = Settings(default_from="me@example.org")


class Crash(BaseException):
    """The process is gone, as by kill -9."""


@dataclass(eq=False, slots=True, kw_only=True)
class Message:
    """A message as the broker has it."""

    body: bytes
    headers: Mapping[str, Any]
    redelivered: bool = False


@dataclass(slots=True, kw_only=True)
class Plan:
    """What happens during one delivery."""

    #: what the mail server does
    outcome: Kind = Kind.ACCEPTED
    #: of an unknown outcome: the server has the mail
    is_taken: bool = True
    #: the process dies before this step of its, counted from 0
    dies_at: int | None = None
    #: the broker does not confirm the first publish; whether it has the message all the same
    unconfirmed: bool = False
    lands: bool = False
    #: the answer to this write is lost, counted from 0, after its commit
    unheard: int | None = None
    #: while the mail server thinks about it
    meanwhile: Callable[[], None] = lambda: None


class Store:
    """The database: a transaction is there as a whole or not at all. What the ledger needs of ``Database``."""

    def __init__(self, world: World) -> None:
        self._world = world

    def write(self, write: Any, item: Any) -> Any:
        self._check()
        with self._world.engine.begin() as connection:
            (answer,) = write(connection, [item])
        plan = self._world.plan
        if plan.unheard == 0:
            plan.unheard = None
            raise StoreDown("committed, and nobody heard of it")
        if plan.unheard is not None:
            plan.unheard -= 1
        self._world.step()
        return answer

    def read(self, query: Any) -> Any:
        self._check()
        with self._world.engine.connect() as connection:
            return query(connection)

    def _check(self) -> None:
        self._world.step()
        if self._world.is_store_down:
            raise StoreDown("away")


class Publisher:
    """What the mail queue needs of ``Publisher``: a confirmed message is in the broker."""

    def __init__(self, world: World) -> None:
        self._world = world

    def publish(self, body: bytes, *, exchange: str = "", headers: Mapping[str, Any], **_where: Any) -> None:
        world = self._world
        world.step()
        message = Message(body=body, headers=dict(headers))
        if world.plan.unconfirmed:
            world.plan.unconfirmed = False
            if world.plan.lands:
                world.put(message, delayed=bool(exchange))
            raise PublishFailed("no confirm in time")
        world.put(message, delayed=bool(exchange))
        world.step()


Settle = Callable[["Process", Message, Any, Any, "BaseException | None"], None]


def as_a_lane_does(process: Process, message: Message, worker: Any, result: Any, exc: BaseException | None) -> None:
    """Settle a message in the order that the service has."""
    LaneConsumer.settle(cast("Any", process), cast("Any", message), worker, result, exc)


class Process:
    """One process of the service; has what ``LaneConsumer.settle`` needs of a consumer."""

    def __init__(self, world: World, name: str, ledger: type[Ledger], settle: Settle) -> None:
        self.world = world
        self.name = name
        self._settle = settle
        self.unacked: list[Message] = []
        self._ledger = ledger(cast("Any", Store(world)), attempt_timeout_s=120)
        self._ledger._me = name
        queue = MailQueue(cast("Any", Publisher(world)))
        queue.are_declared(LEVELS_MS)
        nobody = SimpleNamespace(change=_nothing, answer=_nothing, reply=_nothing)
        keeper = Keeper(SharedHolds(), hold_probe_s=30, tell=_nothing, release=_nothing)
        handover = Handover(
            cast("Any", SimpleNamespace(chain=lambda _name, _tenant=None: [self])),
            classify=guarded(diagnose),
            deadline=cast("Any", SimpleNamespace(end=lambda _within: math.inf, run=lambda attempt, _within: attempt())),
            keeper=keeper,
            pauses=no_pauses(),
        )
        patient = PatientLedger(self._ledger)
        # whoever would wait for the database gives its message back instead, as at a stop
        patient.stopping = True
        self._courier = Courier(
            SETTINGS, patient, lambda _name, _tenant: cast("Any", self), handover, keeper, pauses=no_pauses()
        )
        self.runtime = SimpleNamespace(desk=Desk(self._ledger, queue, cast("Any", nobody)))
        self.backoff_publisher = BackoffPublisher()
        self.queue_consumer = self
        # nobody has to wait for a turn
        self._turns: dict[int, object] = {}

    def deliver(self, message: Message) -> None:
        """Take a message and do with it what the service does."""
        self.unacked.append(message)
        delivery = read(message.body, message.headers, redelivered=message.redelivered, settings=SETTINGS)
        result, problem = None, None
        try:
            result = self._courier.attempt(delivery)
        except Exception as exc:  # noqa: BLE001 - as in nameko, whatever a handler raises is the lane's
            problem = exc
        self._settle(self, message, SimpleNamespace(args=(delivery,)), result, problem)

    def ack_message(self, message: Message) -> None:
        self.world.step()
        if message in self.unacked:
            self.unacked.remove(message)
        self.world.step()

    def leave(self, message: Message, _problem: BaseException) -> None:
        if message in self.unacked:
            self.unacked.remove(message)
            self.world.give_back([message])

    # what the courier needs of a mailer

    backend, on_unknown, keeps_send_at = "model", "retry", False

    def send(self, email: Any, waiting: list[str], *, attempt: int = 0) -> list[Receipt]:
        world, plan = self.world, self.world.plan
        if plan.outcome == Kind.ACCEPTED or (plan.outcome == Kind.UNKNOWN and plan.is_taken):
            world.take(str(email.subject), email.stamped_message_id)
        plan.meanwhile()
        world.plan = plan
        return [Receipt(address=address, diagnosis=Diagnosis(kind=plan.outcome)) for address in waiting]


def _nothing(*_args: object, **_kwargs: object) -> None:
    """Nobody is told."""


@dataclass(eq=False)
class World:
    """Everything there is."""

    ledger: type[Ledger] = Ledger
    settle: Settle = as_a_lane_does
    ready: list[Message] = field(default_factory=list)
    delayed: list[Message] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    taken: dict[str, list[str | None]] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)
    is_store_down: bool = False
    plan: Plan = field(default_factory=Plan)
    _deaths: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.engine = sa.create_engine(
            "sqlite://", poolclass=sa.pool.StaticPool, connect_args={"check_same_thread": False}
        )
        tables.metadata.create_all(self.engine)
        with self.engine.begin() as connection:
            connection.execute(sa.insert(tables.shared).values(revision=0))
        self.start("first")
        self.start("second")

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Whoever asks whether a process is alive gets to know those of this world."""

        def may_be_alive(name: str, _owned_until: str | None) -> bool:
            return any(process.name == name for process in self.processes)

        try:
            with mock.patch.object(owner, "may_be_alive", may_be_alive):
                yield
        finally:
            self.engine.dispose()

    def start(self, name: str) -> None:
        self._deaths[name] += 1
        self.processes.append(Process(self, f"{name}/{self._deaths[name]}", self.ledger, self.settle))

    def submit(self, mail_id: str) -> None:
        """Hand a mail in; its id is its subject too."""
        envelope = seal(a_message(subject=mail_id), {"id": mail_id}, door="submit")
        self.put(Message(body=envelope.body(), headers=envelope.headers()), delayed=False)
        if mail_id not in self.accepted:
            self.accepted.append(mail_id)

    def put(self, message: Message, *, delayed: bool) -> None:
        (self.delayed if delayed else self.ready).append(message)

    def give_back(self, messages: list[Message]) -> None:
        """What nobody acknowledged comes again, and says so."""
        self.ready += [replace(message, redelivered=True) for message in messages]

    def take(self, mail_id: str, message_id: str) -> None:
        self.taken.setdefault(mail_id, []).append(message_id)

    def step(self) -> None:
        """Something that happens as a whole; the process may die before it."""
        if self.plan.dies_at == 0:
            raise Crash
        if self.plan.dies_at is not None:
            self.plan.dies_at -= 1

    def deliver(self, process: Process, message: Message, plan: Plan) -> None:
        """Let *process* have *message*, and see to it that *plan* happens."""
        before, self.plan = self.plan, plan
        self.ready.remove(message)
        try:
            process.deliver(message)
        except Crash:
            self.plan = before
            self.kill(process)
        self.plan = before

    def kill(self, process: Process) -> None:
        """Kill it, and start another."""
        self.processes.remove(process)
        self.break_link(process)
        self.start(process.name.partition("/")[0])

    def break_link(self, process: Process) -> None:
        """Let the broker take back what *process* has; it may be at work on it all the same."""
        unacked, process.unacked = process.unacked, []
        self.give_back(unacked)

    def known(self) -> Mapping[str, Known]:
        """What the ledger says."""
        with self.engine.connect() as connection:
            return known_in(connection, "mail")

    def check(self) -> None:
        """No mail is nowhere: it is with the broker, or at a process, or its end is on record."""
        known = self.known()
        held = [*self.ready, *self.delayed, *(message for process in self.processes for message in process.unacked)]
        bodies = b"".join(message.body for message in held)
        for mail_id in self.accepted:
            is_over = mail_id in known and known[mail_id].status.is_final
            assert is_over or f'"id":"{mail_id}"'.encode() in bodies, f"{mail_id} is nowhere"

    def finish(self) -> None:
        """Nothing goes wrong any more: deliver what is left, and count."""
        self.is_store_down = False
        # a copy may have to come to the process that has claimed it, and nobody knows which gets it
        chance = random.Random(0)
        for _ in range(300):
            self.ready += self.delayed
            self.delayed.clear()
            if not self.ready:
                break
            self.deliver(chance.choice(self.processes), self.ready[0], Plan())
        else:
            raise AssertionError("it never ends")
        tally = count(self.accepted, [], self.taken, self.known())
        assert tally.is_sound, tally
