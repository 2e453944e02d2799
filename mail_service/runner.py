"""
``mail-service run``: a supervisor and N processes, each a nameko service runner with all doors and lanes.

The supervisor starts a process again when it ends, and ends one whose event loop has stood still for a minute (code
that never yields cannot be stopped from inside). It imports neither eventlet nor nameko. Two pipes join it to each
process: one that closes when the supervisor is gone, however it went, and one over which the process says that it is
alive.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn

from mail_service.errors import ConfigurationError
from mail_service.settings import load_config_file, load_settings
from mail_service.web.folder import shared_folder

#: sysexits.h's EX_CONFIG: to start it again would not help
EXIT_CONFIGURATION = 78
#: after SIGTERM; a process that is still there then is killed
STOP_WITHIN_S = 30
#: without a sign of life
STUCK_AFTER_S = 60
BEAT_S = 1
#: A process that lived longer than this is started again at once, others after a pause that doubles.
HEALTHY_AFTER_S = 10
LONGEST_PAUSE_S = 30
#: mallopt(3): by itself glibc learns from the first large mail to keep the memory of all that come later
_KEEPS_NOTHING_LARGE = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "4194304"}
#: new objects, of those that may be part of a cycle, until the youngest are looked through; Python's default is 700
CYCLES_AFTER = 20_000


def run(config_path: str, processes: int) -> int:
    """Run until SIGTERM or SIGINT; answers the exit status. Raises ConfigurationError before anything is started."""
    config = load_config_file(config_path)
    load_settings(config)
    with shared_folder(config) as environment:
        return _Supervisor(config_path, processes, environment).run()


def drain(config_path: str, **limits: Any) -> dict[str, int]:
    """
    Deliver what is due, once, in this process; see ``draining``. Raises ConfigurationError, or Unavailable.
    """
    import eventlet

    eventlet.monkey_patch()
    config = load_config_file(config_path)
    _configure_logging(config)
    from mail_service.doors import draining

    return draining.drain(config, **limits)


@dataclass(slots=True)
class _Child:
    """A process and our ends of its pipes."""

    number: int
    process: subprocess.Popen[bytes]
    leash: int
    beats: int
    started: float = field(default_factory=time.monotonic)
    seen: float = field(default_factory=time.monotonic)

    def close(self) -> None:
        os.close(self.leash)
        os.close(self.beats)


class _Supervisor:
    def __init__(self, config_path: str, processes: int, environment: Mapping[str, str]) -> None:
        self._config_path = config_path
        self._environment = {**_KEEPS_NOTHING_LARGE, **environment}
        self._children: dict[int, _Child] = {}
        self._due: dict[int, float] = dict.fromkeys(range(processes), 0.0)
        self._pauses: dict[int, float] = {}
        self._stopping_since: float | None = None
        self._exit_status = 0
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        while self._stopping_since is None or self._children:
            self._start_due()
            self._listen()
            self._look_after()
        return self._exit_status

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._stopping_since is None:
            self._stopping_since = time.monotonic()
            for child in list(self._children.values()):
                child.process.terminate()

    def _start_due(self) -> None:
        for number, due in list(self._due.items()):
            if self._stopping_since is None and due <= time.monotonic():
                del self._due[number]
                self._start(number)

    def _start(self, number: int) -> None:
        leash_theirs, leash_ours = os.pipe()
        beats_ours, beats_theirs = os.pipe()
        command = [sys.executable, "-m", __name__, self._config_path, str(leash_theirs), str(beats_theirs)]
        # a session of its own: Ctrl-C reaches the supervisor alone, which stops the processes in good order
        process = subprocess.Popen(
            command, pass_fds=(leash_theirs, beats_theirs), start_new_session=True, env=self._environment
        )
        os.close(leash_theirs)
        os.close(beats_theirs)
        os.set_blocking(beats_ours, False)
        child = _Child(number, process, leash_ours, beats_ours)
        self._children[number] = child
        self._selector.register(beats_ours, selectors.EVENT_READ, child)
        _say(f"process {number} started, pid {process.pid}")
        if self._stopping_since is not None:
            process.terminate()

    def _listen(self) -> None:
        if not self._children:
            time.sleep(0.1)
        for key, _ in self._selector.select(timeout=0.2):
            if os.read(key.fd, 4096):
                key.data.seen = time.monotonic()
            else:
                # it closed its end: the process is about to be gone
                self._selector.unregister(key.fd)

    def _look_after(self) -> None:
        now = time.monotonic()
        for child in list(self._children.values()):
            if (status := child.process.poll()) is not None:
                self._bury(child, status)
            elif self._stopping_since is not None and now - self._stopping_since > STOP_WITHIN_S:
                _say(f"process {child.number} did not stop within {STOP_WITHIN_S} s and is killed")
                self._exit_status = 1
                child.process.kill()
            elif now - child.seen > STUCK_AFTER_S:
                _say(f"process {child.number} has stood still for {STUCK_AFTER_S} s and is killed")
                child.seen = now
                child.process.kill()

    def _bury(self, child: _Child, status: int) -> None:
        if child.beats in self._selector.get_map():
            self._selector.unregister(child.beats)
        child.close()
        del self._children[child.number]
        if self._stopping_since is not None:
            # one that was still starting has no handler yet, and nothing in flight
            self._exit_status = self._exit_status or (0 if status in (0, -signal.SIGTERM) else 1)
            return
        if status == EXIT_CONFIGURATION:
            self._exit_status = 1
            self._stop()
            return
        pause_s = self._pause(child)
        _say(f"process {child.number} ended with status {status} and is started again in {pause_s:g} s")
        self._due[child.number] = time.monotonic() + pause_s

    def _pause(self, child: _Child) -> float:
        lived_s = time.monotonic() - child.started
        before_s = self._pauses.get(child.number, 0.0)
        pause_s = 0.0 if lived_s > HEALTHY_AFTER_S else min(LONGEST_PAUSE_S, before_s * 2 or 0.5)
        self._pauses[child.number] = pause_s
        return pause_s


def _say(sentence: str) -> None:
    print(f"mail-service: {sentence}", file=sys.stderr, flush=True)


def _run_child(config_path: str, leash: int, beats: int) -> int:
    """One process: what ``nameko run --config … mail_service.service`` does, on the supervisor's leash."""
    import eventlet

    eventlet.monkey_patch()
    config = load_config_file(config_path)
    _configure_logging(config)
    try:
        from mail_service import service

        _look_for_cycles_seldom()
        eventlet.spawn_n(_follow, leash)
        eventlet.spawn_n(_beat, beats)
        _serve([service.MailService, service.HighLane, service.NormalLane, service.BulkLane, service.Web], config)
    except ConfigurationError as exc:
        _say(str(exc))
        return EXIT_CONFIGURATION
    return 0


