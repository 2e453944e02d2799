"""
A contender's client, in a process of its own: it has the place in its environment.

    python -m benchmarks.contenders prepare
    python -m benchmarks.contenders fill PREFIX COUNT     hand so many mails in; prints the seconds
    python -m benchmarks.contenders timed COUNT           one by one; prints the seconds of each as JSON
    python -m benchmarks.contenders each                  for each line of standard input, a name; prints when it began
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from typing import Any

import django

from benchmarks.messages import a_message

from . import CONTENDERS
from .place import Place


def main(what: str, *arguments: str) -> None:
    """Do it."""
    place = Place.here()
    django.setup()
    (module,) = [contender.module for contender in CONTENDERS if contender.name == place.contender]
    contender: Any = import_module(f"benchmarks.contenders.{module}")
    if what == "prepare":
        contender.prepare(place)
        print(json.dumps(contender.workers(place)))
        return
    client = contender.Client(place)
    if what == "fill":
        prefix, count = arguments
        messages = [a_message(f"{prefix}{number}") for number in range(int(count))]
        began = time.monotonic()
        client.many(messages)
        print(time.monotonic() - began)
    elif what == "timed":
        print(json.dumps(_timed(client, int(*arguments))))
    elif what == "each":
        print("ready", flush=True)
        for line in sys.stdin:
            began = time.monotonic()
            client.one(a_message(line.strip()))
            print(began, flush=True)


def _timed(client: Any, count: int) -> list[float]:
    client.one(a_message("t0"))  # connects
    seconds = []
    for number in range(1, count):
        message = a_message(f"t{number}")
        began = time.perf_counter()
        client.one(message)
        seconds.append(time.perf_counter() - began)
    return seconds


main(*sys.argv[1:])
