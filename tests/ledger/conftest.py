"""A ledger on each of the two databases. Nothing is monkey-patched here: Database works in any program."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mail_service.ledger import Ledger
from mail_service.ledger.database import Database
from mail_service.ledger.errorlog import ErrorLog


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The SQLAlchemy URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'mail.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database, attempt_timeout_s=120)


@pytest.fixture
def error_log(database: Database) -> ErrorLog:
    return ErrorLog(database)
