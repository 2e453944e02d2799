"""A server process of ours: known by its pid, in a session of its own, and ended together with whoever started it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# Reads until our end of the pipe closes, which also happens when we are killed with -9. A prctl(PR_SET_PDEATHSIG)
# would do the same on Linux only, and fires already when the thread that started the server ends.
_WATCH = """
read -r _
kill -TERM "$0" && kill -CONT "$0"
tenths=0
while kill -0 "$0" && [ $tenths -lt 100 ]; do sleep 0.1; tenths=$((tenths + 1)); done
kill -KILL "$0"
"""


def free_port() -> int:
    """Ask the operating system for a TCP port that is free on the loopback address; another program may be faster."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Child:
    """
    A running server.

    Args:
        output: The file that its standard output and error are written to.
        keep_open: File descriptors that it inherits, such as the one that holds a lock.
        uid, gid: Run as this user, for servers that refuse root.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        output: Path,
        keep_open: Sequence[int] = (),
        uid: int | None = None,
        gid: int | None = None,
    ) -> None:
        with output.open("wb") as log:
            self._process = subprocess.Popen(
                argv,
                env=dict(env),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=tuple(keep_open),
                user=uid,
                group=gid,
                extra_groups=None if uid is None else [],
            )
        self._watchdog = watch(self.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return not self._ended(0)

    def stop(self, *, grace_s: float = 20) -> None:
        """Ask it to end, wait, and kill it when it does not. Does nothing when it has ended already."""
        if self.is_alive:
            self._signal(signal.SIGTERM)
            # a paused process takes the SIGTERM only once it goes on
            self._signal(signal.SIGCONT)
            if not self._ended(grace_s):
                self.kill9()

    def kill9(self) -> None:
        """Crash it, and return when it is gone."""
        if self.is_alive:
            self._signal(signal.SIGKILL)
            self._ended(None)

    def pause(self) -> None:
        """Stop it from running while its connections stay open, as a machine that hangs."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def _ended(self, timeout_s: float | None) -> bool:
        """Wait for its end. The watchdog goes at that moment, before the system may give the pid to somebody else."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        if self._watchdog.returncode is None:
            unwatch(self._watchdog)
        return True


def watch(pid: int) -> subprocess.Popen[bytes]:
    """Start a watchdog that ends the process *pid*, which we started, when we end without doing so ourselves."""
    return subprocess.Popen(
        ["/bin/sh", "-c", _WATCH, str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def unwatch(watchdog: subprocess.Popen[bytes]) -> None:
    """Dismiss a watchdog; its process has ended, and the system may give the pid to somebody else."""
    watchdog.kill()
    watchdog.wait()
    if watchdog.stdin:
        watchdog.stdin.close()


def environment(**ours: str) -> dict[str, str]:
    """Give our environment without what would steer RabbitMQ, Erlang or PostgreSQL, and with *ours*."""
    steering = ("RABBITMQ_", "ERL_", "PG", "NOTIFY_SOCKET", "LISTEN_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    return kept | ours


def last_lines(*files: Path, count: int = 15) -> str:
    """Give the end of the first of *files* that has any text, to be quoted in an error."""
    for file in files:
        with contextlib.suppress(OSError):
            lines = file.read_text(errors="replace").splitlines()
            if lines:
                return "\n".join(lines[-count:])
    return "(it wrote nothing)"