def _look_for_cycles_seldom() -> None:
    """What is loaded by now stays, and a mail leaves next to nothing that only the cyclic collector would free."""
    gc.freeze()
    gc.set_threshold(CYCLES_AFTER, 20, 20)


def _serve(services: Sequence[type], config: Mapping[str, Any]) -> None:
    """
    Run until SIGTERM. As nameko's own ``run``, which ends with an error when it is told to stop while it still starts.
    """
    import eventlet
    from nameko.runners import ServiceRunner

    runner = ServiceRunner(dict(config))
    for service in services:
        runner.add_service(service)
    stops: list[Any] = []
    # a signal handler must not wait, so it leaves that to a greenlet
    signal.signal(signal.SIGTERM, lambda _number, _frame: stops.append(eventlet.spawn(runner.stop)))
    try:
        runner.start()
        eventlet.spawn(runner.wait).wait()
    except Exception:
        if not stops:
            raise
        # some of its containers may have mail in flight
        with contextlib.suppress(Exception):
            stops[0].wait()


def _configure_logging(config: Mapping[str, Any]) -> None:
    import logging.config

    if "LOGGING" in config:
        logging.config.dictConfig(dict(config["LOGGING"]))
    else:
        logging.basicConfig(level=logging.INFO, format="%(message)s")


def _follow(leash: int) -> None:
    """Stop when the supervisor is gone: then the other end of the pipe is closed."""
    from eventlet.hubs import trampoline

    trampoline(leash, read=True)
    os.kill(os.getpid(), signal.SIGTERM)


def _beat(beats: int) -> None:
    import eventlet

    os.set_blocking(beats, False)
    while True:
        try:
            os.write(beats, b".")
        except OSError:
            return
        eventlet.sleep(BEAT_S)


def _main() -> NoReturn:
    config_path, leash, beats = sys.argv[1:]
    sys.exit(_run_child(config_path, int(leash), int(beats)))


if __name__ == "__main__":
    _main()
