"""SparkPost, now Bird: an extended code in each of ``errors``."""

from typing import Final

from mail_service.diagnosis import waits
from mail_service.diagnosis.provider import Provider
from mail_service.diagnosis.rows import AnswerRow
from mail_service.outcome import Kind, Scope

_DOCS: Final = "support.sparkpost.com/docs/tech-resources/extended-error-codes, 2026"

PROVIDER: Final = Provider(
    names=("SparkPost",),
    codes=("errors.*.code",),
    rows=(
        AnswerRow(
            codes="1100 1303 1304 1601",
            kind=Kind.CONFIGURATION,
            source=f"{_DOCS}: 401 and 403, about the key, the tenant or the plan",
        ),
        AnswerRow(
            codes="1502 1900",
            kind=Kind.TRANSIENT,
            scope=Scope.MAILER,
            source=f"{_DOCS}: 400 and 503, resources are not available; retry later",
        ),
        AnswerRow(
            codes="2101 2102 2105",
            kind=Kind.THROTTLED,
            wait_s=waits.QUOTA_S,
            source=f"{_DOCS}: 420, the sending limit of an hour, a day or a month",
        ),
        AnswerRow(
            codes="2103 7000 7001",
            kind=Kind.CONFIGURATION,
            scope=Scope.SENDER,
            source=f"{_DOCS}: 400 and 420, the sending domain is not configured, blocked, or the sandbox's",
        ),
        AnswerRow(
            codes="1600 1603 1901 1902 1910 2004 2005 5002",
            kind=Kind.PERMANENT,
            source=f"{_DOCS}: 400, 404 and 422, no such template, or every recipient is suppressed or not valid",
        ),
    ),
)
