"""
Time as this project writes it down: ISO 8601 in UTC with offset, always 32 characters, so that text sorts like time.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """``2026-11-22T03:03:51.000123+00:00``, always with microseconds."""
    in_utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return in_utc.isoformat(timespec="microseconds")


def now_iso() -> str:
    """This moment as text."""
    return iso(now())


def now_ms() -> int:
    """This moment in milliseconds since the epoch, for AMQP headers."""
    return int(time.time() * 1000)


def from_ms(milliseconds: float) -> datetime:
    """The moment *milliseconds* after the epoch."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def to_ms(moment: datetime) -> int:
    """Milliseconds since the epoch."""
    return int(moment.timestamp() * 1000)


def parse(text: str) -> datetime:
    """ISO 8601 text as a moment; UTC where no offset is given. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def later(seconds: float) -> datetime:
    """The moment *seconds* from now."""
    return now() + timedelta(seconds=seconds)
