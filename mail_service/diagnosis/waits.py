"""How long the other side asks us to wait: ``Retry-After``, and what servers write into their replies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final

#: a week; nobody who asks for more means it
LONGEST_S: Final = 7 * 86_400.0
#: seconds for a quota that says nothing else. AWS: "wait for an interval of up to 10 minutes, and then retry"
#: (docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas-errors.html, 2026)
QUOTA_S: Final = 600.0

#: "try again in 5 minutes", "retry after 300 seconds", "please wait 1 hour"
_IN_WORDS = re.compile(
    r"(?:again|retry|back|wait|resend|later|listed|listing|deferred)\b[^.;\n]{0,40}?\b(\d{1,6})\s*(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?)\b",
    re.IGNORECASE,
)
#: "please come back in 00:04:55", as milter-greylist has it
_AS_A_CLOCK = re.compile(r"\b(?:again|retry|back|wait)\b[^;\n]{0,40}?\b(\d{1,2}):(\d{2}):(\d{2})\b", re.IGNORECASE)
_SECONDS: Mapping[str, int] = MappingProxyType({"s": 1, "m": 60, "h": 3600})


def asked_in_text(text: str) -> float | None:
    """Seconds that a reply's text asks for: 300.0 for "greylisted, try again in 5 minutes", else None."""
    if clock := _AS_A_CLOCK.search(text):
        hours, minutes, seconds = (int(part) for part in clock.groups())
        return _bounded(hours * 3600 + minutes * 60 + seconds)
    if words := _IN_WORDS.search(text):
        return _bounded(int(words[1]) * _SECONDS[words[2][0].lower()])
    return None


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """
    Seconds that a ``Retry-After`` header asks for, else None (RFC 9110, 10.2.3: seconds or a date).

    A date is counted from the response's own ``Date``, which is of the same clock, else from *now*.
    """
    value = str(headers.get("Retry-After") or "").strip()
    if not value:
        return None
    try:
        return _bounded(float(value))
    except ValueError:
        until = _date(value)
    start = _date(str(headers.get("Date") or "")) or now or datetime.now(UTC)
    return _bounded((until - start).total_seconds()) if until else None


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _bounded(seconds: float) -> float | None:
    """At least 0, at most a week; None for what is not a number."""
    return min(max(seconds, 0.0), LONGEST_S) if seconds == seconds else None  # noqa: PLR0124 - NaN differs from itself
