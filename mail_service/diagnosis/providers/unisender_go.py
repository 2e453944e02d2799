"""Unisender Go, which is UniOne: a numeric ``code`` for every error, and a word for each failed address."""

from typing import Final

from mail_service.diagnosis import waits
from mail_service.diagnosis.provider import AS_KEY, Fates, Provider
from mail_service.diagnosis.rows import AnswerRow
from mail_service.outcome import Kind, Scope

_DOCS: Final = "docs.unione.io/en/web-api-ref#api-errors, 2026"

PROVIDER: Final = Provider(
    names=("Unisender Go",),
    codes=("code",),
    rows=(
        AnswerRow(
            codes="101 102 105 106 114 215",
            kind=Kind.CONFIGURATION,
            source=f"{_DOCS}: 401 and 403, about the key, the host, or the user's right to send",
        ),
        AnswerRow(
            codes="206",
            kind=Kind.CONFIGURATION,
            scope=Scope.SENDER,
            source=f"{_DOCS}: 400, the sender's domain is not verified",
        ),
        AnswerRow(
            codes="229 230 903 904",
            kind=Kind.CONFIGURATION,
            source=f"{_DOCS}: 400 and 403, the tariff, a payment or a tracking domain is missing",
        ),
        AnswerRow(
            codes="901 902 905",
            kind=Kind.THROTTLED,
            wait_s=waits.QUOTA_S,
            source=f"{_DOCS}: 403, the limit of the day or of the tariff is reached",
        ),
        AnswerRow(
            codes="204",
            text="temporary_unavailable",
            kind=Kind.TRANSIENT,
            source=f"{_DOCS}: 400, every address is among the failed ones, and one of them only for now",
        ),
        AnswerRow(
            codes="204",
            kind=Kind.PERMANENT,
            source=f"{_DOCS}: 400, every address is among the failed ones, or none was given",
        ),
    ),
    fates=Fates(
        items="failed_emails",
        address=AS_KEY,
        rows=(
            AnswerRow(
                codes="temporary_unavailable",
                kind=Kind.TRANSIENT,
                source="docs.unione.io/en/web-api-ref#email-send, failed_emails, 2026",
            ),
        ),
    ),
)
