"""
Two connections to the database, one that writes and one that reads, neither of which ever blocks the event loop.

All database work runs in native threads (eventlet's tpool): SQLite blocks its thread on every lock and fsync, and
psycopg blocks the hub unless told otherwise. Writes are committed in groups: while one transaction is being committed,
whatever else comes in is collected, and is the next one. An fsync is then shared by all workers that wait for it.

Nothing in those threads may log: a logging lock that is held by the hub's thread would never be handed over. The
loggers of SQLAlchemy, Alembic and psycopg are silenced in ``logs.quiet_the_stack``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import alembic.util
import eventlet
import sqlalchemy as sa
from eventlet import tpool
from eventlet.event import Event
from eventlet.semaphore import Semaphore
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import URL, Connection, Engine, make_url

from mail_service.errors import ConfigurationError

_native_threading = eventlet.patcher.original("threading")
_native_time = eventlet.patcher.original("time")

#: more than this many writes in one transaction only make everybody wait longer
LARGEST_GROUP = 500
#: A group of so many is followed by another one, for which others are waited for so long, seconds.
CROWD = 3
GATHER_S = 0.002
BUSY_TIMEOUT_S = 30
#: between looks whether another process still writes, seconds; the pause grows
SHORTEST_PAUSE_S = 0.0003
LONGEST_PAUSE_S = 0.02
CONNECT_TIMEOUT_S = 5


class StoreDown(Exception):
    """The database cannot be reached, is locked or is full. What was to be written is not written."""


#: one write: given an open transaction and all writes of its kind in the group, what each of them answers
Write = Callable[[Connection, Sequence[Any]], Sequence[Any]]


@dataclass(slots=True)
class _Waiting:
    write: Write
    item: Any
    done: Event


class Database:
    """Group commits on one connection, reads on another."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        _make_folder(self._url)
        self._writer = _engine(self._url, writes=True)
        self._reader = _engine(self._url, writes=False)
        self._reading = Semaphore()
        self._queue: list[_Waiting] = []
        self._wake = Event()
        self._migrated = False
        # A native one, for native threads. The pool of one connection would not do: who waits for it is not told when
        # the attempt before has failed to connect, and goes on waiting for 30 s.
        self._migrating = _native_threading.Lock()
        self._committer = eventlet.spawn(self._commit_forever)

    def write(self, write: Write, item: Any) -> Any:
        """
        What *write* answers for *item*, once it is committed. Raises StoreDown, or what *write* raised for this item
        alone.

        Writes of one group run in the order in which their kinds first came in, all items of a kind in one call.
        """
        waiting = _Waiting(write, item, Event())
        self._queue.append(waiting)
        if not self._wake.ready():
            self._wake.send(None)
        return waiting.done.wait()

    def read(self, query: Callable[[Connection], Any]) -> Any:
        """What *query* answers. Raises StoreDown."""
        with self._reading:
            return tpool.execute(self._run_read, query)

    def check(self) -> None:
        """
        Create or migrate the tables. Raises StoreDown, or ConfigurationError if this database is not for this version.
        """
        with self._reading:
            tpool.execute(self._run_read, lambda connection: connection.execute(sa.text("select 1")))

    def close(self) -> None:
        """Close both connections; waits for nothing."""
        self._committer.kill()
        self._writer.dispose()
        self._reader.dispose()

    def _commit_forever(self) -> None:
        while True:
            self._wake.wait()
            self._wake = Event()
            group: list[_Waiting] = []
            while self._queue:
                # those who were just told go on, and many of them come again with their next mail
                eventlet.sleep(GATHER_S if len(group) >= CROWD else 0)
                group, self._queue = self._queue[:LARGEST_GROUP], self._queue[LARGEST_GROUP:]
                for waiting, (answer, problem) in zip(group, tpool.execute(self._run_group, group), strict=True):
                    if problem is not None:
                        waiting.done.send_exception(problem)
                    else:
                        waiting.done.send(answer)

    # Below this line everything runs in a native thread.

    def _run_group(self, group: list[_Waiting]) -> list[tuple[Any, Exception | None]]:
        """An answer or a problem for each, in order. One bad item does not spoil the group: then each runs alone."""
        try:
            return [(answer, None) for answer in self._transaction(group)]
        except StoreDown as exc:
            return [(None, exc)] * len(group)
        except Exception as exc:
            if len(group) == 1:
                return [(None, exc)]
        return [self._run_group([waiting])[0] for waiting in group]

    def _transaction(self, group: list[_Waiting]) -> list[Any]:
        kinds: dict[Write, list[int]] = {}
        for index, waiting in enumerate(group):
            kinds.setdefault(waiting.write, []).append(index)
        answers: list[Any] = [None] * len(group)
        with _StoreTrouble():
            self._migrate()
            with self._writer.begin() as connection:
                for write, indices in kinds.items():
                    for index, answer in zip(indices, write(connection, [group[i].item for i in indices]), strict=True):
                        answers[index] = answer
        return answers

    def _run_read(self, query: Callable[[Connection], Any]) -> Any:
        with _StoreTrouble():
            self._migrate()
            with self._reader.connect() as connection:
                return query(connection)

    def _migrate(self) -> None:
        if self._migrated:
            return
        with self._migrating:
            if not self._migrated:
                self._upgrade()

    def _upgrade(self) -> None:
        config = alembic.config.Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        try:
            with self._writer.begin() as connection:
                if connection.dialect.name == "postgresql":
                    # several processes start at once: the first migrates, the others find it done
                    connection.execute(sa.text("select pg_advisory_xact_lock(7305808869229527910)"))
                config.attributes["connection"] = connection
                alembic.command.upgrade(config, "head")
        except alembic.util.CommandError as exc:
            raise ConfigurationError(
                f"mail.database: its tables were made by another version of mail_service ({exc}). "
                "Install that version or a newer one, or name another database."
            ) from exc
        self._migrated = True


