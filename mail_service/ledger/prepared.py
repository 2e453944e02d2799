"""
Statements that every mail runs, compiled once.

SQLAlchemy takes longer to build a statement, and to find it among those it has compiled before, than SQLite takes to
run it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

#: rows in one statement: each number of rows is compiled, and kept, by itself
MOST_ROWS = 32


class Prepared:
    """
    A statement about some rows at a time.

    Args:
        build: Makes it, given the dialect's name and the number of rows; a parameter of the third row ends in ``_m2``.
    """

    def __init__(self, build: Callable[[str, int], sa.ClauseElement]) -> None:
        self._build = build
        self._compiled: dict[tuple[str, int], _Compiled] = {}

    def run(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[sa.Row[Any]]:
        """Run it for *rows*; answers what it returns."""
        return [found for start in range(0, len(rows), MOST_ROWS) for found in self._run(connection, rows, start)]

    def _run(self, connection: Connection, rows: Sequence[Mapping[str, Any]], start: int) -> Sequence[sa.Row[Any]]:
        count = min(len(rows) - start, MOST_ROWS)
        key = (connection.dialect.name, count)
        compiled = self._compiled.get(key)
        if compiled is None:
            statement = self._build(connection.dialect.name, count)
            compiled = self._compiled[key] = _Compiled(statement.compile(dialect=connection.dialect))
        result = connection.exec_driver_sql(compiled.text, compiled.parameters(rows, start))
        return result.all() if result.returns_rows else ()


class _Compiled:
    def __init__(self, compiled: Any) -> None:
        self.text = str(compiled)
        #: the parameters by position, or None where they go by name
        self._by_position: list[tuple[str, int]] | None = None
        if compiled.positiontup is not None:
            self._by_position = [_column_and_row(name) for name in compiled.positiontup]
        self._by_name = {name: _column_and_row(name) for name in compiled.params}

    def parameters(self, rows: Sequence[Mapping[str, Any]], start: int) -> tuple[Any, ...] | dict[str, Any]:
        if self._by_position is not None:
            return tuple(rows[start + row][column] for column, row in self._by_position)
        return {name: rows[start + row][column] for name, (column, row) in self._by_name.items()}


def _column_and_row(parameter: str) -> tuple[str, int]:
    column, _, row = parameter.rpartition("_m")
    return column, int(row)


def each(column: str, count: int) -> Iterator[Any]:
    """The parameters for one column of so many rows, in their order."""
    return (sa.bindparam(f"{column}_m{row}") for row in range(count))
