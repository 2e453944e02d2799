"""
Takes mail out of the queues of one limit, each when its turn has come, and hands it to the workers of its lane.

The higher lane goes first; within a lane tenants take turns, and each tenant's mail goes in the order in which it came.
A message stays the broker's until its attempt is settled, as if it had come from the lane itself: what is lost with a
process is a turn, never a mail. Turns that nobody could use are given back.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import eventlet
from amqp.exceptions import AMQPError
from kombu.message import Message

from mail_service import clock, topology
from mail_service.ledger import StoreDown
from mail_service.ledger.turns import TurnQueue, Wish
from mail_service.limits.bucket import MOST, Count, Grant, left_of, seconds_to_midnight
from mail_service.limits.flag import Flag
from mail_service.limits.sorter import Sharer
from mail_service.limits.source import Source
from mail_service.settings import Limit

_log = logging.getLogger(__name__)

#: A turn that no worker was free for is given back after so long, seconds.
USE_WITHIN_S = 0.25
#: between looks while nothing waits, seconds
IDLE_S = 1.0
#: until a limit is asked again that has no turn for long, such as one of a day; somebody may have changed the clock
LONGEST_NAP_S = 5.0
#: those who were expected to pass at once are held when they may wait for longer than this, seconds
SOON_S = 1.0
#: of those, as many are remembered
MOST_REMEMBERED = 200
#: after trouble with the broker or the database, seconds
AGAIN_S = 1.0
#: of an attempt, for an estimate of how long mail waits for one to end, seconds
USUAL_ATTEMPT_S = 1.0


class Taker(Sharer, Protocol):
    """Who attempts the mail of a lane."""

    @property
    def has_room(self) -> bool:
        """Whether a mail would be attempted as soon as a worker is free, in turns with what waits already."""
        ...

    def take(self, message: Message, turnstile: Turnstile) -> None:
        """Attempt it; `Turnstile.done` is told when it is settled."""
        ...


class Asks(Protocol):
    """As much of the ledger's ``Turns`` as a turnstile needs."""

    def ask(self, wish: Wish) -> Grant:
        """Raises StoreDown."""
        ...


@dataclass(slots=True)
class _Queue:
    name: str
    lane: str
    part: int
    #: messages, as far as this process knows
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class _Expected:
    """A mail that this process expected to pass at once."""

    lane: str
    since: float
    later: Callable[[], None]


