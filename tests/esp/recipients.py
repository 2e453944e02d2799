"""Answers that tell single recipients apart, and what each recipient's part means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mail_service.outcome import Kind, Scope

from .answers import ACCEPTED, CONFIGURATION, MAIL, MAILER, PERMANENT, QUOTA_S, RECIPIENT, SENDER, THROTTLED, TRANSIENT
from .asking import A, B, usual_scope

#: a recipient's kind, whom it is about, the diagnosis' code and its wait
Expected = tuple[Kind, Scope, str, float | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """An answer to one mail for some recipients."""

    name: str
    esp: str
    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    #: of the mail
    attributes: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, Expected]

    def __str__(self) -> str:
        return f"{self.esp} {self.name}"


def _is(kind: Kind, code: str, concerns: Scope | None = None, wait_s: float | None = None) -> Expected:
    return kind, concerns or usual_scope(kind), code, wait_s


#: makes a batch of two mails
_BATCH: Mapping[str, Any] = {"merge_data": {A: {"name": "Ann"}, B: {"name": "Bob"}}}


def _bulk(first: str, second: str, text: str = "?") -> Any:
    each = [{"Status": first, "Error": text}, {"Status": second, "Error": text}]
    return {"BulkEmailEntryResults": [{**result, "MessageId": "1"} for result in each]}


def _amazon_ses() -> Iterator[Case]:
    template = {**_BATCH, "template_id": "welcome", "subject": "", "body": ""}

    def ses(first: str, expected: Expected, text: str = "?") -> Case:
        return Case(
            name=first,
            esp="amazon_ses",
            status=200,
            body=_bulk(first, "SUCCESS", text),
            attributes=template,
            expected={A: expected, B: _is(ACCEPTED, "status queued")},
        )

    def word(kind: Kind, code: str, **more: Any) -> Expected:
        return _is(kind, f"http 200 amazon_ses {code}", **more)

    for code, expected in {
        "ACCOUNT_DAILY_QUOTA_EXCEEDED": word(THROTTLED, "ACCOUNT_DAILY_QUOTA_EXCEEDED", wait_s=QUOTA_S),
        "ACCOUNT_THROTTLED": word(THROTTLED, "ACCOUNT_THROTTLED"),
        "MAIL_FROM_DOMAIN_NOT_VERIFIED": word(CONFIGURATION, "MAIL_FROM_DOMAIN_NOT_VERIFIED", concerns=SENDER),
        "ACCOUNT_SUSPENDED": word(CONFIGURATION, "ACCOUNT_SUSPENDED"),
        "TEMPLATE_NOT_FOUND": word(CONFIGURATION, "TEMPLATE_NOT_FOUND", concerns=MAIL),
        "CONFIGURATION_SET_NOT_FOUND": word(CONFIGURATION, "CONFIGURATION_SET_NOT_FOUND"),
        "TRANSIENT_FAILURE": word(TRANSIENT, "TRANSIENT_FAILURE", concerns=MAILER),
        "INVALID_PARAMETER": word(PERMANENT, "INVALID_PARAMETER"),
        "FAILED": word(PERMANENT, "FAILED"),
    }.items():
        yield ses(code, expected)
    rejected = "MESSAGE_REJECTED"
    yield ses(rejected, word(CONFIGURATION, rejected, concerns=SENDER), "Email address is not verified")
    yield ses("UNHEARD_OF", _is(PERMANENT, "status failed"))


def _mailjet() -> Iterator[Case]:
    def mailjet(code: str, status: int, expected: Expected) -> Case:
        return Case(
            name=code,
            esp="mailjet",
            status=status,
            body={"Messages": [{"Status": "error", "Errors": [{"ErrorCode": code, "StatusCode": status}]}]},
            headers={"Content-Type": "application/json"},
            expected={A: expected, B: expected},
        )

    success = {"Status": "success", "To": [{"Email": A, "MessageID": 1}]}
    error = {"Status": "error", "Errors": [{"ErrorCode": "send-0008"}]}
    sender = _is(CONFIGURATION, "http 403 mailjet send-0008", SENDER)
    yield mailjet("send-0008", 403, sender)
    yield mailjet("mj-0001", 401, _is(CONFIGURATION, "http 401 mailjet mj-0001"))
    yield mailjet("mj-0013", 400, _is(PERMANENT, "status failed"))
    yield Case(
        name="half a batch",
        esp="mailjet",
        status=200,
        body={"Messages": [success, error]},
        attributes=_BATCH,
        expected={A: _is(ACCEPTED, "status sent"), B: _is(CONFIGURATION, "http 200 mailjet send-0008", SENDER)},
    )


def _mailtrap() -> Iterator[Case]:
    def mailtrap(text: str, expected: Expected) -> Case:
        each = [{"success": True, "message_ids": ["1"]}, {"success": False, "errors": [text]}]
        return Case(
            name=text,
            esp="mailtrap",
            status=200,
            body={"success": True, "responses": each},
            attributes=_BATCH,
            expected={A: _is(ACCEPTED, "status queued"), B: expected},
        )

    yield mailtrap("Unauthorized", _is(CONFIGURATION, "http 200 mailtrap", SENDER))
    yield mailtrap("'to' is invalid", _is(PERMANENT, "status failed"))


def _mandrill() -> Iterator[Case]:
    def mandrill(reason: str, expected: Expected) -> Case:
        each = [{"email": A, "status": "sent", "_id": "1"}, {"email": B, "status": "rejected", "reject_reason": reason}]
        return Case(
            name=reason,
            esp="mandrill",
            status=200,
            body=each,
            expected={A: _is(ACCEPTED, "status sent"), B: expected},
        )

    yield mandrill("unsigned", _is(CONFIGURATION, "http 200 mandrill unsigned", SENDER))
    yield mandrill("test-mode-limit", _is(CONFIGURATION, "http 200 mandrill test-mode-limit"))
    yield mandrill("hard-bounce", _is(PERMANENT, "http 200 mandrill hard-bounce", RECIPIENT))
    yield mandrill("spam", _is(PERMANENT, "status rejected"))
    yield Case(
        name="all refused",
        esp="mandrill",
        status=200,
        body=[
            {"email": A, "status": "rejected", "reject_reason": "unsigned"},
            {"email": B, "status": "invalid", "reject_reason": None},
        ],
        expected={
            A: _is(CONFIGURATION, "http 200 mandrill unsigned", SENDER),
            B: _is(PERMANENT, "status invalid"),
        },
    )
    yield Case(
        name="scheduled",
        esp="mandrill",
        status=200,
        body=[{"email": A, "status": "scheduled"}, {"email": B, "status": "queued"}],
        expected={A: _is(ACCEPTED, "status unknown"), B: _is(ACCEPTED, "status queued")},
    )
    yield Case(
        name="forgets one",
        esp="mandrill",
        status=200,
        body=[{"email": A, "status": "sent"}],
        expected={A: _is(ACCEPTED, "status sent"), B: _is(ACCEPTED, "")},
    )


def _postmark() -> Iterator[Case]:
    def postmark(name: str, code: int, text: str, *expected: Expected) -> Case:
        body = {"ErrorCode": code, "Message": text, "MessageID": "1", "To": f"{A}, {B}"}
        status = 422 if code else 200
        return Case(
            name=name, esp="postmark", status=status, body=body, expected=dict(zip((A, B), expected, strict=True))
        )

    later = _is(TRANSIENT, "http 422")
    inactive = "inactive addresses: b@example.org. Inactive recipients are ones that bounced."
    rejected = _is(PERMANENT, "status rejected")
    yield postmark("inactive", 0, f"OK, but not to these {inactive}", _is(ACCEPTED, "status sent"), rejected)
    yield postmark("all inactive", 406, f"Found {inactive}", later, rejected)
    yield postmark("invalid", 300, f"Invalid 'To' address: '{B}'.", later, _is(PERMANENT, "status invalid"))
    unnamed = _is(PERMANENT, "http 422 postmark 406")
    yield postmark("nobody named", 406, "You tried to send to inactive recipients.", unnamed, unnamed)


def _others() -> Iterator[Case]:
    failed = {A: "temporary_unavailable", B.upper(): "permanent_unavailable"}
    yield Case(
        name="failed_emails",
        esp="unisender_go",
        status=200,
        body={"status": "success", "job_id": "1", "emails": [], "failed_emails": failed},
        expected={
            A: _is(TRANSIENT, "http 200 unisender_go temporary_unavailable"),
            B: _is(PERMANENT, "status rejected"),
        },
    )
    yield Case(
        name="suppressed",
        esp="mailersend",
        status=202,
        body={"warnings": [{"type": "SOME_SUPPRESSED", "recipients": [{"email": B, "reasons": ["blocklisted"]}]}]},
        headers={"X-Message-ID": "1"},
        expected={A: _is(ACCEPTED, "status queued"), B: _is(PERMANENT, "status rejected")},
    )
    for accepted, rejected, expected in (
        (2, 0, _is(ACCEPTED, "status queued")),
        (0, 2, _is(PERMANENT, "status rejected")),
        (1, 1, _is(ACCEPTED, "status unknown")),
    ):
        results = {"id": "1", "total_accepted_recipients": accepted, "total_rejected_recipients": rejected}
        yield Case(
            name=f"{accepted} of 2",
            esp="sparkpost",
            status=200,
            body={"results": results},
            expected={A: expected, B: expected},
        )
    yield Case(
        name="statuses",
        esp="scaleway",
        status=200,
        body={"emails": [{"mail_rcpt": A, "status": "sent"}, {"mail_rcpt": B, "status": "canceled"}]},
        expected={A: _is(ACCEPTED, "status sent"), B: _is(PERMANENT, "status failed")},
    )


CASES: tuple[Case, ...] = tuple(
    case for cases in (_amazon_ses, _mailjet, _mailtrap, _mandrill, _postmark, _others) for case in cases()
)

#: bulk requests that fail alike for all, which Anymail makes one error of
ALIKE: Mapping[str, tuple[str, Kind, Scope, float | None]] = {
    "ACCOUNT_DAILY_QUOTA_EXCEEDED": ("?", THROTTLED, MAILER, QUOTA_S),
    "ACCOUNT_THROTTLED": ("?", THROTTLED, MAILER, None),
    "MAIL_FROM_DOMAIN_NOT_VERIFIED": ("?", CONFIGURATION, SENDER, None),
    "MESSAGE_REJECTED": ("Email address is not verified", CONFIGURATION, SENDER, None),
    "ACCOUNT_SENDING_PAUSED": ("?", CONFIGURATION, MAILER, None),
    "TEMPLATE_NOT_FOUND": ("?", CONFIGURATION, MAIL, None),
    "CONFIGURATION_SET_NOT_FOUND": ("?", CONFIGURATION, MAILER, None),
    "TRANSIENT_FAILURE": ("?", TRANSIENT, MAILER, None),
    "INVALID_PARAMETER": ("?", PERMANENT, MAIL, None),
}
