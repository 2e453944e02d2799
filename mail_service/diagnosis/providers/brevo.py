"""Brevo, once Sendinblue: a ``code`` for every error."""

from typing import Final

from mail_service.diagnosis.provider import Provider
from mail_service.diagnosis.rows import AnswerRow
from mail_service.outcome import Kind, Scope

_ENUM: Final = "ErrorModel.code in Brevo's own clients (getbrevo/brevo-node), 2026"

PROVIDER: Final = Provider(
    names=("Brevo", "SendinBlue"),
    codes=("code",),
    rows=(
        AnswerRow(
            codes="duplicate_parameter",
            kind=Kind.ACCEPTED,
            source="developers.brevo.com/docs/heterogenous-versions-batch-emails, 2026: an idempotencyKey of the last"
            " 30 minutes; the first request was processed",
        ),
        AnswerRow(
            codes="duplicate_request",
            kind=Kind.UNKNOWN,
            source=f"{_ENUM}; nothing says what became of the first",
        ),
        AnswerRow(
            codes="unauthorized permission_denied reseller_permission_denied method_not_allowed",
            kind=Kind.CONFIGURATION,
            source=f"{_ENUM}: 401 and 403, about the API key or the address that it is used from",
        ),
        AnswerRow(
            codes="not_enough_credits account_under_validation",
            kind=Kind.CONFIGURATION,
            source=f"{_ENUM}: 402 and others, about the account",
        ),
        AnswerRow(
            codes="invalid_parameter",
            text=r"validate your sender|sender you used|sender\b.*\bnot (been )?(verified|validated|authenticated)",
            kind=Kind.CONFIGURATION,
            scope=Scope.SENDER,
            source="as users report it, 2026: 400, the sender you used is not valid; validate your sender",
        ),
        AnswerRow(
            codes="invalid_parameter missing_parameter out_of_range not_acceptable bad_request document_not_found",
            kind=Kind.PERMANENT,
            source=f"{_ENUM}: 400, 404 and 406, about this mail or its template",
        ),
    ),
)
