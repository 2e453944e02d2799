"""SendGrid: sentences in ``errors``."""

from typing import Final

from mail_service.diagnosis import waits
from mail_service.diagnosis.provider import Provider
from mail_service.diagnosis.rows import AnswerRow
from mail_service.outcome import Kind, Scope

_SUPPORT: Final = "support.sendgrid.com, 4XX API errors, 2026"

PROVIDER: Final = Provider(
    names=("SendGrid",),
    rows=(
        AnswerRow(
            statuses="401 403",
            text="Maximum credits exceeded",
            kind=Kind.THROTTLED,
            wait_s=waits.QUOTA_S,
            source=f"{_SUPPORT}: the plan's credits are used up, until the day or the month is over",
        ),
        AnswerRow(
            statuses="403",
            text="does not match a verified Sender Identity",
            kind=Kind.CONFIGURATION,
            scope=Scope.SENDER,
            source="twilio.com/docs/api/errors/60222, 2026: the From is not verified",
        ),
        AnswerRow(
            statuses="451",
            kind=Kind.CONFIGURATION,
            source="twilio.com/docs/sendgrid, errors, 2026: not in this region, by the account's data residency",
        ),
    ),
)
