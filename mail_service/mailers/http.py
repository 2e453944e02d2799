"""
``http_retry``: urllib3's ``Retry`` on the session of a backend built on requests, for repeats inside one attempt.

Its words mean what they mean in urllib3, with two differences. What is not named is not repeated, connecting excepted:
urllib3's own defaults repeat ten times whatever seems safe. And no wait goes beyond the attempt's time: one that is cut
off by ``attempt_timeout`` would turn a mail that was certainly not sent into one that perhaps was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import requests
from urllib3 import BaseHTTPResponse
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import InvalidHeader, MaxRetryError, ResponseError
from urllib3.util import Retry

#: how often what is repeated is repeated, when neither its own word nor ``total`` says so
DEFAULT_REPEATS: Final = 2
#: seconds for connecting, and for each wait for the answer, of a backend without a timeout; Anymail's default
DEFAULT_TIMEOUT_S: Final = 30.0

_COUNTS: Final = ("connect", "read", "redirect", "status", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The time that an attempt has, in seconds."""

    #: on the clock
    ends_at: float
    #: what another try may take
    try_s: float
    clock: Callable[[], float] = time.monotonic

    def allows(self, wait_s: float) -> bool:
        """Whether another try after *wait_s* could end in time."""
        return self.clock() + wait_s + self.try_s <= self.ends_at


class BoundedRetry(Retry):
    """Gives up at once, with the error that it met, where another try could not end in time."""

    budget: Budget

    def new(self, **changes: Any) -> BoundedRetry:
        """See urllib3, which makes a new one at each step."""
        following = super().new(**changes)
        following.budget = self.budget
        return following

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> BoundedRetry:
        """See urllib3."""
        following = super().increment(method, url, response, error, _pool, _stacktrace)
        if not self.budget.allows(following.longest_wait_s(response)):
            reason = error or ResponseError(ResponseError.GENERIC_ERROR)
            # urllib3 raises it without a pool as well, and only shows it
            raise MaxRetryError(_pool, url, reason) from reason  # type: ignore[arg-type]
        return following

    def parse_retry_after(self, retry_after: str) -> float:
        """See urllib3. What cannot be read says nothing, instead of ending the attempt with an error of its own."""
        try:
            return super().parse_retry_after(retry_after)
        except (InvalidHeader, ValueError, OverflowError):
            return 0.0

    def longest_wait_s(self, response: BaseHTTPResponse | None) -> float:
        """Seconds that ``sleep`` may take."""
        asked_s = self.get_retry_after(response) if response is not None and self.respect_retry_after_header else None
        return asked_s or self.get_backoff_time() + self.backoff_jitter


def words(configured: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the arguments for ``Retry`` that *configured*, the setting ``http_retry``, stands for.

    A ``status_forcelist`` names ``status`` as well. A count of null, in urllib3 "as often as the others allow", is as
    one left out: without ``total`` it would be for ever. No methods are all methods, as in urllib3 2.
    """
    named = {word: value for word, value in configured.items() if value is not None or word not in _COUNTS}
    total = named.get("total")
    repeats = DEFAULT_REPEATS if total is None else total
    by_status = "status_forcelist" in named
    if "allowed_methods" in named:
        # urllib3 compares in upper case, and is about to change what an empty list means
        named["allowed_methods"] = [method.upper() for method in named["allowed_methods"] or ()] or None
    return {
        "total": None,
        "connect": repeats,
        # False lets the error out as it is, as requests does by default; 0 would put another one around it
        "read": False,
        "status": repeats if by_status else 0,
        "other": 0,
        # raised, the last answer's status would be lost, which says what to do next
        "raise_on_status": False,
        # else a 413, 429 or 503 that has the header would be repeated without having been named
        "respect_retry_after_header": by_status,
    } | named


def mount(session: requests.Session, configured: Mapping[str, Any], budget: Budget) -> None:
    """Let *session* repeat as *configured*, whatever adapters it has; else they stay as whoever made it wanted them."""
    retry = BoundedRetry(**words(configured))
    retry.budget = budget
    for adapter in session.adapters.values():
        if isinstance(adapter, requests.adapters.HTTPAdapter):
            adapter.max_retries = retry


def timeouts(configured: object, attempt_s: float) -> tuple[float, float] | None:
    """
    Return the seconds for connecting and for each wait for the answer, as *configured* but within an attempt.

    ``min(connecting, attempt_s / 2)``, so that who cannot be reached is known to be out of reach, and ``min(reading,
    attempt_s)``. None for what is neither a number nor two of them, which is then requests' business.
    """
    pair = configured if isinstance(configured, tuple | list) else (configured, configured)
    if len(pair) != 2 or not all(one is None or isinstance(one, int | float) for one in pair):
        return None
    connecting_s, reading_s = (DEFAULT_TIMEOUT_S if one is None else one for one in pair)
    return min(connecting_s, attempt_s / 2), min(reading_s, attempt_s)


def budget_of(timeout: tuple[float, float], attempt_s: float, clock: Callable[[], float] = time.monotonic) -> Budget:
    """Return what an attempt has that begins now. A try takes the time to connect, and a quarter of all to answer."""
    connecting_s, reading_s = timeout
    try_s = connecting_s + min(reading_s, attempt_s / 4)
    return Budget(ends_at=clock() + attempt_s, try_s=try_s, clock=clock)
