"""Faults of the service's own processes: killed, told to stop, without descriptors, with a clock that is wrong."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.waiting import eventually

from .ground import Ground, Steered

#: where a process dies by its own hand, as tests/support/crashing.py has them
POINTS = ("claimed", "accepted", "writing", "committed", "republished")
#: of those, the ones that no other test dies at
NEW_POINTS = ("claimed", "writing")
#: seconds a clock is wrong by, one after the other: tomorrow, half a minute ago, right
CLOCKS_S = (86_400.0, -30.0, 0.0)


def moments(seconds: float, every_s: float) -> Iterator[None]:
    """Give a moment at once and then every *every_s*, until *seconds* are over."""
    end = time.monotonic() + seconds
    while True:
        yield
        if time.monotonic() + every_s > end:
            time.sleep(max(0.0, end - time.monotonic()))
            return
        time.sleep(every_s)


def rounds(seconds: float, rng: random.Random, rest_s: tuple[float, float]) -> Iterator[None]:
    """Once, and again after some rest, until *seconds* are over; what is done in a round takes its own time."""
    end = time.monotonic() + seconds
    while True:
        yield
        if time.monotonic() > end:
            return
        time.sleep(rng.uniform(*rest_s))


def kill_one(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Kill one of the processes each second; the supervisor starts it again."""
    for _ in moments(seconds, 1.0):
        if pids := ground.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(pids), signal.SIGKILL)


def kill_all(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Kill the supervisor and all processes, at any moment of their life."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ground.service.kill9()
        ground.service.start(wait=False)
        time.sleep(rng.uniform(1, 5))


def crash_at_points(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Let the process die at each of the points in turn, with many mails in its hands."""
    service = ground.service
    assert isinstance(service, Steered)
    end = time.monotonic() + seconds
    for point in POINTS if seconds else NEW_POINTS:
        die_at(service, point, rng.randrange(3))
    while time.monotonic() < end:
        die_at(service, rng.choice(POINTS), rng.randrange(20))


def die_at(service: Steered, point: str, after: int) -> None:
    """Wait for a death at *point*, passed *after* times before, and start another process."""
    service.arm(point, after)
    eventually(lambda: not service.is_alive, 60)
    assert service.process.returncode == -signal.SIGKILL, service.log[-3000:]
    service.start(wait=False)


def terminate(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Stop it in good order while mail flows, and start it again."""
    end = time.monotonic() + seconds
    while True:
        assert ground.service.stop() == 0, ground.service.log[-3000:]
        ground.service.start()
        if time.monotonic() > end:
            return
        time.sleep(rng.uniform(0.5, 2))


def exhaust_descriptors(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Leave the processes no descriptor for another connection, and then a few."""
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in ground.processes()}

    def restore() -> None:
        for pid, limit in limits.items():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)

    ground.on_heal(restore)
    for _ in moments(seconds, 1.0):
        # what it has is lost now and then, so that it wants new ones
        ground.smtp_way.reset()
        ground.amqp.reset()
        for pid, (_, hard) in limits.items():
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(pid) + rng.randrange(-3, 3), hard))
    restore()


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def step_clock(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Set the service's clock forward and back while mails wait for their next attempts."""
    service = ground.service
    assert isinstance(service, Steered)
    for _ in moments(seconds, seconds / 3):
        for offset_s in rng.sample(CLOCKS_S, len(CLOCKS_S)):
            service.set_clock(offset_s)
            time.sleep(seconds / 3 / len(CLOCKS_S) / 2)
