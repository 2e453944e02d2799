"""Faults of the other side: SMTP servers and an ESP's API that die, dawdle and hang at every stage."""

from __future__ import annotations

import random
import time
from typing import get_args

from mail_service.local.http_server import Rule as HttpRule
from mail_service.local.smtp_server import Rule, Stage

from .ground import SILENCE_S, YES, Ground
from .processes import moments
from .traffic import RULES

STAGES: tuple[Stage, ...] = get_args(Stage)

#: an API that dies, answers with half of it, or with nothing that makes sense
API_FAULTS = (
    HttpRule(drop="connection", times=4),
    HttpRule(drop="connection", reset=True, times=4),
    HttpRule(drop="head", times=4),
    HttpRule(drop="request", times=4),
    HttpRule(drop="request", reset=True, times=4),
    HttpRule(status=503, times=4),
    HttpRule(status=500, body="<html>oops", times=4),
    HttpRule(status=429, headers={"Retry-After": "1"}, times=2),
    HttpRule(garbage="not HTTP at all\r\n\r\n", times=4),
    HttpRule(status=200, body=YES.body, cut_after=10, times=4),
    HttpRule(status=200, body=YES.body, byte_s=0.005, times=4),
    HttpRule(status=200, body=YES.body, close=True, times=4),
    HttpRule(drop="request", hang_s=SILENCE_S + 2, times=3),
)


def smtp_dies(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Let the server hang up, or say 421, at each stage of the conversation."""
    ways = [Rule(at=stage, drop=True, times=4) for stage in STAGES]
    ways += [Rule(at=stage, reply="421 4.3.2 Shutting down", times=4) for stage in STAGES if stage != "body"]
    _one_after_the_other(ground, rng, seconds, [rule for rule in ways if rule.at != "auth"])


def smtp_hangs(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Let the server fall silent at each stage, for longer than we listen."""
    stages = [stage for stage in STAGES if stage != "auth"]
    _one_after_the_other(ground, rng, seconds, [Rule(at=stage, hang_s=SILENCE_S + 2, times=3) for stage in stages])


def _one_after_the_other(ground: Ground, rng: random.Random, seconds: float, rules: list[Rule]) -> None:
    order = rng.sample(rules, len(rules))
    for rule, _ in zip(order, moments(seconds, seconds / len(order)), strict=False):
        ground.smtp.script(rule, *RULES)


def smtp_killed(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Crash the server with mails in its hands."""
    for _ in moments(seconds, 1.5):
        ground.smtp.kill9()
        time.sleep(rng.uniform(0, 0.5))
        ground.smtp.start()


def smtp_drips(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Let each of the server's replies come byte by byte."""
    ground.smtp_way.drip_s = 0.003
    time.sleep(seconds)
    ground.smtp_way.drip_s = 0


def smtp_resets(ground: Ground, rng: random.Random, seconds: float) -> None:
    """End the connections to the server with RST, and leave some half open."""
    for _ in moments(seconds, 1.0):
        if rng.random() < 0.7:
            ground.smtp_way.reset()
        else:
            ground.smtp_way.strand()


def api_dies(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Let the API die in each way that a network knows."""
    order = rng.sample(API_FAULTS, len(API_FAULTS))
    for rule, _ in zip(order, moments(seconds, seconds / len(order)), strict=False):
        ground.http.script(rule, YES)
    ground.http.kill9()
    ground.http.start()
