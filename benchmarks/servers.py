"""What the benchmarks start: a broker with a folder of its own, and the service."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mail_service.local.node import Node, temporary_node
from mail_service.local.process import Child, environment
from mail_service.local.rabbitmq import installed_or_install
from mail_service.mailers import SMTP_BACKEND

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[Node]:
    """Run a RabbitMQ node below *folder*."""
    programs = installed_or_install()
    if programs is None:
        raise SystemExit("no RabbitMQ: install the package rabbitmq-server")
    with temporary_node(folder, programs) as node:
        yield node


@contextlib.contextmanager
def empty_broker() -> Iterator[tuple[str, Path]]:
    """Give the URI of a RabbitMQ node of one's own, and a folder; both are gone afterwards."""
    with tempfile.TemporaryDirectory() as folder, broker(Path(folder)) as node:
        yield node.amqp_uri, Path(folder)


def smtp_mailer(port: int) -> dict[str, Any]:
    """Settings of a mailer that hands mail to the SMTP server on *port*."""
    return {"BACKEND": SMTP_BACKEND, "OPTIONS": {"host": "127.0.0.1", "port": port}}


def command(
    amqp_uri: str, folder: Path, mailers: Mapping[str, Any], *, processes: int = 2, workers: int = 10, **mail: Any
) -> list[str]:
    """Write a configuration into *folder*, with *mail* in its section; give the command that runs the service by it."""
    config = {
        "AMQP_URI": amqp_uri,
        "max_workers": workers,
        "LOGGING": {"version": 1, "disable_existing_loggers": False, "root": {"level": "CRITICAL"}},
        "mail": {"database": f"sqlite:///{folder / 'mail.db'}", "mailers": dict(mailers), **mail},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return [sys.executable, "-m", "mail_service.cli", "run", "--config", str(path), "--processes", str(processes)]


@contextlib.contextmanager
def running(amqp_uri: str, folder: Path, mailers: Mapping[str, Any], **more: Any) -> Iterator[Child]:
    """Run the service; see `command`."""
    argv = command(amqp_uri, folder, mailers, **more)
    child = Child(argv, env=environment(PYTHONPATH=str(ROOT)), output=folder / "service.log")
    try:
        yield child
    finally:
        child.stop(grace_s=35)


def memory_mib(service: Child, what: str = "VmRSS") -> float:
    """MiB of the largest of the processes of *service*; ``VmHWM`` is what it had at most."""
    children = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()
    lines = [line for pid in children for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return max(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{what}:"))
