"""Mailjet: 401 and broken JSON have one error for the request; whatever else is wrong stands with each message."""

from typing import Final

from mail_service.diagnosis.provider import Fates, Provider
from mail_service.diagnosis.rows import AnswerRow
from mail_service.outcome import Kind, Scope

_DOCS: Final = "dev.mailjet.com, Send API errors (mailjet/api-documentation), 2026"

PROVIDER: Final = Provider(
    names=("Mailjet",),
    codes=("ErrorCode",),
    rows=(
        AnswerRow(
            codes="mj-0001 mj-0015",
            kind=Kind.CONFIGURATION,
            source=f"{_DOCS}: 401, the API key is suspended or not valid",
        ),
        AnswerRow(
            codes="mj-0002 mj-0003 mj-0004 mj-0005 mj-0006 mj-0007 mj-0008 mj-0011 mj-0012 mj-0013",
            kind=Kind.PERMANENT,
            source=f"{_DOCS}: 400, the request is not valid",
        ),
    ),
    fates=Fates(
        items="Messages.*",
        codes=("Errors.*.ErrorCode",),
        rows=(
            AnswerRow(
                codes="mj-0001 mj-0015",
                kind=Kind.CONFIGURATION,
                source=f"{_DOCS}: 401, the API key is suspended or not valid",
            ),
            AnswerRow(
                codes="send-0006 send-0007 send-0008",
                kind=Kind.CONFIGURATION,
                scope=Scope.SENDER,
                source=f"{_DOCS}: 403, the sender is not validated, or may not be used with this key",
            ),
        ),
    ),
)
