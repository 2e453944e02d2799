"""Scaleway: a ``type`` for most errors, the same in all of its APIs."""

from typing import Final

from mail_service.diagnosis import waits
from mail_service.diagnosis.provider import Provider
from mail_service.diagnosis.rows import AnswerRow
from mail_service.outcome import Kind

_SDK: Final = "scaleway/scaleway-sdk-go, scw/errors.go, 2026"

PROVIDER: Final = Provider(
    names=("Scaleway",),
    codes=("type",),
    rows=(
        AnswerRow(
            codes="denied_authentication permissions_denied",
            kind=Kind.CONFIGURATION,
            source=f"{_SDK}: 401 and 403, about the key or its rights",
        ),
        AnswerRow(
            codes="quotas_exceeded",
            kind=Kind.THROTTLED,
            wait_s=waits.QUOTA_S,
            source=f"{_SDK}: 403, a quota is reached",
        ),
        AnswerRow(codes="transient_state", kind=Kind.TRANSIENT, source=f"{_SDK}: 409, it is being changed"),
        AnswerRow(codes="locked", kind=Kind.CONFIGURATION, source=f"{_SDK}: locked by Scaleway's abuse team"),
        AnswerRow(codes="invalid_arguments", kind=Kind.PERMANENT, source=f"{_SDK}: 400, about this mail"),
    ),
)
