"""All turnstiles of a process: puts mail behind them, finds out which there are, and looks what waits there."""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import eventlet
from amqp.exceptions import AMQPError
from kombu import Connection

from mail_service import topology
from mail_service.amqp.mailqueue import MailQueue
from mail_service.amqp.publisher import PublishFailed
from mail_service.ledger import StoreDown
from mail_service.ledger.turns import TurnQueue, Turns, Wish
from mail_service.limits.bucket import Count
from mail_service.limits.keys import LANE, TENANT, Rules, in_words
from mail_service.limits.sorter import Sorter
from mail_service.limits.source import Source
from mail_service.limits.turnstile import Taker, Turnstile

_log = logging.getLogger(__name__)

#: between looks at queues that other processes may have put mail into, and which may be gone since, seconds
LOOK_S = 1.0
#: to the broker, for all limits together; none is open while nothing waits
CONNECTIONS = 4
#: bytes of a mail that is kept in memory for a moment, to write down that it waits longer than was to be expected
LARGEST_REMEMBERED = 100_000
#: queues looked at in a second; with more of them, each is looked at less often
LOOKS_PER_S = 40
#: between looks at which queues there are, seconds; and where none is known and no limit is configured
LIST_S = 5.0
LIST_RARELY_S = 30.0


class Turnstiles:
    """One for a process."""

    def __init__(
        self,
        rules: Rules,
        turns: Turns,
        queue: MailQueue,
        connect: Callable[[], Connection],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rules = rules
        self._turns = turns
        self._queue = queue
        self._connect = connect
        self._now = monotonic
        self._takers: dict[str, Taker] = {}
        self._turnstiles: dict[str, Turnstile] = {}
        self._sorters: dict[str, Sorter] = {}
        self._sources = [Source(connect) for _ in range(CONNECTIONS)]
        #: queues that the database has not been told of
        self._unregistered: dict[str, TurnQueue] = {}
        self._preparing: set[str] = set()
        self._lookout = Source(connect)
        self._listed = float("-inf")
        self._watching: Any = None
        self._is_stopped = False

    def static_queues(self) -> list[TurnQueue]:
        """Those that the configuration needs whatever mail comes."""
        return [_queue_of(lane, key, 0) for key in self.rules.static for lane in topology.LANES]

    def are_declared(self, queues: Iterable[TurnQueue]) -> None:
        """Somebody has declared these, a while before their first use."""
        for queue in queues:
            self._know(queue)
            self._unregistered[queue.name] = queue

    def enter(self, lane: str, taker: Taker) -> None:
        """From now on *taker* attempts what has its turn in *lane*."""
        self._takers[lane] = taker
        if self._watching is None:
            self._watching = eventlet.spawn(self._watch)

    def put(
        self,
        lane: str,
        key: str,
        body: bytes,
        *,
        headers: Mapping[str, Any],
        message_id: str | None = None,
        later: Callable[[], None] | None = None,
    ) -> None:
        """
        Have a message wait for its turn with *key*. Confirmed when it returns; raises PublishFailed.

        Args:
            later: Called if the turn does not come soon, perhaps also when it has come; must not raise.
        """
        # one tenant's own limit is no matter of turns between tenants
        part = 0 if key.startswith(TENANT) else topology.part_of(headers.get(topology.TENANT))
        queue = _queue_of(lane, key, part)
        self._prepare(queue)
        self._queue.put_aside(body, queue=queue.name, headers=headers, message_id=message_id)
        turnstile = self._know(queue)
        turnstile.came(queue.name)
        if later is not None and len(body) <= LARGEST_REMEMBERED:
            turnstile.remember(lane, later)

    def wait_s(self, key: str, lane: str) -> float:
        """Seconds, more or less, until the turn of a mail that comes now."""
        return self._of(key).wait_s(lane)

    def known(self) -> list[TurnQueue]:
        """Every queue in which mail may wait, higher lanes first. Raises StoreDown."""
        self._register()
        queues = {queue.name: queue for queue in (*self.static_queues(), *self._turns.queues())}
        return sorted(queues.values(), key=lambda queue: topology.LANES.index(queue.lane))

    def may_pass(self, key: str) -> bool:
        """Whether one mail more may pass at once, or in a moment that is waited for here. Raises StoreDown."""
        limit = self.rules.limit_of(key)
        if limit is None:
            return True
        beats = self._turns.ask(Wish(key=key, limit=limit, wanted=1)).beats
        if beats:
            eventlet.sleep(beats[0])
        return bool(beats)

    def in_words(self) -> list[str]:
        """The limits that mail waits for, and how much, as far as this process knows."""
        found = []
        for key, turnstile in sorted(self._turnstiles.items()):
            limit, count = self.rules.limit_of(key), sum(map(turnstile.waiting_in, topology.LANES))
            if limit is not None and count:
                found.append(f"{in_words(key, limit)} ({count} waiting)")
        return found

    def may_share(self, lane: str, headers: Mapping[str, Any]) -> bool:
        """
        Whether mail with these *headers* can wait where the tenants of *lane* take turns.

        A queue that is not there yet is made ready meanwhile: whoever comes next may find it. Mail of no tenant takes
        its turn like a tenant's, once there are tenants.
        """
        part = topology.part_of(headers.get(topology.TENANT))
        key = f"{LANE}{lane}"
        if not part and key not in self._turnstiles:
            return False
        queue = _queue_of(lane, key, part)
        if self._queue.is_ready(queue.name):
            return True
        if queue.name not in self._preparing and not self._is_stopped:
            self._preparing.add(queue.name)
            eventlet.spawn_n(self._prepare_quietly, queue)
        return False

    def sort(self, lane: str) -> None:
        """The lane is full, and there are tenants in it: let them take turns."""
        sorter = self._sorters.get(lane)
        if sorter is None:
            if self._is_stopped or lane not in self._takers:
                return
            sorter = self._sorters[lane] = Sorter(lane, self._takers[lane], self._connect)
        sorter.wake()

    def has_sharers(self, lane: str) -> bool:
        """Whether mail waits where the tenants of *lane* take turns, as far as this process knows."""
        turnstile = self._turnstiles.get(f"{LANE}{lane}")
        return turnstile is not None and turnstile.is_busy

    def room(self) -> None:
        """A worker may have become free."""
        for turnstile in self._turnstiles.values():
            turnstile.room()

    def stop(self) -> None:
        """Let nobody pass any more."""
        self._is_stopped = True
        for each in self._all():
            each.stop()

    def close(self) -> None:
        """Close every connection."""
        self.stop()
        if self._watching is not None:
            self._watching.kill()
        for each in self._all():
            each.close()
        for source in (*self._sources, self._lookout):
            source.close()

    def _all(self) -> list[Sorter | Turnstile]:
        return [*self._sorters.values(), *self._turnstiles.values()]

    def _of(self, key: str) -> Turnstile:
        turnstile = self._turnstiles.get(key)
        if turnstile is None:
            turnstile = self._turnstiles[key] = Turnstile(
                key,
                limit=partial(self.rules.limit_of, key),
                turns=self._turns,
                source=self._sources[zlib.crc32(key.encode("utf-8", "surrogatepass")) % len(self._sources)],
                takers=self._takers,
            )
        return turnstile

    def _know(self, queue: TurnQueue) -> Turnstile:
        turnstile = self._of(queue.key)
        turnstile.add(queue)
        return turnstile

    def _prepare(self, queue: TurnQueue) -> None:
        """Have it declared, and every process know it."""
        if self._queue.is_ready(queue.name):
            return
        self._queue.declare_turn(queue.name)
        self._know(queue)
        self._unregistered[queue.name] = queue
        self._register()

    def _prepare_quietly(self, queue: TurnQueue) -> None:
        try:
            self._prepare(queue)
        except PublishFailed as exc:
            _log.info("a queue where tenants take turns could not be made ready (%s)", type(exc).__name__)
        finally:
            self._preparing.discard(queue.name)

    def _register(self) -> None:
        for queue in list(self._unregistered.values()):
            try:
                self._turns.register(queue)
            except StoreDown:
                return
            self._unregistered.pop(queue.name, None)

    def _watch(self) -> None:
        while not self._is_stopped:
            try:
                self._register()
                self._list()
                self._look()
            except StoreDown:
                pass
            except (OSError, AMQPError):
                self._lookout.close()
            except Exception as exc:  # noqa: BLE001 - if this loop ended, what a dead process left would wait for ever
                _log.warning("what waits for its turn could not be looked at (%s)", type(exc).__name__)
                self._lookout.close()
            eventlet.sleep(LOOK_S)

    def _list(self) -> None:
        """Learn of the queues that other processes, or other configurations, have made."""
        is_used = self._turnstiles or self.rules.are_any
        if self._now() - self._listed < (LIST_S if is_used else LIST_RARELY_S):
            return
        self._listed = self._now()
        for queue in self._turns.queues():
            self._know(queue)
        counts = self._turns.counts() if self._turnstiles else {}
        for key, turnstile in self._turnstiles.items():
            turnstile.know(counts.get(key, Count()))

    def _look(self) -> None:
        """See what waits where nobody in this process has put anything."""
        idle = [(turnstile, name) for turnstile in self._turnstiles.values() for name in turnstile.names]
        idle = [(turnstile, name) for turnstile, name in idle if not turnstile.is_busy]
        pace_s = max(0.0, len(idle) / LOOKS_PER_S - LOOK_S) / max(1, len(idle))
        for turnstile, name in idle:
            if count := self._lookout.count(name):
                turnstile.found(name, count)
            if pace_s:
                eventlet.sleep(pace_s)


def _queue_of(lane: str, key: str, part: int) -> TurnQueue:
    return TurnQueue(name=topology.turn_queue_name(lane, key, part), key=key, lane=lane, part=part)
