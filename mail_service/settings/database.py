"""Reads ``mail.database``: a URL of one of the two databases that the service knows how to use."""

from __future__ import annotations

import re
from typing import Final

from mail_service.settings.reading import Section, nearest

_POSTGRESQL: Final = "postgresql+psycopg"
#: what people write when they mean psycopg 3 or do not mind; SQLAlchemy would look for psycopg2 with the first two
_UPGRADED: Final = frozenset({"postgres", "postgresql", "psql", "pgsql"})
_SQLITE: Final = frozenset({"sqlite", "sqlite+pysqlite"})
_URL: Final = re.compile(r"(?P<dialect>[A-Za-z][\w+.-]*)://(?P<rest>.*)", re.DOTALL)
_EXPECTED: Final = "a URL like sqlite:///var/mail_service.db or postgresql+psycopg://user:password@host/name"


def read_url(mail: Section, default: str) -> str:
    """The URL, with ``+psycopg`` added where PostgreSQL's driver was left out. Its value is in no message."""
    url = mail.text("database", default, what=_EXPECTED)
    match = _URL.fullmatch(url.strip())
    problem = _problem(match)
    if problem is not None:
        mail.mistakes.add(mail.at("database"), problem)
    if match is None or match["dialect"].lower() not in _UPGRADED:
        return url.strip()
    return f"{_POSTGRESQL}://{match['rest']}"


def _problem(match: re.Match[str] | None) -> str | None:
    if match is None:
        return f"expected {_EXPECTED}, got something without ://"
    dialect = match["dialect"].lower()
    if dialect in _SQLITE:
        return _sqlite_problem(match["rest"])
    if dialect in _UPGRADED or dialect == _POSTGRESQL:
        return _postgresql_problem(match["rest"])
    if dialect.startswith("postgres"):
        return f"the driver {dialect.partition('+')[2]} is not supported; write {_POSTGRESQL}://"
    if dialect.startswith("sqlite"):
        return f"the driver {dialect.partition('+')[2]} is not supported; write sqlite:///"
    return f"{dialect} is not supported; {nearest(dialect, ['sqlite', _POSTGRESQL])}"


def _sqlite_problem(rest: str) -> str | None:
    if not rest.startswith("/"):
        missing = "a file's name is missing" if not rest else "three slashes come before a file's name"
        return f"{missing}: sqlite:///var/mail_service.db (four slashes: sqlite:////srv/mail.db, from the root)"
    file = rest[1:].partition("?")[0]
    if not file or file == ":memory:" or "mode=memory" in rest:
        return "a database in memory forgets all mail at a restart; name a file: sqlite:///var/mail_service.db"
    return None


def _postgresql_problem(rest: str) -> str | None:
    # SQLAlchemy decides; imported only when asked, since it takes longer than all the rest together
    from sqlalchemy.engine import make_url  # noqa: PLC0415
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        port = make_url(f"{_POSTGRESQL}://{rest}").port
    except (ArgumentError, ValueError):
        return f"expected {_POSTGRESQL}://user:password@host:port/name (is a special character to be %-escaped?)"
    return None if port is None or 0 < port < 65536 else f"expected a port from 1 to 65535, got {port}"
