"""The service as its users run it: a process of its own, started by nameko's command or by ours."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import yaml

from mail_service.client import MailClient
from mail_service.errors import MailServiceError
from mail_service.local.process import unwatch, watch

from .waiting import eventually

ROOT = Path(__file__).parents[2]

#: quick enough for tests, long enough to be told apart
QUICK = {"schedule": [100, 200], "limit": 2}


def configuration(amqp_uri: str, folder: Path, *, smtp_port: int | None = None, **mail: Any) -> dict[str, Any]:
    """A nameko configuration whose default mailer is the SMTP server at *smtp_port*; *mail* are keys of its section."""
    section: dict[str, Any] = {
        "default_from": "sender@example.org",
        "database": f"sqlite:///{folder / 'mail.db'}",
        "hold_probe": 1,
        "schedules": {"quick": dict(QUICK)},
        "backoff": {"send": "quick", "submit": "quick", "event": "quick"},
    }
    if smtp_port is not None:
        section["mailers"] = {
            "default": {
                "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
                "OPTIONS": {"host": "127.0.0.1", "port": smtp_port, "timeout": 10},
            }
        }
    return {"AMQP_URI": amqp_uri, "max_workers": 10, "mail": {**section, **copy.deepcopy(mail)}}


class Service:
    """
    ``with Service(config, folder) as service: service.rpc.send({...})``.

    Args:
        config: As nameko reads it from YAML.
        folder: For the configuration file and the log; the process runs in it.
        processes: Number for ``mail-service run``; None is ``nameko run``.
        module: What ``nameko run`` runs.
    """

    def __init__(
        self,
        config: dict[str, Any],
        folder: Path,
        *,
        processes: int | None = None,
        module: str = "mail_service.service",
    ) -> None:
        self.config = config
        self.folder = folder
        self.config_path = folder / "config.yaml"
        self.log_path = folder / "service.log"
        self._processes = processes
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        #: ends the service if these tests are killed
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._client: MailClient | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._client:
            self._client.close()
        if self.is_alive:
            self.stop()
        self._unwatch()

    def _unwatch(self) -> None:
        if self._watchdog:
            unwatch(self._watchdog)
            self._watchdog = None

    def start(self, *, wait: bool = True) -> None:
        """Start it, and *wait* until it answers."""
        self.config_path.write_text(yaml.safe_dump(self.config))
        with self.log_path.open("ab") as log:
            # a group of its own, so that kill9 reaches the processes below it too
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                env=self._environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._unwatch()
        self._watchdog = watch(self._process.pid)
        if wait:
            try:
                eventually(self._answers, 60)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.log[-5000:]}") from None

    def _command(self) -> list[str]:
        config = ["--config", str(self.config_path)]
        if self._processes is None:
            return [sys.executable, "-m", "nameko", "run", *config, self._module]
        return [sys.executable, "-m", "mail_service.cli", "run", *config, "--processes", str(self._processes)]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}

    def _answers(self) -> bool:
        if not self.is_alive:
            raise AssertionError(f"the service ended:\n{self.log}")
        try:
            self.rpc.call("errors", limit=1, timeout=2)
        except MailServiceError:
            return False
        return True

    @property
    def rpc(self) -> MailClient:
        """A client of this service."""
        if self._client is None:
            self._client = MailClient(self.config["AMQP_URI"], timeout=10)
        return self._client

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def stop(self, *, timeout: float = 40) -> int:
        """SIGTERM; answers the exit status."""
        self.process.terminate()
        return self.process.wait(timeout)

    def kill9(self) -> None:
        """Kill it and the processes below it, without a chance to tidy up."""
        for pid in [self.pid, *children(self.pid)]:
            os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


def children(pid: int) -> list[int]:
    """The pids of the processes that *pid* started."""
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listing.read_text().split()] if listing.exists() else []


def rss_mb(pid: int) -> float:
    """Megabytes of memory that a process has."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
