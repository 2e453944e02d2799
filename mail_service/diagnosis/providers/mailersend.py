"""MailerSend: sentences that end in a code such as ``#MS42207``."""

from typing import Final

from mail_service.diagnosis import waits
from mail_service.diagnosis.provider import Provider
from mail_service.diagnosis.rows import AnswerRow
from mail_service.outcome import Kind, Scope

_DOCS: Final = "developers.mailersend.com/general, 2026"

PROVIDER: Final = Provider(
    names=("MailerSend",),
    code_pattern=r"#(MS\d{4,5})\b",
    rows=(
        AnswerRow(
            codes="MS40301 MS40302 MS40303 MS40304 MS40305",
            kind=Kind.CONFIGURATION,
            source=f"{_DOCS}: 403, about the token's rights, the account or our address",
        ),
        AnswerRow(
            codes="MS42207 MS42226",
            kind=Kind.CONFIGURATION,
            scope=Scope.SENDER,
            source=f"{_DOCS}: 422, the From's domain, or the template's, is not verified",
        ),
        AnswerRow(
            codes="MS42225",
            kind=Kind.CONFIGURATION,
            scope=Scope.MAIL,
            source=f"{_DOCS}: 422, a trial domain's unique recipients are used up; those it had still get mail",
        ),
        AnswerRow(
            codes="MS42204 MS42222 MS42901",
            kind=Kind.THROTTLED,
            wait_s=waits.QUOTA_S,
            source=f"{_DOCS}: 422 and 429, a quota; x-apiquota-reset says when the daily one begins anew",
        ),
        AnswerRow(codes="MS42903", kind=Kind.THROTTLED, source=f"{_DOCS}: 429, a rate; with retry-after"),
        AnswerRow(
            statuses="421",
            kind=Kind.TRANSIENT,
            scope=Scope.MAILER,
            source=f"{_DOCS}: the service is not available; maintenance",
        ),
    ),
)
