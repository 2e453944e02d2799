"""Mailgun: sentences, some of them in answers of success."""

from typing import Final

from mail_service.diagnosis import waits
from mail_service.diagnosis.provider import Provider
from mail_service.diagnosis.rows import AnswerRow
from mail_service.outcome import Kind, Scope

_NOT_ALLOWED: Final = r"is not allowed to send:"
_SEEN: Final = '400 or 403 "Domain … is not allowed to send", as users report it, 2026'

PROVIDER: Final = Provider(
    names=("Mailgun",),
    rows=(
        AnswerRow(
            statuses="2xx",
            text="Mailgun Magnificent API",
            kind=Kind.CONFIGURATION,
            source="anymail/backends/mailgun.py, raise_for_status: the API's URL is wrong, and is answered like this",
        ),
        AnswerRow(
            statuses="404",
            text="Domain not found",
            kind=Kind.CONFIGURATION,
            scope=Scope.SENDER,
            source="anymail/backends/mailgun.py, raise_for_status: the sender's domain is not known in this region",
        ),
        AnswerRow(
            statuses="404",
            kind=Kind.TRANSIENT,
            scope=Scope.MAILER,
            source="documentation.mailgun.com, API response codes, 2026: a 404 may be temporary, as the system is"
            " eventually consistent",
        ),
        AnswerRow(
            text=rf"{_NOT_ALLOWED}.*(limit exceeded|too fast)",
            kind=Kind.THROTTLED,
            wait_s=waits.QUOTA_S,
            source=f"{_SEEN}: recipient limit exceeded, or sending too fast on probation",
        ),
        AnswerRow(
            text=rf"{_NOT_ALLOWED}.*\baccount\b.*(disabled|inactiv|suspend)",
            kind=Kind.CONFIGURATION,
            source=f"{_SEEN}: the account is disabled or inactive",
        ),
        AnswerRow(
            text=_NOT_ALLOWED,
            kind=Kind.CONFIGURATION,
            scope=Scope.SENDER,
            source=f"{_SEEN}: about the domain, such as a sandbox's",
        ),
    ),
)
