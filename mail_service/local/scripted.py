"""
What the scripted servers share: a process of its own that notes down what happens to it, and obeys rules in a file.

The folder has ``rules.json``, which may be replaced at any time, and ``log.jsonl``, one line for each thing that
happened.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from .process import Child, environment, last_lines

Entry = TypeVar("Entry")


class ScriptedServer(Generic[Entry]):
    """
    The process of a server, as a context manager.

    Args:
        entry: Makes an entry of the log of what stands in one line of it.
        folder: Where the log goes; a temporary one by default, removed at the end.
        port: 0 lets the system choose one. The port stays the same when it is started again.
        settings: What the program takes as ``--settings``.
    """

    host = "127.0.0.1"
    #: for people: ``SMTP``
    kind: ClassVar[str]
    #: run as ``python -m MODULE FOLDER --port N --settings JSON``; prints one JSON line with its port
    module: ClassVar[str]

    def __init__(
        self,
        entry: Callable[[dict[str, Any]], Entry],
        *,
        folder: Path | None,
        port: int,
        settings: Mapping[str, object],
    ) -> None:
        self.port = port
        self._settings = settings
        self._temporary = folder is None
        self._folder = folder or Path(tempfile.mkdtemp(prefix="scripted-server-"))
        self._folder.mkdir(parents=True, exist_ok=True)
        self._child: Child | None = None
        self._log = LogReader(self._folder / "log.jsonl", entry)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clean_up()

    def start(self, *, timeout_s: float = 30) -> None:
        """Start it, also again after ``stop`` or ``kill9``: the port, the rules and the log stay."""
        output = self._folder / "output"
        path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
        argv = [sys.executable, "-m", self.module, str(self._folder.absolute()), "--port", str(self.port)]
        settings = ["--settings", json.dumps(dict(self._settings))]
        self._child = Child([*argv, *settings], env=environment(PYTHONPATH=path), output=output)
        deadline = time.monotonic() + timeout_s
        while not (said := output.read_text()).endswith("}\n"):
            if not self._child.is_alive or time.monotonic() > deadline:
                self._child.stop()
                raise OSError(f"The {self.kind} server did not start:\n{last_lines(output)}")
            time.sleep(0.01)
        self.port = json.loads(said)["port"]

    def stop(self) -> None:
        self._running.stop(grace_s=5)

    def kill9(self) -> None:
        self._running.kill9()

    def pause(self) -> None:
        """Let it hang: connections are taken by the system and nothing answers."""
        self._running.pause()

    def resume(self) -> None:
        self._running.resume()

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def is_alive(self) -> bool:
        return self._child is not None and self._child.is_alive

    @property
    def _running(self) -> Child:
        if self._child is None:
            raise OSError(f"This {self.kind} server was never started.")
        return self._child

    def _write_rules(self, rules: Iterable[Mapping[str, object]]) -> None:
        new = self._folder / "rules.new"
        new.write_text(json.dumps(list(map(dict, rules))))
        new.replace(self._folder / "rules.json")

    def _clean_up(self) -> None:
        if self._child:
            self._child.stop(grace_s=5)
        if self._temporary:
            shutil.rmtree(self._folder, ignore_errors=True)


class LogReader(Generic[Entry]):
    """Reads a growing log, each line once."""

    def __init__(self, path: Path, entry: Callable[[dict[str, Any]], Entry]) -> None:
        self._path = path
        self._entry = entry
        self._offset = 0
        self._entries: list[Entry] = []

    def all(self) -> list[Entry]:
        """Give every entry so far, in order."""
        self._read()
        return list(self._entries)

    def take(self) -> list[Entry]:
        """Give what was written since the last time, and keep none of it."""
        self._read()
        taken, self._entries = self._entries, []
        return taken

    def _read(self) -> None:
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as log:
            log.seek(self._offset)
            new = log.read()
            # the last line may be half written
            whole = new[: new.rfind(b"\n") + 1]
            self._offset += len(whole)
            self._entries += [self._entry(json.loads(line)) for line in whole.splitlines()]

    def forget(self) -> None:
        """Leave out what was written up to now."""
        self.all()
        self._entries.clear()


class LogWriter:
    """Appends one JSON line for each entry; a single write and no fsync, so it outlives us, not the machine."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, **values: object) -> None:
        self._file.write(json.dumps({"time": time.time(), **values}).encode() + b"\n")


class RulesFile:
    """The rules as they were written last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int] | None = None

    def changed(self) -> list[dict[str, Any]] | None:
        """Give the rules if they were replaced since the last call, else None."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        version = (found.st_ino, found.st_mtime_ns)
        if version == self._version:
            return None
        self._version = version
        rules: list[dict[str, Any]] = json.loads(self._path.read_text())
        return rules
