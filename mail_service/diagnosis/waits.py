"""How long the other side asks us to wait: in header fields of HTTP, and in what servers write into their replies."""

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
#: seconds for a recipient who gets too much mail just now, where the server names none; ours
RECIPIENT_S: Final = 300.0
#: a regular expression for texts that speak about a quota rather than a rate
QUOTA_TEXT: Final = r"\b(daily|monthly|per\s+day|per\s+month)\b|quota"

#: "try again in 5 minutes", "retry after 300 seconds", "please wait 1 hour"
_IN_WORDS = re.compile(
    r"(?:again|retry|back|wait|resend|later|listed|listing|deferred)\b[^.;\n]{0,40}?\b(\d{1,6})\s*(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?)\b",
    re.IGNORECASE,
)
#: "please come back in 00:04:55", as milter-greylist has it
_AS_A_CLOCK = re.compile(r"\b(?:again|retry|back|wait)\b[^;\n]{0,40}?\b(\d{1,2}):(\d{2}):(\d{2})\b", re.IGNORECASE)
_SECONDS: Mapping[str, int] = MappingProxyType({"s": 1, "m": 60, "h": 3600})

#: header fields that say when a limit begins anew, and those that say how much of it is left: the IETF's draft and
#: Resend; SendGrid, MailerSend and many others; Brevo
_RATES: Final = (
    ("ratelimit-reset", "ratelimit-remaining"),
    ("x-ratelimit-reset", "x-ratelimit-remaining"),
    ("x-rate-limit-reset", "x-rate-limit-remaining"),
    ("x-sib-ratelimit-reset", "x-sib-ratelimit-remaining"),
)
#: the same of a daily quota: MailerSend, whose reset is an ISO 8601 time (developers.mailersend.com/general, 2026)
_QUOTAS: Final = (("x-apiquota-reset", "x-apiquota-remaining"),)
#: statuses that mean that a limit was hit, whatever is left of another
_LIMITED: Final = frozenset({420, 429})
#: a number above is seconds since 1970, one above the second milliseconds; below, seconds from now
_EPOCH, _EPOCH_MS = 1e9, 1e11


def asked_in_text(text: str) -> float | None:
    """Seconds that a reply's text asks for: 300.0 for "greylisted, try again in 5 minutes", else None."""
    if clock := _AS_A_CLOCK.search(text):
        hours, minutes, seconds = (int(part) for part in clock.groups())
        return _bounded(hours * 3600 + minutes * 60 + seconds)
    if words := _IN_WORDS.search(text):
        return _bounded(int(words[1]) * _SECONDS[words[2][0].lower()])
    return None


def asked_in_headers(
    status: int, headers: Mapping[str, str], now: datetime | None = None, *, is_quota: bool = False
) -> float | None:
    """
    Seconds that an answer's header fields ask for, else None.

    ``Retry-After`` counts first (RFC 9110, 10.2.3: seconds or a date). Else a limit's reset, which most APIs send with
    every answer: only of a limit of which nothing is left, or when *status* says that one was hit. A time is counted
    from the answer's own ``Date``, which is of the same clock, else from *now*.

    Args:
        headers: Names in lower case.
        is_quota: The answer is about a daily or monthly quota, so the reset of a rate is not what it asks for.
    """
    start = _date(headers.get("date", "")) or now or datetime.now(UTC)
    asked_s = _seconds(headers.get("retry-after", ""), start)
    if asked_s is not None:
        return asked_s
    limits = _QUOTAS if is_quota else (*_RATES, *_QUOTAS)
    resets = {
        remaining: seconds
        for reset, remaining in limits
        if (seconds := _seconds(headers.get(reset, ""), start)) is not None
    }
    used_up = [seconds for remaining, seconds in resets.items() if _is_zero(headers.get(remaining, ""))]
    if used_up:
        return max(used_up)
    return next(iter(resets.values()), None) if status in _LIMITED else None


def _is_zero(value: str) -> bool:
    try:
        return float(value) <= 0
    except ValueError:
        return False


def _seconds(value: str, start: datetime) -> float | None:
    """Seconds from *start* that *value* means: a number of seconds, a number since 1970, or a date."""
    value = value.strip()
    try:
        number = float(value)
    except ValueError:
        until = _date(value)
        return _bounded((until - start).total_seconds()) if until else None
    if number > _EPOCH:
        number = number / (1000 if number > _EPOCH_MS else 1) - start.timestamp()
    return _bounded(number)


def _date(value: str) -> datetime | None:
    """A date as HTTP has it, or ISO 8601."""
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = parse(value)
        except (ValueError, TypeError, IndexError):
            continue
        return date if date.tzinfo else date.replace(tzinfo=UTC)
    return None


def _bounded(seconds: float) -> float | None:
    """At least 0, at most a week; None for what is not a number."""
    return min(max(seconds, 0.0), LONGEST_S) if seconds == seconds else None  # noqa: PLR0124 - NaN differs from itself