class Turnstile:
    """
    One for each limit and process, in a greenlet of its own.

    Args:
        limit: The limit as it is configured now; None lets through as much as the workers take.
        source: May be shared with other turnstiles.
        takers: By lane; a lane without one is left to other processes.
    """

    def __init__(
        self,
        key: str,
        *,
        limit: Callable[[], Limit | None],
        turns: Asks,
        source: Source,
        takers: Mapping[str, Taker],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.key = key
        self._limit = limit
        self._turns = turns
        self._takers = takers
        self._now = monotonic
        self._source = source
        #: in the order in which their next mail is taken
        self._queues: dict[str, _Queue] = {}
        self._wake = Flag()
        self._unused = 0
        self._under_way = 0
        #: the oldest first; they may have passed meanwhile, also in other processes
        self._expected: deque[_Expected] = deque(maxlen=MOST_REMEMBERED)
        self._passed = monotonic()
        #: of the day's turns, as far as this process knows
        self._left: int | None = None
        self._is_stopped = False
        self._greenlet = eventlet.spawn(self._run)

    def add(self, queue: TurnQueue) -> None:
        """Take from this queue too."""
        self._queues.setdefault(queue.name, _Queue(queue.name, queue.lane, queue.part))

    @property
    def is_busy(self) -> bool:
        """Whether it knows of mail that waits, and need not be told."""
        return any(queue.waiting for queue in self._queues.values())

    @property
    def names(self) -> list[str]:
        """Of its queues."""
        return list(self._queues)

    def found(self, name: str, count: int) -> None:
        """So many messages are in the queue."""
        self._queues[name].waiting = count
        if count:
            self._wake.set()

    def came(self, name: str) -> None:
        """This process has put one more message into the queue."""
        self._queues[name].waiting += 1
        self._wake.set()

    def waiting_in(self, lane: str) -> int:
        """Messages that wait, as far as this process knows."""
        return sum(queue.waiting for queue in self._queues.values() if queue.lane == lane)

    def wait_s(self, lane: str) -> float:
        """Seconds, more or less, until the turn of a mail that comes now."""
        limit = self._limit()
        ahead = 1 + sum(map(self.waiting_in, topology.LANES[: topology.LANES.index(lane) + 1]))
        if limit is None:
            return 0.0
        waits = [0.0]
        if limit.day is not None and ahead > (limit.day if self._left is None else self._left):
            waits.append(seconds_to_midnight(clock.now().timestamp()))
        if limit.rate is not None:
            waits.append(ahead * limit.per / limit.rate)
        if limit.concurrency is not None:
            waits.append(max(0, ahead + self._under_way - limit.concurrency) * USUAL_ATTEMPT_S / limit.concurrency)
        return max(waits)

    def remember(self, lane: str, later: Callable[[], None]) -> None:
        """Call *later* if it takes longer than was to be expected; the oldest of too many are forgotten."""
        self._expected.append(_Expected(lane, self._now(), later))

    def know(self, count: Count) -> None:
        """All processes together have used so much."""
        if limit := self._limit():
            self._left = left_of(limit, count, clock.now().timestamp())

    def done(self, *, was_used: bool) -> None:
        """A message that was taken is settled. What came of no attempt leaves its turn to another."""
        self._under_way -= 1
        self._unused += not was_used
        self._wake.set()

    def room(self) -> None:
        """A worker may have become free."""
        if self.is_busy:
            self._wake.set()

    def stop(self) -> None:
        """Take no more."""
        self._is_stopped = True
        self._wake.set()

    def close(self) -> None:
        """End at once."""
        self._greenlet.kill()

    def _run(self) -> None:
        while not self._is_stopped:
            try:
                self._go_on()
            except StoreDown:
                # without the count nobody may pass
                eventlet.sleep(AGAIN_S)
            except (OSError, AMQPError) as exc:
                _log.info("a queue of mail that waits for its turn cannot be read (%s)", type(exc).__name__)
                self._source.close()
                eventlet.sleep(AGAIN_S)
            except Exception as exc:  # noqa: BLE001 - if this loop ended, the mail behind it would wait for ever
                _log.warning("mail waits longer for its turn (%s)", type(exc).__name__)
                eventlet.sleep(AGAIN_S)

    def _go_on(self) -> None:
        self._source.tend(is_needed=self.is_busy or self._under_way > 0)
        self._say_who_waits_behind_many()
        wanted = sum(queue.waiting for queue in self._queues.values() if self._has_room(queue.lane))
        if not wanted:
            self._wake.wait(IDLE_S)
            return
        limit = self._limit()
        granted = self._granted(limit, min(wanted, MOST)) if limit else Grant(beats=(0.0,) * min(wanted, MOST))
        start = self._now()
        if not granted.beats:
            if self._now() - self._passed > SOON_S or granted.again_s > SOON_S:
                self._say_that_it_takes_longer(self._expected)
            self._nap(granted.again_s, is_cut_short=limit is not None and limit.concurrency is not None)
            return
        for index, beat in enumerate(granted.beats):
            eventlet.sleep(max(0.0, start + beat - self._now()))
            if not self._let_one_pass(start + beat + USE_WITHIN_S):
                self._unused += len(granted.beats) - index if limit else 0
                return

    def _granted(self, limit: Limit, wanted: int) -> Grant:
        unused, self._unused = self._unused, 0
        wish = Wish(key=self.key, limit=limit, wanted=wanted, unused=unused, under_way=self._under_way)
        try:
            granted = self._turns.ask(wish)
        except StoreDown:
            self._unused += unused
            raise
        self._left = granted.left
        return granted

    def _say_who_waits_behind_many(self) -> None:
        """What other processes had put in was not known yet when it was said who would pass at once."""
        end = self._now() - SOON_S
        if not self._expected or self._expected[0].since > end:
            return
        crowded = {lane for lane in topology.LANES if self.wait_s(lane) > SOON_S}
        self._say_that_it_takes_longer([one for one in self._expected if one.since <= end and one.lane in crowded])

    def _say_that_it_takes_longer(self, expected: Iterable[_Expected]) -> None:
        for one in list(expected):
            self._expected.remove(one)
            eventlet.spawn_n(one.later)

    def _nap(self, seconds: float, *, is_cut_short: bool) -> None:
        seconds = min(seconds, LONGEST_NAP_S)
        if is_cut_short:
            self._wake.wait(seconds)
        else:
            eventlet.sleep(seconds)

    def _let_one_pass(self, until: float) -> bool:
        """Hand over the next message. Answers whether there was one, and somebody to take it, before *until*."""
        while not self._is_stopped:
            for lane in topology.LANES:
                message = self._next(lane) if self._has_room(lane) else None
                if message is not None:
                    self._under_way += 1
                    self._passed = self._now()
                    self._takers[lane].take(message, self)
                    return True
            if not self.is_busy or self._now() >= until:
                return False
            self._wake.wait(until - self._now())
        return False

    def _has_room(self, lane: str) -> bool:
        taker = self._takers.get(lane)
        return taker is not None and taker.has_room

    def _next(self, lane: str) -> Message | None:
        """The next message of *lane*, of the tenant whose turn it is."""
        for queue in [each for each in self._queues.values() if each.lane == lane and each.waiting]:
            message = self._source.get(queue.name)
            if message is None:
                queue.waiting = 0
                continue
            queue.waiting = int(message.delivery_info.get("message_count") or 0)
            # the others first
            self._queues[queue.name] = self._queues.pop(queue.name)
            return message
        return None
