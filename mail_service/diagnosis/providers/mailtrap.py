"""Mailtrap: sentences in ``errors``."""

from typing import Final

from mail_service.diagnosis import waits
from mail_service.diagnosis.provider import Fates, Provider
from mail_service.diagnosis.rows import AnswerRow
from mail_service.outcome import Kind, Scope

_DOCS: Final = "docs.mailtrap.io, Email API/SMTP"

PROVIDER: Final = Provider(
    names=("Mailtrap",),
    rows=(
        AnswerRow(
            statuses="401",
            kind=Kind.CONFIGURATION,
            scope=Scope.SENDER,
            source=f"{_DOCS}, 401 Unauthorized, 2026: a wrong token and a domain that is not verified look the same;"
            " held by sender, so that one domain does not stop the others",
        ),
        AnswerRow(
            statuses="4xx",
            text=r"(hourly|daily|monthly|sending)\s+(sending\s+)?limit",
            kind=Kind.THROTTLED,
            wait_s=waits.QUOTA_S,
            source=f"{_DOCS}, Sending Limits, 2026: mail over the daily limit of the free plan is rejected",
        ),
        AnswerRow(
            statuses="4xx",
            text=r"domain is not allowed|does not match the sender's domain",
            kind=Kind.CONFIGURATION,
            scope=Scope.SENDER,
            source=f"{_DOCS}, troubleshooting, 2026: the From's domain is not the verified one",
        ),
        AnswerRow(
            statuses="2xx",
            text=r'"success":\s*false',
            kind=Kind.PERMANENT,
            source="anymail/backends/mailtrap.py, parse_recipient_status: a failure in an answer of success",
        ),
    ),
    fates=Fates(
        items="responses.*",
        rows=(
            AnswerRow(
                text=r"unauthorized|domain is not allowed|does not match the sender's domain",
                kind=Kind.CONFIGURATION,
                scope=Scope.SENDER,
                source=f"{_DOCS}, troubleshooting, 2026: the same for one mail of a batch",
            ),
        ),
    ),
)
