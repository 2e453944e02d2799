"""Hazards 31 to 33: neither database keeps the event loop waiting, and mails do not wait for each other."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from mail_service.local.smtp_server import Rule, SmtpServer
from tests.support.service import ROOT

from .stacks import both

#: of one lock; a loop that runs has some hundred ticks in it, on a machine with too much to do a dozen; one that is
#: blocked has two at most
LOCK_S = 2
FEWEST_TICKS = 4


def program(module: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-m", module, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ticks(stack: str, url: str, release: Any) -> int:
    """Of an event loop that waits for a lock until *release* is called, two seconds later."""
    with program("tests.hazards.ticking", stack, url) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != "waiting\n":
            raise RuntimeError(process.stderr.read())
        # the length of the lock is what the experiment is about
        time.sleep(LOCK_S)
        release()
        said, complaint = process.communicate(timeout=30)
        if process.returncode:
            raise RuntimeError(complaint)
        return int(said)


@contextmanager
def locked_sqlite(path: Path) -> Iterator[Any]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table lock (n integer)")
        connection.execute("begin immediate")
        yield lambda: connection.execute("commit")


@contextmanager
def locked_postgresql(url: str) -> Iterator[Any]:
    conninfo = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("create table lock (n integer)")
        connection.execute("insert into lock values (1)")
        connection.execute("begin")
        connection.execute("update lock set n = 2")
        yield lambda: connection.execute("commit")


@both("32: SQLite blocks the event loop")
def test_a_locked_sqlite_file_does_not_stop_the_event_loop(stack: str, tmp_path: Path) -> None:
    with locked_sqlite(tmp_path / "mail.db") as release:
        assert ticks(stack, f"sqlite:///{tmp_path / 'mail.db'}", release) > FEWEST_TICKS


@both("31: psycopg blocks the event loop")
def test_a_lock_in_postgresql_does_not_stop_the_event_loop(stack: str, postgresql_url: str) -> None:
    with locked_postgresql(postgresql_url) as release:
        assert ticks(stack, postgresql_url, release) > FEWEST_TICKS


@both("33: one shared SMTP backend sends one mail after the other")
def test_mails_are_sent_at_the_same_time_over_connections_that_are_kept(stack: str, smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at="end", hang_s=0.2))
    with program("tests.hazards.concurrent_smtp", stack, smtp_server.port) as process:
        _, complaint = process.communicate(timeout=60)
    if process.returncode:
        raise RuntimeError(complaint)

    fired, accepted = smtp_server.fired(), smtp_server.accepted()
    assert len(accepted) == 20
    first = min(mail.time for mail in accepted)
    assert sum(begun.time < first for begun in fired) > 1, "no two at the same time"
    assert {mail.connection for mail in accepted[10:]} <= {mail.connection for mail in accepted[:10]}, "not kept"
