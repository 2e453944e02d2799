from __future__ import annotations

import os
from pathlib import Path

import psycopg

from tests.support.postgresql import Postgresql


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("+psycopg", ""), connect_timeout=5)


def test_a_committed_row_survives_kill_9(postgresql: Postgresql, postgresql_url: str) -> None:
    with connect(postgresql_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")

    postgresql.kill9()
    postgresql.start()

    with connect(postgresql_url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_each_test_has_a_database_of_its_own(postgresql: Postgresql, postgresql_url: str) -> None:
    assert postgresql.fresh_database() != postgresql_url
    with connect(postgresql_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_nothing_is_left_of_a_server() -> None:
    with Postgresql() as server:
        folder, pid = server.folder, server.pid

    assert not folder.exists()
    assert not Path(f"/proc/{pid}").exists()


def test_the_server_never_runs_as_root(postgresql: Postgresql) -> None:
    assert Path(f"/proc/{postgresql.pid}").stat().st_uid != 0 or os.geteuid() != 0
