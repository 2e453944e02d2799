"""A private PostgreSQL for tests: own folder and port, loopback only, stopped by its own pid."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
import psycopg.sql

from mail_service.local.packages import install
from mail_service.local.process import Child, environment, free_port, last_lines


class NoPostgresql(Exception):
    """There is no PostgreSQL server on this machine and none could be installed."""


class Postgresql:
    """
    A server, as a context manager. ``start`` after ``stop`` or ``kill9`` has the same data and port.

    Durable against the end of the server (kill -9), not of the machine: fsync is off.
    """

    def __init__(self) -> None:
        self._programs = _programs()
        # the server refuses to run as root
        self._user = _other_user() if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self._numbers = itertools.count(1)
        self._child: Child | None = None
        self.port = 0

    def __enter__(self) -> Self:
        try:
            self._initialise()
            self.start()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clean_up()

    def fresh_database(self) -> str:
        """Make an empty database and give its SQLAlchemy URL."""
        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            # the name is ours, and an identifier cannot be a parameter
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def is_alive(self) -> bool:
        return self._child is not None and self._child.is_alive

    def start(self, *, timeout_s: float = 60) -> None:
        """Start it and return when it answers."""
        self.port = self.port or free_port()
        deadline = time.monotonic() + timeout_s
        while not self._came_up(deadline):
            # the processes of a server that was killed hold its shared memory for a moment
            if time.monotonic() > deadline:
                raise NoPostgresql(f"PostgreSQL did not start:\n{last_lines(self.folder / 'output')}")
            time.sleep(0.1)

    def speak_tls(self, certificate: Path, key: Path) -> None:
        """Show *certificate* to whoever connects from now on."""
        own = {"ssl_cert_file": self.folder / "server.pem", "ssl_key_file": self.folder / "server.key"}
        for given, copy in zip((certificate, key), own.values(), strict=True):
            copy.write_bytes(given.read_bytes())
            # it refuses a key that others can read
            copy.chmod(0o600)
            if self._user:
                os.chown(copy, self._user.pw_uid, self._user.pw_gid)
        self._set({**{name: str(path) for name, path in own.items()}, "ssl": "on"})

    def speak_plainly(self) -> None:
        self._set({"ssl": "off"})

    def _set(self, settings: Mapping[str, str]) -> None:
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            for name, value in settings.items():
                statement = psycopg.sql.SQL("ALTER SYSTEM SET {} = {}")
                connection.execute(statement.format(psycopg.sql.Identifier(name), psycopg.sql.Literal(value)))
            before = connection.execute("SELECT pg_conf_load_time()").fetchone()
            connection.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            # a process of its own each time, since each reads the settings when it gets round to it
            with psycopg.connect(self._conninfo("postgres")) as connection:
                if connection.execute("SELECT pg_conf_load_time()").fetchone() != before:
                    return
            time.sleep(0.02)
        raise NoPostgresql("PostgreSQL did not read its settings again.")

    def stop(self) -> None:
        self._running.stop()

    def kill9(self) -> None:
        self._running.kill9()

    def pause(self) -> None:
        """Keep it from taking connections; those that are open have processes of their own and go on."""
        self._running.pause()

    def resume(self) -> None:
        self._running.resume()

    @property
    def _running(self) -> Child:
        if self._child is None:
            raise NoPostgresql("This PostgreSQL was never started.")
        return self._child

    def _initialise(self) -> None:
        if self._user:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        command = [str(self._programs / "initdb"), "--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8"]
        subprocess.run(
            [*command, "--locale=C.UTF-8", "-D", str(self.folder / "data")],
            check=True,
            cwd="/",
            env=environment(),
            stdout=subprocess.DEVNULL,
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
        )

    def _came_up(self, deadline: float) -> bool:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "max_connections": 200,
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        self._child = Child(
            [str(self._programs / "postgres"), "-D", str(self.folder / "data"), *options],
            env=environment(),
            output=self.folder / "output",
            uid=self._user.pw_uid if self._user else None,
            gid=self._user.pw_gid if self._user else None,
        )
        while self._child.is_alive and time.monotonic() < deadline:
            try:
                psycopg.connect(self._conninfo("postgres"), connect_timeout=2).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return True
        self._child.stop()
        return False

    def _conninfo(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={database}"

    def _clean_up(self) -> None:
        if self._child:
            self._child.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _programs() -> Path:
    found = _installed()
    if found is None and install("postgresql"):
        found = _installed()
    if found is None:
        raise NoPostgresql("There is no PostgreSQL server. Install the package postgresql.")
    return found


def _installed() -> Path | None:
    """Find the newest server: Debian keeps each version's programs outside PATH."""
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if versions:
        return max(versions, key=lambda path: int(path.parent.name))
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def _other_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoPostgresql("PostgreSQL refuses to run as root, and there is no user postgres or nobody.")
