"""
What the answers of providers' APIs mean: the provider's own table first, then that of HTTP's statuses, which is here.

The statuses are those of RFC 9110; what they mean for a mail is what ESPs were seen to do with them.
"""

from __future__ import annotations

from typing import Final

from mail_service.diagnosis import rows, waits
from mail_service.diagnosis.answer import Answer, answer_of
from mail_service.diagnosis.context import Context
from mail_service.diagnosis.providers import PROVIDERS
from mail_service.diagnosis.reading import described
from mail_service.diagnosis.rows import AnswerRow
from mail_service.outcome import Diagnosis, Kind, Scope

#: kinds after which somebody waits
_WAITING: Final = frozenset({Kind.TRANSIENT, Kind.THROTTLED, Kind.UNKNOWN})

#: first match wins
ROWS: Final[tuple[AnswerRow, ...]] = (
    AnswerRow(
        statuses="2xx",
        kind=Kind.ACCEPTED,
        source="RFC 9110, 15.3: the request was accepted; only the answer's body could not be read",
    ),
    AnswerRow(
        statuses="3xx",
        kind=Kind.CONFIGURATION,
        source="RFC 9110, 15.4: redirected, so the API's URL is not this one",
    ),
    AnswerRow(
        statuses="401 402 403 404 405",
        kind=Kind.CONFIGURATION,
        source="RFC 9110, 15.5: key, account, URL or method",
    ),
    AnswerRow(
        statuses="408 425 503",
        kind=Kind.TRANSIENT,
        scope=Scope.MAILER,
        source="RFC 9110, 15.5.9 and 15.6.4; RFC 8470, 5.2: repeat it later",
    ),
    AnswerRow(
        statuses="409",
        text="concurrent",
        kind=Kind.TRANSIENT,
        may_be_sent=True,
        source="RFC 9110, 15.5.10: a conflict with another request, as its text says the same one in flight",
    ),
    AnswerRow(
        statuses="420 429",
        text=waits.QUOTA_TEXT,
        kind=Kind.THROTTLED,
        wait_s=waits.QUOTA_S,
        source="RFC 6585, 4, with a text that names a quota, which lasts longer than a rate",
    ),
    AnswerRow(statuses="420 429", kind=Kind.THROTTLED, source="RFC 6585, 4: too many requests"),
    AnswerRow(statuses="4xx", kind=Kind.PERMANENT, source="RFC 9110, 15.5: the request itself is at fault"),
    AnswerRow(
        statuses="5xx",
        kind=Kind.UNKNOWN,
        scope=Scope.MAILER,
        source="RFC 9110, 15.6: the server failed, perhaps after it had taken the mail",
    ),
)


def from_error(error: BaseException, context: Context) -> Diagnosis | None:
    """Say what the answer that *error* carries means; None when it carries none."""
    answer = answer_of(error, context)
    return from_answer(answer, described(error), context) if answer else None


def from_answer(answer: Answer, text: str, context: Context) -> Diagnosis | None:
    """
    Say what *answer* means; None when no row knows it, as one without a status.

    Args:
        text: For people.
    """
    if answer.provider:
        row = rows.first_for(answer, answer.provider.rows)
        if row:
            return judged(answer, row, text, context)
    row = rows.first_for(answer, ROWS)
    return judged(answer, row, text, context, is_general=True) if row else None


def judged(answer: Answer, row: AnswerRow, text: str, context: Context, *, is_general: bool = False) -> Diagnosis:
    """Return what *row* says about *answer*."""
    return Diagnosis(
        kind=row.kind,
        text=text,
        code=f"http {answer.status}" if is_general else _code(answer, row),
        wait_s=_wait(answer, row, context) if row.kind in _WAITING else None,
        certainly_not_sent=row.certainly_not_sent,
        scope=row.scope,
    )


def _code(answer: Answer, row: AnswerRow) -> str:
    """``http 422 postmark 406``: words of an answer are fit for logs only if a table has them."""
    slug = next(name for name, provider in PROVIDERS.items() if provider is answer.provider)
    return " ".join(filter(None, ("http", str(answer.status), slug, row.code_of(answer) or "")))


def _wait(answer: Answer, row: AnswerRow, context: Context) -> float | None:
    is_quota = row.wait_s is not None
    asked_s = waits.asked_in_headers(answer.status, answer.headers, context.now, is_quota=is_quota)
    if asked_s is None and not is_quota and row.kind is not Kind.UNKNOWN:
        asked_s = waits.asked_in_text(answer.text)
    return row.wait_s if asked_s is None else asked_s
