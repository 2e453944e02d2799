"""Resend: a ``name`` for every error."""

from typing import Final

from mail_service.diagnosis import waits
from mail_service.diagnosis.provider import Provider
from mail_service.diagnosis.rows import AnswerRow
from mail_service.outcome import Kind, Scope

_DOCS: Final = "resend.com/docs/api-reference/errors, 2026"

PROVIDER: Final = Provider(
    names=("Resend",),
    codes=("name",),
    rows=(
        AnswerRow(
            codes="missing_api_key restricted_api_key invalid_api_key",
            kind=Kind.CONFIGURATION,
            source=f"{_DOCS}: 401 and 403, about the API key",
        ),
        AnswerRow(
            statuses="403",
            codes="validation_error invalid_from_address",
            kind=Kind.CONFIGURATION,
            scope=Scope.SENDER,
            source=f"{_DOCS}: the domain of the From is not verified, or is the one for tests",
        ),
        AnswerRow(
            codes="concurrent_idempotent_requests",
            kind=Kind.TRANSIENT,
            may_be_sent=True,
            source=f"{_DOCS}: 409, the first request with this key is still in progress",
        ),
        AnswerRow(
            codes="invalid_idempotent_request",
            kind=Kind.PERMANENT,
            may_be_sent=True,
            source=f"{_DOCS}: 409, this key came with another content within 24 h, which may have been sent",
        ),
        AnswerRow(
            codes="daily_quota_exceeded monthly_quota_exceeded",
            kind=Kind.THROTTLED,
            wait_s=waits.QUOTA_S,
            source=f"{_DOCS}: 429, a quota and not a rate",
        ),
        AnswerRow(codes="rate_limit_exceeded", kind=Kind.THROTTLED, source=f"{_DOCS}: 429, with retry-after"),
        AnswerRow(
            codes="application_error internal_server_error",
            kind=Kind.UNKNOWN,
            scope=Scope.MAILER,
            source=f"{_DOCS}: 500, an unexpected error",
        ),
        AnswerRow(
            codes="validation_error missing_required_field invalid_attachment invalid_parameter invalid_from_address"
            " invalid_idempotency_key security_error",
            kind=Kind.PERMANENT,
            source=f"{_DOCS}: 400, 422 and 451, about this mail",
        ),
    ),
)
