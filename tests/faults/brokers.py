"""Faults of RabbitMQ and of the way to it."""

from __future__ import annotations

import random
import time

from .ground import Ground
from .processes import moments, rounds

#: longer than any wait of a mail here, so that all of them are due when it is back, seconds
LONGER_THAN_DELAYS_S = 7


def kill_broker(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Crash the node again and again."""
    for _ in rounds(seconds, rng, (0.5, 4)):
        ground.broker.kill9()
        ground.broker.start()


def stop_broker(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Stop the node for longer than the delays are."""
    ground.broker.stop()
    time.sleep(max(seconds / 2, LONGER_THAN_DELAYS_S))
    ground.broker.start()
    time.sleep(seconds / 4)


def pause_broker(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Let the node hang: connections stay, and nobody answers."""
    for _ in rounds(seconds, rng, (0.5, 2)):
        ground.broker.pause()
        time.sleep(rng.uniform(1, 8))
        ground.broker.resume()


def memory_alarm(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Let it run out of memory: whoever publishes is blocked."""
    _alarm(ground, ("set_vm_memory_high_watermark", "0"), ("set_vm_memory_high_watermark", "0.6"), seconds)


def disk_alarm(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Let it run out of disk: the same."""
    _alarm(ground, ("set_disk_free_limit", "900000GB"), ("set_disk_free_limit", "50MB"), seconds)


def _alarm(ground: Ground, begin: tuple[str, ...], end: tuple[str, ...], seconds: float) -> None:
    ground.on_heal(lambda: ground.broker.ctl(*end))
    ground.broker.ctl(*begin)
    # longer than a confirm is waited for, if there is time
    time.sleep(seconds * 0.8)
    ground.broker.ctl(*end)
    time.sleep(seconds * 0.2)


def reset_connections(ground: Ground, rng: random.Random, seconds: float) -> None:
    """End every connection, with RST or in the middle of some frame."""
    for _ in moments(seconds, 0.7):
        if rng.random() < 0.5:
            ground.amqp.reset()
        else:
            ground.amqp.cut_after = rng.randrange(1, 20_000)


def half_open(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Let every connection lead nowhere, without a word; only its heartbeat tells the service."""
    for _ in rounds(seconds, rng, (0.5, 3)):
        ground.amqp.strand()
        ground.probe()


def freeze_connections(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Let the network hold everything back, and then deliver it."""
    for _ in rounds(seconds, rng, (0.5, 2)):
        ground.amqp.freeze()
        time.sleep(rng.uniform(0.5, 6))
        ground.amqp.thaw()
