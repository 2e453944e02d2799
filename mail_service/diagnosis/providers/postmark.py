"""Postmark: HTTP 422 with an ``ErrorCode`` in the body, whose numbers look like HTTP's and are not."""

from typing import Final

from mail_service.diagnosis.provider import Provider
from mail_service.diagnosis.rows import AnswerRow
from mail_service.outcome import Kind, Scope

_DOCS: Final = "postmarkapp.com/developer/api/overview#error-codes, 2026"

PROVIDER: Final = Provider(
    names=("Postmark",),
    codes=("ErrorCode", "*.ErrorCode"),
    rows=(
        AnswerRow(codes="10", kind=Kind.CONFIGURATION, source=f"{_DOCS}: bad or missing API token"),
        AnswerRow(codes="100", kind=Kind.TRANSIENT, scope=Scope.MAILER, source=f"{_DOCS}: offline for maintenance"),
        AnswerRow(
            codes="400 401",
            kind=Kind.CONFIGURATION,
            scope=Scope.SENDER,
            source=f"{_DOCS}: the From has no sender signature, or one that is not confirmed",
        ),
        AnswerRow(codes="405", kind=Kind.CONFIGURATION, source=f"{_DOCS}: not allowed to send, out of credits"),
        AnswerRow(
            codes="412 413",
            kind=Kind.CONFIGURATION,
            source=f"{_DOCS}: the account is pending, or may not send",
        ),
        AnswerRow(codes="429", kind=Kind.THROTTLED, source=f"{_DOCS}: too many requests; no waits are documented"),
        AnswerRow(
            codes="1235 1236",
            kind=Kind.CONFIGURATION,
            source=f"{_DOCS}: the MessageStream does not exist, or is not for sending",
        ),
        AnswerRow(
            codes="300 402 403 406 409 410 411 1101 1109 1120 1121 1122 1123",
            kind=Kind.PERMANENT,
            source=f"{_DOCS}: the request, its recipients or its template are not valid",
        ),
    ),
)
