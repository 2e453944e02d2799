"""What both of our databases take alike."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection


def printable(text: str) -> str:
    """*text* as every database takes it: PostgreSQL refuses NUL, and none stores half a surrogate pair."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def insert_into(connection: Connection, table: sa.Table) -> Any:
    """An insert that knows ``on conflict``, which both of our databases spell alike."""
    return insert_by(connection.dialect.name, table)


def insert_by(dialect: str, table: sa.Table) -> Any:
    """The same for a dialect by its name."""
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)
