"""
Where a lane has more mail than its workers take, divide what waits among the queues where tenants take turns.

A lane's queue is in the order of arrival, and nobody can look past its head: behind one tenant's thousands another's
mail would wait for all of them. To put a mail into another queue is cheaper than to deliver it, so soon everybody's is
in sight.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import eventlet
from amqp.exceptions import AMQPError
from kombu import Connection
from kombu.message import Message

from mail_service import topology
from mail_service.limits.flag import Flag
from mail_service.limits.source import Source

_log = logging.getLogger(__name__)

#: on their way from one queue to another at the same time, so that they share confirms
TOGETHER = 30
#: when nothing has come for so long, everything is sorted, seconds
QUIET_S = 0.3
#: between looks after an idle connection, seconds
IDLE_S = 1.0
#: after trouble with the broker, seconds
AGAIN_S = 1.0


class Sharer(Protocol):
    """Whose lane it is."""

    @property
    def is_full(self) -> bool:
        """Whether a mail that comes now has to wait for a worker."""
        ...

    def share(self, message: Message) -> None:
        """Put it where its tenant's mail waits, and acknowledge it; never raises."""
        ...


class Sorter:
    """One for each lane in which tenants were seen, in a greenlet of its own."""

    def __init__(self, lane: str, sharer: Sharer, connect: Callable[[], Connection]) -> None:
        self._queue = topology.lane_queue_name(lane)
        self._sharer = sharer
        self._source = Source(connect)
        self._flag = Flag()
        self._pool = eventlet.GreenPool(TOGETHER)
        self._is_stopped = False
        self._greenlet = eventlet.spawn(self._run)

    def wake(self) -> None:
        """The lane is full, and there are tenants in it."""
        self._flag.set()

    def stop(self) -> None:
        """Take no more."""
        self._is_stopped = True
        self._flag.set()

    def close(self) -> None:
        """Let go of the connection, and with it of every message that is not put anywhere yet."""
        self._greenlet.kill()
        self._source.close()

    def _run(self) -> None:
        while not self._is_stopped:
            try:
                if self._flag.wait(IDLE_S):
                    self._sort()
                self._source.tend(is_needed=self._pool.running() > 0)
            except (OSError, AMQPError) as exc:
                _log.info("mail waits in the order of its arrival (%s)", type(exc).__name__)
                self._source.close()
                eventlet.sleep(AGAIN_S)

    def _sort(self) -> None:
        with self._source.consuming(self._queue, TOGETHER, self._share) as next_ones:
            while self._sharer.is_full and not self._is_stopped and next_ones(QUIET_S):
                self._source.tend(is_needed=True)

    def _share(self, message: Message) -> None:
        self._pool.spawn_n(self._sharer.share, message)
