"""
``make faults``: every fault at length, then a soak, and the count of all mails. Ends with 1 if something is wrong.

    python -m tests.faults.run [--seed N] [--seconds N] [--soak N] [NAME ...]

The seed decides what is handed in, and what the faults do when; what is in flight at such a moment is chance.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mail_service.local.node import Node, temporary_node
from mail_service.local.rabbitmq import installed_or_install
from tests.support.messages import configure_django
from tests.support.postgresql import Postgresql

from .counting import Tally
from .faults import BY_NAME, FAULTS, Fault, suffer
from .ground import Ground, opened
from .soak import Soak, soak
from .stores import small_disk

_COLUMNS = "{:<22} {:>8} {:>9} {:>9} {:>6} {:>5} {:>7}  {}"
_HEAD = ("fault", "accepted", "delivered", "error log", "lost", "twice", "seconds", "")


class Grounds:
    """The two grounds, each opened when a fault asks for it, and closed before the other is: there are few cores."""

    def __init__(self, folder: Path, broker: Node, postgresql: Postgresql, seed: int) -> None:
        self._folder = folder
        self._broker = broker
        self._postgresql = postgresql
        self._seed = seed

    @contextmanager
    def open(self, where: str) -> Iterator[Ground]:
        folder = self._folder / f"{where}-{secrets.token_hex(3)}"
        folder.mkdir()
        vhost = f"faults-{folder.name}"
        self._broker.add_vhosts(vhost)
        with ExitStack() as stack:
            yield stack.enter_context(
                opened(self._broker, vhost, folder, seed=self._seed, postgresql=self._postgresql, processes=2)
                if where == "many"
                else opened(
                    self._broker,
                    vhost,
                    folder,
                    seed=self._seed,
                    database_folder=stack.enter_context(small_disk(folder)),
                )
            )
        self._broker.delete_vhosts(vhost)


def run(faults: list[Fault], *, seed: int, seconds: float, soak_s: float) -> bool:
    """Let all of it happen, print the table, and tell whether nothing was lost and nothing grew."""
    programs = installed_or_install()
    if programs is None:
        sys.exit("There is no RabbitMQ. Install the package rabbitmq-server.")
    total, is_well = Tally(), True
    with (
        tempfile.TemporaryDirectory(prefix="faults-") as scratch,
        temporary_node(Path(scratch) / "nodes", programs) as broker,
        Postgresql() as postgresql,
    ):
        grounds = Grounds(Path(scratch), broker, postgresql, seed)
        print(_COLUMNS.format(*_HEAD), flush=True)
        for where in ("one", "many"):
            here = [fault for fault in faults if fault.where == where]
            if here:
                with grounds.open(where) as ground:
                    for fault in here:
                        tally = _try(ground, fault, seconds)
                        total, is_well = total + (tally or Tally()), is_well and tally is not None
        if soak_s:
            with grounds.open("many") as ground:
                soaked = soak(ground, soak_s)
            _tell(soaked)
            total, is_well = total + soaked.tally, is_well and soaked.is_flat
    _print("all", total, 0, "")
    return is_well and total.is_sound


def _try(ground: Ground, fault: Fault, seconds: float) -> Tally | None:
    """The count, or None where something else went wrong; the others are tried all the same."""
    began = time.monotonic()
    if fault.needs_small_disk and not ground.has_small_disk:
        print(f"{fault.name:<22} left out: a small disk takes root and mount", flush=True)
        return Tally()
    try:
        tally = suffer(ground, {fault: fault.long_s or seconds})
    except Exception:  # noqa: BLE001 - it is printed, and the run fails
        print(f"{fault.name:<22} WENT WRONG\n{traceback.format_exc()}", flush=True)
        return None
    _print(fault.name, tally, time.monotonic() - began, fault.text)
    return tally


def _tell(soaked: Soak) -> None:
    _print("soak", soaked.tally, soaked.seconds, f"{soaked.tally.accepted / soaked.seconds:.0f} mails a second")
    print(soaked.in_words, flush=True)


def _print(name: str, tally: Tally, seconds: float, text: str) -> None:
    numbers = (tally.accepted, tally.delivered, tally.logged, tally.lost, tally.doubled)
    print(_COLUMNS.format(name, *numbers, round(seconds) or "", text), flush=True)
    if not tally.is_sound:
        print(f"WRONG: {tally}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Every kind of fault at length, and the count of all mails.")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="by chance if not given")
    parser.add_argument("--seconds", type=float, default=30, help="of each fault (30)")
    parser.add_argument(
        "--soak", type=float, default=900, help="seconds at full rate without a fault (900); 0 for none"
    )
    parser.add_argument("names", nargs="*", choices=[[], *BY_NAME], metavar="NAME", help=", ".join(BY_NAME))
    given = parser.parse_args()
    configure_django()
    print(f"seed {given.seed}: give it again with --seed {given.seed}", flush=True)
    faults = [BY_NAME[name] for name in given.names] or list(FAULTS)
    sys.exit(0 if run(faults, seed=given.seed, seconds=given.seconds, soak_s=given.soak) else 1)


if __name__ == "__main__":
    main()
