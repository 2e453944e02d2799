"""Faults of the database: away, full, locked."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
from sqlalchemy.engine import make_url

from .ground import Ground
from .processes import rounds

#: bytes of a disk that is soon full
SMALL_DISK = 64_000_000
#: PostgreSQL's own error for it (class 53), raised where a write would need another page
_FULL = """
create or replace function disk_full() returns trigger language plpgsql as
$$ begin raise exception 'could not extend file: No space left on device' using errcode = '53100'; end $$;
create trigger disk_full before insert or update on mail execute function disk_full();
create trigger disk_full before insert on attempt execute function disk_full();
"""
_NOT_FULL = "drop trigger if exists disk_full on mail; drop trigger if exists disk_full on attempt"


def kill_postgresql(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Crash the server again and again."""
    assert ground.postgresql
    for _ in rounds(seconds, rng, (0.5, 3)):
        ground.postgresql.kill9()
        time.sleep(rng.uniform(0, 2))
        ground.postgresql.start()


def fill_postgresql(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Let every write fail as on a full disk, while reading goes on."""
    url = ground.service.config["mail"]["database"]
    conninfo = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)

    def run(statements: str) -> None:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(statements.encode())

    ground.on_heal(lambda: run(_NOT_FULL))
    run(_FULL)
    time.sleep(seconds * 0.7)
    run(_NOT_FULL)
    time.sleep(seconds * 0.3)


def lock_sqlite(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Hold the write lock, as a backup or a shell that was left open does; after 30 s nobody waits for it any more."""
    with closing(sqlite3.connect(ground.folder / "mail.db", isolation_level=None, timeout=60)) as connection:
        connection.execute("begin immediate")
        time.sleep(seconds)
        connection.execute("rollback")


def fill_disk(ground: Ground, rng: random.Random, seconds: float) -> None:
    """Leave the SQLite file no room; its folder is a small disk of its own."""
    filler = ground.folder / "filler"
    ground.on_heal(lambda: filler.unlink(missing_ok=True))
    assert os.statvfs(ground.folder).f_blocks * os.statvfs(ground.folder).f_frsize <= SMALL_DISK
    _fill(filler)
    end = time.monotonic() + seconds * 0.7
    while time.monotonic() < end:
        # what a checkpoint gave free
        _fill(filler)
        time.sleep(0.2)
    filler.unlink()
    time.sleep(seconds * 0.3)


def _fill(filler: Path) -> None:
    with filler.open("ab", buffering=0) as file:
        for size in (1_000_000, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as problem:
                if problem.errno != errno.ENOSPC:
                    raise


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A disk of 64 MB below *folder*; None for who may not mount one."""
    mounted = folder / "disk"
    mounted.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SMALL_DISK}", "faults", str(mounted)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], check=False, stderr=subprocess.DEVNULL).returncode:
        yield None
        return
    try:
        yield mounted
    finally:
        # lazily: whoever still has a file there keeps it
        subprocess.run(["umount", "--lazy", str(mounted)], check=True)
