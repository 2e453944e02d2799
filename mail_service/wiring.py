"""Build everything from the configuration, once per process; whoever shares the configuration shares it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import eventlet
from nameko.constants import DEFAULT_MAX_WORKERS
from nameko.extensions import DependencyProvider
from nameko.utils import import_from_path

from mail_service import clock, topology
from mail_service.amqp import connecting
from mail_service.amqp.mailqueue import MailQueue
from mail_service.amqp.publisher import Publisher, PublishFailed
from mail_service.client import asking
from mail_service.delivery import hard_bounces
from mail_service.delivery.announcing import Announcer, Report
from mail_service.delivery.bouncing import Bouncer
from mail_service.delivery.closing import Desk
from mail_service.delivery.copies import Delivery
from mail_service.delivery.courier import Courier
from mail_service.delivery.deadline import Deadline
from mail_service.delivery.fetching import Fetching
from mail_service.delivery.guard import Guard
from mail_service.delivery.guard import in_words as guard_in_words
from mail_service.delivery.handover import Handover, HandsOver, guarded
from mail_service.delivery.preparing import Preparing
from mail_service.delivery.releasing import Releaser, held_by, only
from mail_service.delivery.traced import Traced
from mail_service.delivery.unusable import Unusable
from mail_service.errors import ConfigurationError
from mail_service.holds import Keeper, Pauses
from mail_service.ledger import Ledger, StoreDown
from mail_service.ledger.database import Database
from mail_service.ledger.errorlog import ErrorLog
from mail_service.ledger.holdings import Hold, Holdings
from mail_service.ledger.ledger import OWNER_MARGIN_S
from mail_service.ledger.patient import PatientLedger
from mail_service.ledger.pauses import PauseList
from mail_service.ledger.records import Change, Mail
from mail_service.ledger.turns import Turns, Wish
from mail_service.limits.keys import Rules
from mail_service.limits.turnstiles import Turnstiles
from mail_service.logs import quiet_the_stack
from mail_service.mailers import signing
from mail_service.mailers.book import MailerBook
from mail_service.mailers.cautions import cautions
from mail_service.mailers.django_backend import configure_django
from mail_service.retention import Passes
from mail_service.settings import Limit, check_imports, load_settings
from mail_service.storeroom import Storeroom
from mail_service.tracing import NO_TRACING, Tracing
from mail_service.web.folder import web_address

if TYPE_CHECKING:
    from mail_service.web.metrics import Metrics

_log = logging.getLogger(__name__)

#: Attempts that still run so long after SIGTERM are cut short; a process has to be gone after 30 seconds.
CUT_SHORT_AFTER_S = 20
#: for ``mail.tenant_mailers`` to answer; whoever asks waits
LOAD_WITHIN_S = 10


class Runtime:
    """The parts of a running service."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        quiet_the_stack()
        self.settings = load_settings(config)
        configure_django()
        if mistakes := check_imports(self.settings) + signing.problems(self.settings.dkim):
            raise ConfigurationError("\n".join(mistakes))
        for caution in cautions(self.settings):
            _log.warning(caution)
        if restriction := guard_in_words(self.settings):
            _log.warning(restriction)
        self.config = config
        self._build_stores()
        self._check_database()
        trace = self.settings.tracing
        self.tracing = Tracing(import_from_path(trace)) if trace else NO_TRACING
        self.storeroom = Storeroom(self.settings.blobs, keeps=self.settings.content_of)
        self.error_log = ErrorLog(self.database)
        self.turns = Turns(self.database)
        self.announcer = Announcer(self.publisher, config)
        self.deadline = Deadline(self.settings.attempt_timeout)
        classify = guarded(import_from_path(self.settings.classifier))
        load = self.settings.tenant_mailers
        self.mailers = MailerBook(
            self.settings,
            classify=classify,
            load=import_from_path(load) if load else None,
            guard=Deadline(LOAD_WITHIN_S).run,
        )
        rules = Rules(self.settings, self.mailers.limit_of, self._limit_of_key)
        self.ledger = Ledger(
            self.database,
            attempt_timeout_s=self.settings.attempt_timeout,
            keeps=self.settings.content_of,
            has_slots=rules.are_any,
        )
        self.patient_ledger = PatientLedger(self.ledger)
        self.turnstiles = Turnstiles(rules, self.turns, self.queue, self._connect)
        self.holdings = Holdings(self.database, self.ledger)
        self.releaser = Releaser(self.error_log, self.queue)
        self.keeper = Keeper(
            self.holdings,
            hold_probe_s=self.settings.hold_probe,
            tell=self.announcer.held,
            release=lambda key, rate: self.releaser.release(only(*self.mailers.names_of(key)), rate),
            crowd=self.workers if self.has_several_mailers else None,
        )
        self.pause_list = PauseList(self.database, self.ledger)
        self.pauses = Pauses(
            self.pause_list,
            hold_probe_s=self.settings.hold_probe,
            release=lambda pause, rate: self.releaser.release(held_by(pause), rate),
        )
        self._watching = [
            eventlet.spawn(self.pauses.watch),
            eventlet.spawn(self.storeroom.watch, self.database, are_queues_empty=self._are_queues_empty),
        ]
        if self.settings.retention.has_passes:
            self._watching.append(eventlet.spawn(Passes(self.settings.retention, self.database).watch))
        guard = Guard(self.settings.redirect_to, self.settings.allow_recipients)
        handover = Handover(
            self.mailers,
            classify=classify,
            deadline=self.deadline,
            keeper=self.keeper,
            pauses=self.pauses,
            guard=guard,
            rules=rules,
            enter=self._enter,
        )
        self.courier = Courier(
            self.settings,
            self.patient_ledger,
            self.mailers.get,
            self._prepared(handover),
            self.keeper,
            pauses=self.pauses,
            guard=guard,
            hard_bounces=hard_bounces.offers(self.settings.hard_bounces),
            storeroom=self.storeroom,
            rules=rules,
            turn_in_s=self.turnstiles.wait_s,
        )
        self.report = self._bouncer()
        self.unusable = Unusable(self.settings, self.ledger, self.announcer, report=self.report)
        self.desk = self.a_desk(self.metrics.closed if self.metrics is not None else None)
        self.users = 0

    def a_desk(self, count: Callable[[Delivery, Change], None] | None) -> Desk:
        """What closes attempts, and has them counted."""
        return Desk(
            self.ledger,
            self.queue,
            self.announcer,
            report=self.report,
            count=count,
            storeroom=self.storeroom,
            note=self.turns.note,
            wait_in_turn=self.turnstiles.put,
        )

    def _build_stores(self) -> None:
        """The database, the way to the broker, and what counts them where anybody can ask for the numbers."""
        self.database: Database
        self.publisher: Publisher
        self.queue: MailQueue
        self.metrics: Metrics | None = None
        if web_address(self.config) is None:
            self.database = Database(self.settings.database)
            self.publisher = Publisher(self._connect)
            self.queue = MailQueue(self.publisher)
            return
        from mail_service.web.counting import CountedDatabase, CountedPublisher, CountedQueue  # noqa: PLC0415 - see metrics
        from mail_service.web.metrics import Metrics  # noqa: PLC0415

        self.metrics = Metrics(self.settings)
        self.database = CountedDatabase(self.settings.database, self.metrics)
        self.publisher = CountedPublisher(self._connect, self.metrics)
        self.queue = CountedQueue(self.publisher, self.metrics)

    def _prepared(self, handover: HandsOver) -> HandsOver:
        """*handover*, with what comes before it: large attachments are fetched, and hooks are asked."""
        if self.settings.hooks:
            handover = self._with_hooks(handover)
        if self.settings.blobs:
            handover = Fetching(handover, self.storeroom, deadline=self.deadline)
        return Traced(handover, self.tracing) if self.settings.tracing else handover

    def _with_hooks(self, handover: HandsOver) -> HandsOver:
        return Preparing(
            handover,
            {path: import_from_path(path) for path in self.settings.hooks},
            settings=self.settings,
            deadline=self.deadline,
            note=self._note_progress,
        )

    def _note_progress(self, mail: Mail) -> None:
        # with the database away the attempt goes on; what it comes to travels with the mail's next copy
        with suppress(StoreDown):
            self.ledger.progress(mail)

    def _bouncer(self) -> Report | None:
        bounce = self.settings.bounce
        if not bounce.to_sender:
            return None
        factory = import_from_path(bounce.factory) if bounce.factory else None
        return Bouncer(self.settings, self.ledger, self.queue, factory).report

    def _are_queues_empty(self) -> bool:
        """Whether no mail waits that no worker has seen."""
        queues = [name for lane in topology.LANES for name in topology.queue_names(lane)]
        queues += [topology.EVENTS, topology.PARKED, asking.QUEUE]
        try:
            queues += [queue.name for queue in self.turnstiles.known()]
            return self.publisher.declare(lambda connection: topology.are_empty(connection, queues))
        except (StoreDown, PublishFailed):
            return False

    def _limit_of_key(self, key: str) -> Limit | None:
        """The limit of a mailer by the mailer's key."""
        found = self.mailers.limit_of(*self.mailers.names_of(key))
        return found[1] if found else None

    def _enter(self, key: str, limit: Limit, mail_id: str) -> bool:
        """Whether the turn of a mail that is under way already comes at once."""
        try:
            if not any(beat == 0 for beat in self.turns.ask(Wish(key=key, limit=limit, wanted=1)).beats):
                return False
            until = clock.iso(clock.later(self.settings.attempt_timeout + OWNER_MARGIN_S))
            return limit.concurrency is None or self.turns.enter(key, limit.concurrency, mail_id, until)
        except StoreDown:
            return False

    def _connect(self) -> Any:
        return connecting.connection(self.config)

    def holds_of(self, mailer: str, tenant: str | None) -> list[Hold]:
        """The hold of a mailer as a whole, if it is held."""
        found = self.mailers.get(mailer, tenant)
        if found is None:
            return []
        return [hold for hold in self.keeper.holds() if hold.mailer == found.name and not hold.sender]

    @property
    def workers(self) -> int:
        """Nameko's ``max_workers``: attempts of one lane at a time, in this process."""
        return int(self.config.get("max_workers", DEFAULT_MAX_WORKERS))

    @property
    def has_several_mailers(self) -> bool:
        """Whether mail of one may have to wait for another."""
        return len(self.settings.mailers) > 1 or bool(self.settings.tenants or self.settings.tenant_mailers)

    def begin_stop(self) -> None:
        """Let what is in flight finish, for a while."""
        if not self.patient_ledger.stopping:
            self.patient_ledger.stopping = True
            self.turnstiles.stop()
            self.publisher.hurry()
            eventlet.spawn_after(CUT_SHORT_AFTER_S, self.deadline.cut_short)

    def close(self) -> None:
        """Close every connection."""
        for watching in self._watching:
            watching.kill()
        self.turnstiles.close()
        self.publisher.close()
        self.database.close()
        self.mailers.close()

    def _check_database(self) -> None:
        """A database of another version ends the start; one that is away is waited for by those who need it."""
        try:
            self.database.check()
        except StoreDown as exc:
            _log.error("the database cannot be used now (%s); deliveries wait for it", exc)


_runtimes: dict[int, Runtime] = {}


def runtime_of(container: Any) -> Runtime:
    """The runtime for a container's configuration, built when it is first asked for."""
    config = container.config
    runtime = _runtimes.get(id(config))
    if runtime is None or runtime.config is not config:
        runtime = _runtimes[id(config)] = Runtime(config)
    return runtime


class RuntimeProvider(DependencyProvider):
    """Injects the runtime, and closes it when the last container stops."""

    def setup(self) -> None:
        runtime_of(self.container).users += 1

    def stop(self) -> None:
        runtime = runtime_of(self.container)
        runtime.users -= 1
        if runtime.users == 0:
            runtime.close()
            _runtimes.pop(id(self.container.config), None)

    def get_dependency(self, worker_ctx: Any) -> Any:
        """The runtime of this process."""
        return runtime_of(self.container)