class _StoreTrouble:
    """Turns what a database driver raises when the database is away, locked or full into StoreDown."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, exc: BaseException | None, _traceback: object) -> None:
        trouble = (sa_exc.OperationalError, sa_exc.InterfaceError, sa_exc.TimeoutError, sa_exc.InternalError)
        if isinstance(exc, trouble) or (isinstance(exc, sa_exc.DBAPIError) and exc.connection_invalidated):
            # the statement and its parameters hold addresses: the class name and the first line have to do
            raise StoreDown(
                f"{type(exc).__name__}: {str(getattr(exc, 'orig', None) or exc).splitlines()[0][:200]}"
            ) from None


def _make_folder(url: URL) -> None:
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)


def _engine(url: URL, *, writes: bool) -> Engine:
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url, writes=writes)
    arguments = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "tcp_user_timeout": 20_000,
        "options": "-c statement_timeout=60000 -c lock_timeout=20000 -c idle_in_transaction_session_timeout=120000",
    }
    return sa.create_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=not writes, connect_args=arguments)


def _sqlite_engine(url: URL, *, writes: bool) -> Engine:
    arguments = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    engine = sa.create_engine(url, poolclass=sa.pool.QueuePool, pool_size=1, max_overflow=0, connect_args=arguments)

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("pragma journal_mode = wal")
        # full: a commit is on the disk when it returns. In WAL mode the default, normal, may lose it with the power.
        connection.execute("pragma synchronous = full")
        connection.execute("pragma foreign_keys = on")

        if writes:
            # `_begin_to_write` waits by itself
            connection.execute("pragma busy_timeout = 0")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if writes:
            _begin_to_write(connection)
        else:
            connection.exec_driver_sql("begin")

    return engine


def _begin_to_write(connection: Connection) -> None:
    """
    Wait until no other process writes. A transaction of ours takes a millisecond; SQLite itself would look again after
    1, 3, 8, 18 ms and so on, while a whole group waits.
    """
    driver: Any = connection.connection.driver_connection
    pause_s, end = SHORTEST_PAUSE_S, _native_time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            # a transaction that begins as a reader and wants to write later fails at once when another one writes
            driver.execute("begin immediate")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or _native_time.monotonic() > end:
                # once more, in SQLAlchemy's hands: whoever waits knows its errors
                connection.exec_driver_sql("begin immediate")
                return
        else:
            return
        _native_time.sleep(pause_s)
        pause_s = min(pause_s * 1.2, LONGEST_PAUSE_S)
