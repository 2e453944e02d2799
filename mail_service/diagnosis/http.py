"""
What the HTTP status of a provider's answer means, where no table of the provider itself knows better.

The statuses are those of RFC 9110; what they mean for a mail is what ESPs were seen to do with them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mail_service.diagnosis import waits
from mail_service.diagnosis.context import Context
from mail_service.diagnosis.reading import class_names, described, text_of
from mail_service.outcome import Diagnosis, Kind

#: errors that may carry the status of an answer
_CARRIERS: Final = frozenset(
    {
        "anymail.exceptions.AnymailAPIError",
        "requests.exceptions.HTTPError",
        "urllib.error.HTTPError",
        "httpx.HTTPStatusError",
        "botocore.exceptions.ClientError",
    }
)
_QUOTA: Final = r"\b(daily|monthly|per\s+day|per\s+month)\b|quota"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRow:
    """One line of the table."""

    #: from one to another, both included
    statuses: tuple[tuple[int, int], ...]
    kind: Kind
    #: who says so
    source: str
    #: Anymail's name of the provider; empty for all
    esp: str = ""
    #: a regular expression to be found in the error's text, which has the answer's body
    text: str = ""
    #: seconds, where the answer names none
    wait_s: float | None = None
    certainly_not_sent: bool = True

    def fits(self, status: int, esp: str, text: str) -> bool:
        """Whether this row speaks about such an answer."""
        return (
            any(first <= status <= last for first, last in self.statuses)
            and (not self.esp or self.esp == esp)
            and (not self.text or re.search(self.text, text, re.IGNORECASE) is not None)
        )


def _each(*statuses: int) -> tuple[tuple[int, int], ...]:
    return tuple((status, status) for status in statuses)


_SUCCESS: Final = ((200, 299),)

#: first match wins
ROWS: Final[tuple[StatusRow, ...]] = (
    StatusRow(
        statuses=_SUCCESS,
        text="Mailgun Magnificent API",
        kind=Kind.CONFIGURATION,
        source="anymail/backends/mailgun.py, raise_for_status: a wrong sender domain or API URL is answered like this",
    ),
    StatusRow(
        statuses=_SUCCESS,
        esp="Postal",
        text="InvalidServerAPIKey|AccessDenied|ServerSuspended",
        kind=Kind.CONFIGURATION,
        source="anymail/backends/postal.py: errors come with 200; apiv1.postalserver.io lists their codes",
    ),
    StatusRow(
        statuses=_SUCCESS,
        esp="Postal",
        kind=Kind.PERMANENT,
        source='anymail/backends/postal.py: any "status" but "success" is an error, though with 200',
    ),
    StatusRow(
        statuses=_SUCCESS,
        kind=Kind.ACCEPTED,
        certainly_not_sent=False,
        source="RFC 9110, 15.3: the request was accepted; only the answer's body could not be read",
    ),
    StatusRow(
        statuses=((300, 399),),
        kind=Kind.CONFIGURATION,
        source="RFC 9110, 15.4: redirected, so the API's URL is not this one",
    ),
    StatusRow(
        statuses=_each(401, 402, 403, 404, 405),
        kind=Kind.CONFIGURATION,
        source="RFC 9110, 15.5: key, account, URL or method",
    ),
    StatusRow(
        statuses=_each(408, 425, 503),
        kind=Kind.TRANSIENT,
        source="RFC 9110, 15.5.9 and 15.6.4; RFC 8470, 5.2: repeat it later",
    ),
    StatusRow(
        statuses=_each(409),
        text="concurrent",
        kind=Kind.TRANSIENT,
        certainly_not_sent=False,
        source="Resend: concurrent_idempotent_requests, the same mail is in flight (resend.com/docs, 2026)",
    ),
    StatusRow(
        statuses=_each(420, 429),
        text=_QUOTA,
        kind=Kind.THROTTLED,
        wait_s=waits.QUOTA_S,
        source="Resend: daily_quota_exceeded, monthly_quota_exceeded; SparkPost: 420, sending limit exceeded",
    ),
    StatusRow(statuses=_each(420, 429), kind=Kind.THROTTLED, source="RFC 6585, 4: too many requests"),
    StatusRow(statuses=((400, 499),), kind=Kind.PERMANENT, source="RFC 9110, 15.5: the request itself is at fault"),
    StatusRow(
        statuses=((500, 599),),
        kind=Kind.UNKNOWN,
        certainly_not_sent=False,
        source="RFC 9110, 15.6: the server failed, perhaps after it had taken the mail",
    ),
)


def from_error(error: BaseException, context: Context) -> Diagnosis | None:
    """Say what the answer that *error* carries means; None when it carries none."""
    if not class_names(error) & _CARRIERS:
        return None
    status = _status(error)
    text = text_of(error)
    row = next((row for row in ROWS if row.fits(status, str(getattr(error, "esp_name", "")), text)), None)
    if row is None:
        return None
    asked_s = _asked(error, context) if row.kind in {Kind.TRANSIENT, Kind.THROTTLED, Kind.UNKNOWN} else None
    return Diagnosis(
        kind=row.kind,
        text=described(error),
        code=f"http {status}",
        wait_s=row.wait_s if asked_s is None else asked_s,
        certainly_not_sent=row.certainly_not_sent,
    )


def _status(error: BaseException) -> int:
    """The answer's status; 0 without one. boto has it in a dict, urllib in ``code``, the others in an attribute."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, Mapping):
        response = response.get("ResponseMetadata") or {}
        status = response.get("HTTPStatusCode") if isinstance(response, Mapping) else None
    else:
        status = (
            getattr(error, "status_code", None)
            or getattr(response, "status_code", None)
            or getattr(error, "code", None)
        )
    return status if isinstance(status, int) else 0


def _asked(error: BaseException, context: Context) -> float | None:
    headers = getattr(getattr(error, "response", error), "headers", None)
    return waits.retry_after(headers, context.now) if headers is not None and hasattr(headers, "get") else None
