"""Mandrill, now Mailchimp Transactional: HTTP 500 for nearly every error, and a ``name`` that tells which."""

from typing import Final

from mail_service.diagnosis.provider import Fates, Provider
from mail_service.diagnosis.rows import AnswerRow
from mail_service.outcome import Kind, Scope

_DOCS: Final = "mailchimp.com/developer/transactional/api, 2026"
_REASONS: Final = "mailchimp.com/developer/transactional/api/messages, reject_reason, 2026"

PROVIDER: Final = Provider(
    names=("Mandrill",),
    codes=("name",),
    rows=(
        AnswerRow(
            codes="Invalid_Key",
            kind=Kind.CONFIGURATION,
            source="mailchimp.com/developer/release-notes, 2023: 401, and 500 before; both are still seen",
        ),
        AnswerRow(codes="PaymentRequired", kind=Kind.CONFIGURATION, source=f"{_DOCS}: the account must be paid for"),
        AnswerRow(
            codes="Unknown_Subaccount",
            kind=Kind.CONFIGURATION,
            source=f"{_DOCS}: the subaccount does not exist; it is one of the mailer's settings, seldom a mail's own",
        ),
        AnswerRow(
            codes="ServiceUnavailable",
            kind=Kind.TRANSIENT,
            scope=Scope.MAILER,
            source=f"{_DOCS}: this part is down for maintenance",
        ),
        AnswerRow(
            codes="ValidationError Unknown_Template",
            kind=Kind.PERMANENT,
            source=f"{_DOCS}: the parameters are not valid, or the template does not exist",
        ),
        AnswerRow(
            codes="GeneralError",
            kind=Kind.UNKNOWN,
            scope=Scope.MAILER,
            source=f"{_DOCS}: an unexpected error, as any other 500",
        ),
    ),
    fates=Fates(
        items="*",
        address="email",
        codes=("reject_reason",),
        rows=(
            AnswerRow(
                codes="unsigned invalid-sender",
                kind=Kind.CONFIGURATION,
                scope=Scope.SENDER,
                source=f"{_REASONS}: the sending domain is not signed (SPF, DKIM), or is not valid",
            ),
            AnswerRow(
                codes="hard-bounce",
                kind=Kind.PERMANENT,
                scope=Scope.RECIPIENT,
                source=f"{_REASONS}; mandrill.zendesk.com, About Bounces: permanent errors such as invalid mailboxes",
            ),
            AnswerRow(
                codes="test-mode-limit",
                kind=Kind.CONFIGURATION,
                source=f"{_REASONS}: the key is one for tests",
            ),
        ),
    ),
)
