"""Postal: always HTTP 200; the ``status`` in the body tells, and a ``code`` says more."""

from typing import Final

from mail_service.diagnosis.provider import Provider
from mail_service.diagnosis.rows import AnswerRow
from mail_service.outcome import Kind, Scope

_CODE: Final = "postalserver/postal, 2026, app/controllers/legacy_api"

PROVIDER: Final = Provider(
    names=("Postal",),
    codes=("data.code", "status"),
    rows=(
        AnswerRow(
            codes="InvalidServerAPIKey AccessDenied ServerSuspended",
            kind=Kind.CONFIGURATION,
            source=f"{_CODE}/base_controller.rb: no key, a wrong one, or a suspended server",
        ),
        AnswerRow(
            codes="UnauthenticatedFromAddress",
            kind=Kind.CONFIGURATION,
            scope=Scope.SENDER,
            source=f"{_CODE}/send_controller.rb: the From may not send from this server",
        ),
        AnswerRow(
            codes="RateLimited",
            kind=Kind.THROTTLED,
            source="postalserver/postal, the specs of its API, 2026: after many wrong keys, with Retry-After",
        ),
        AnswerRow(
            codes="ServerUnavailable",
            kind=Kind.TRANSIENT,
            scope=Scope.MAILER,
            source="apiv1.postalserver.io, 2026: the API is not available for maintenance",
        ),
        AnswerRow(
            codes="error parameter-error",
            kind=Kind.PERMANENT,
            source=f"{_CODE}/send_controller.rb: every other code is about this mail",
        ),
    ),
)
