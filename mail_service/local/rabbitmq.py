"""
The broker for ``make demo``, ``make run`` and the tests: one that is there, else a private node, else docker compose.

    python -m mail_service.local.rabbitmq                     prints the AMQP_URI and runs until it is stopped
    python -m mail_service.local.rabbitmq COMMAND [ARG ...]   runs the command with AMQP_URI in its environment
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from .node import Installation, Node, NodeFailed, answers, installed, lasting_node, temporary_node
from .packages import install

DEFAULT_URI = "amqp://guest:guest@127.0.0.1:5672//"


class NoBroker(Exception):
    """There is no RabbitMQ and no way to get one. The text says what to install."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A RabbitMQ that answers."""

    amqp_uri: str
    #: where it comes from, for people
    origin: str
    #: the private node, or None when it is somebody else's broker
    node: Node | None = None


@contextlib.contextmanager
def broker(var: Path, *, lasting: bool = False) -> Iterator[Broker]:
    """
    Find or start a RabbitMQ, and stop again what was started.

    In this order: ``AMQP_URI`` from the environment, unchecked; a broker at the default address; a private node below
    *var*, its package installed where that is allowed; the ``rabbitmq`` of docker-compose.yml. Raises NoBroker.

    Args:
        lasting: Keep a private node's data for the next time, in ``var/rabbitmq/run``.
    """
    given = os.environ.get("AMQP_URI")
    if given:
        yield Broker(amqp_uri=given, origin="AMQP_URI from the environment")
    elif answers(DEFAULT_URI, timeout_s=2):
        yield Broker(amqp_uri=DEFAULT_URI, origin="the broker that listens on the default address")
    elif (programs := installed_or_install()) is not None:
        with private_node(var, programs, lasting=lasting) as node:
            yield Broker(amqp_uri=node.amqp_uri, origin=f"a private RabbitMQ node in {node.folder}", node=node)
    else:
        with _composed() as uri:
            yield Broker(amqp_uri=uri, origin="the rabbitmq of docker-compose.yml")


def installed_or_install() -> Installation | None:
    """Find RabbitMQ's programs, after installing them where they are missing and that is allowed."""
    found = installed()
    if found is None and install("rabbitmq-server"):
        found = installed()
    return found


def private_node(
    var: Path, programs: Installation, *, lasting: bool = False
) -> contextlib.AbstractContextManager[Node]:
    """Run a node of our own below *var*."""
    folder = var.absolute() / "rabbitmq"
    return lasting_node(folder / "run", programs) if lasting else temporary_node(folder, programs)


@contextlib.contextmanager
def _composed() -> Iterator[str]:
    folder = _compose_folder()
    if folder is None:
        raise NoBroker(
            "There is no RabbitMQ. Set AMQP_URI to one you have, or install the package rabbitmq-server "
            "(Debian, Ubuntu: sudo apt-get install rabbitmq-server; macOS: brew install rabbitmq), "
            "or Docker with its compose plugin."
        )
    compose = ["docker", "compose", "--project-directory", str(folder)]
    subprocess.run([*compose, "up", "-d", "--wait", "rabbitmq"], check=True, stdout=sys.stderr.fileno())
    try:
        yield DEFAULT_URI
    finally:
        subprocess.run([*compose, "stop", "rabbitmq"], check=False, stdout=sys.stderr.fileno())


def _compose_folder() -> Path | None:
    """Find docker-compose.yml, if there is a Docker that answers."""
    folders = [Path.cwd(), Path(__file__).resolve().parents[2]]
    folder = next((each for each in folders if (each / "docker-compose.yml").is_file()), None)
    if folder is None or not shutil.which("docker"):
        return None
    ready = subprocess.run(["docker", "compose", "ls"], capture_output=True, check=False, timeout=30)
    return folder if ready.returncode == 0 else None


def main(argv: Sequence[str]) -> int:
    """Run a command beside a broker, or only the broker. Answers the command's exit status."""
    with _ended_by_signals() as ended:
        try:
            with broker(Path("var"), lasting=True) as found:
                print(f"RabbitMQ: {found.origin}", file=sys.stderr, flush=True)
                if argv and found.node:
                    # the address of a node of ours is another one each time, and its password no secret
                    print(f"For other terminals: export AMQP_URI={found.amqp_uri}", file=sys.stderr, flush=True)
                return ended.run(argv, found.amqp_uri) if argv else ended.wait(found.amqp_uri)
        except _Ended:
            return 0
        except (NoBroker, NodeFailed) as error:
            print(error, file=sys.stderr)
            return 1


class _Ended(BaseException):
    """SIGTERM or SIGINT came. A BaseException, so that the way out stops the node."""


class _Signals:
    """What SIGTERM and SIGINT do: passed on to the command, or the end of the waiting."""

    def __init__(self) -> None:
        self._command: subprocess.Popen[bytes] | None = None

    def handle(self, number: int, _frame: FrameType | None) -> None:
        if self._command is None:
            raise _Ended
        # Ctrl-C reaches the command without us, as the terminal sends it to both
        if number == signal.SIGTERM:
            self._command.terminate()

    def run(self, argv: Sequence[str], amqp_uri: str) -> int:
        self._command = subprocess.Popen(argv, env=os.environ | {"AMQP_URI": amqp_uri})
        status = self._command.wait()
        return 128 - status if status < 0 else status

    def wait(self, amqp_uri: str) -> int:
        print(amqp_uri, flush=True)
        while True:
            signal.pause()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[_Signals]:
    signals = _Signals()
    before = {number: signal.signal(number, signals.handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
