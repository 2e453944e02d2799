"""
Answers of providers' APIs, as their documentation has them, and what each means.

Every row of every table of answers is the first that fits one of these; ``test_every_row`` sees to that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mail_service.outcome import Kind, Scope

from .asking import usual_scope

ACCEPTED, TRANSIENT, THROTTLED, CONFIGURATION, PERMANENT, UNKNOWN = (
    Kind.ACCEPTED,
    Kind.TRANSIENT,
    Kind.THROTTLED,
    Kind.CONFIGURATION,
    Kind.PERMANENT,
    Kind.UNKNOWN,
)
MAIL, RECIPIENT, SENDER, MAILER = Scope.MAIL, Scope.RECIPIENT, Scope.SENDER, Scope.MAILER
QUOTA_S = 600.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """An answer to one mail for one recipient."""

    esp: str
    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: Kind
    concerns: Scope
    #: of the diagnosis, without ``http`` and the status
    code: str
    wait_s: float | None
    may_be_sent: bool

    def __str__(self) -> str:
        return f"{self.esp} {self.status} {self.code.partition(' ')[2] or str(self.body)[:30]}".strip()


def _of(
    esp: str,
    status: int,
    body: Any,
    kind: Kind,
    code: str = "",
    *,
    concerns: Scope | None = None,
    wait_s: float | None = None,
    may_be_sent: bool | None = None,
    **headers: str,
) -> Case:
    return Case(
        esp=esp,
        status=status,
        body=body,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        kind=kind,
        concerns=concerns or usual_scope(kind),
        code=code,
        wait_s=wait_s,
        may_be_sent=kind in {ACCEPTED, UNKNOWN} if may_be_sent is None else may_be_sent,
    )


def _amazon_ses() -> Iterator[Case]:
    def ses(status: int, code: str, text: str, kind: Kind, **more: Any) -> Case:
        return _of("amazon_ses", status, {"message": text}, kind, f"amazon_ses {code}", x_amzn_ErrorType=code, **more)

    daily, rate = "Daily message quota exceeded.", "Maximum sending rate exceeded."
    not_verified = "Email address is not verified. The following identities failed the check: from@example.org"
    yield ses(429, "TooManyRequestsException", daily, THROTTLED, wait_s=QUOTA_S)
    yield ses(429, "TooManyRequestsException", rate, THROTTLED)
    yield ses(400, "ThrottlingException", rate, THROTTLED)
    yield ses(400, "Throttling", daily, THROTTLED, wait_s=QUOTA_S)
    yield ses(400, "LimitExceededException", "Too many", THROTTLED, wait_s=QUOTA_S)
    yield ses(400, "MailFromDomainNotVerifiedException", "Not verified", CONFIGURATION, concerns=SENDER)
    yield ses(400, "MessageRejected", not_verified, CONFIGURATION, concerns=SENDER)
    yield ses(400, "BadRequestException", not_verified, CONFIGURATION, concerns=SENDER)
    yield ses(400, "AccountSuspendedException", "Suspended", CONFIGURATION)
    yield ses(400, "SendingPausedException", "Paused", CONFIGURATION)
    yield ses(400, "AccountSendingPausedException", "Paused", CONFIGURATION)
    yield ses(400, "ConfigurationSetSendingPausedException", "Paused", CONFIGURATION)
    yield ses(404, "NotFoundException", "Template welcome does not exist", CONFIGURATION, concerns=MAIL)
    yield ses(400, "TemplateDoesNotExist", "No such template", CONFIGURATION, concerns=MAIL)
    yield ses(404, "NotFoundException", "Configuration set <news> does not exist", CONFIGURATION)
    yield ses(400, "ConfigurationSetDoesNotExist", "No such set", CONFIGURATION)
    yield ses(403, "SignatureDoesNotMatch", "Check your secret key", CONFIGURATION)
    yield ses(400, "UnrecognizedClientException", "The security token is invalid", CONFIGURATION)
    yield ses(400, "ExpiredTokenException", "The security token is expired", CONFIGURATION)
    yield ses(400, "RequestExpired", "The clock is wrong", CONFIGURATION)
    yield ses(403, "AccessDeniedException", "User is not authorized to perform ses:SendEmail", CONFIGURATION)
    yield ses(503, "ServiceUnavailable", "Try again", TRANSIENT, concerns=MAILER)
    yield ses(500, "InternalServiceErrorException", "Sorry", UNKNOWN, concerns=MAILER)
    yield ses(500, "InternalFailure", "Sorry", UNKNOWN, concerns=MAILER)
    yield ses(400, "MessageRejected", "Address blacklisted.", PERMANENT)
    yield ses(400, "BadRequestException", "Missing final '@domain'", PERMANENT)
    yield _of("amazon_ses", 500, {"message": "?"}, UNKNOWN, concerns=MAILER, x_amzn_ErrorType="Unheard")
    yield _of("amazon_ses", 200, {"unheard": "of"}, ACCEPTED)


def _brevo() -> Iterator[Case]:
    def brevo(status: int, code: str, kind: Kind, text: str = "?", **more: Any) -> Case:
        return _of("brevo", status, {"code": code, "message": text}, kind, f"brevo {code}", **more)

    not_valid = "Sending has been rejected because the sender you used from@example.org is not valid."
    yield brevo(400, "duplicate_parameter", ACCEPTED)
    yield brevo(409, "duplicate_request", UNKNOWN)
    yield brevo(401, "unauthorized", CONFIGURATION, "Key not found")
    yield brevo(403, "permission_denied", CONFIGURATION)
    yield brevo(402, "not_enough_credits", CONFIGURATION)
    yield brevo(400, "account_under_validation", CONFIGURATION)
    yield brevo(400, "invalid_parameter", CONFIGURATION, not_valid, concerns=SENDER)
    yield brevo(400, "invalid_parameter", PERMANENT, "email is not valid in to")
    yield brevo(400, "missing_parameter", PERMANENT)
    yield brevo(404, "document_not_found", PERMANENT, "Template not found")
    yield _of("brevo", 429, {"message": "?"}, THROTTLED, wait_s=7, x_sib_ratelimit_reset="7")
    yield _of("brevo", 201, {"what": "?"}, ACCEPTED)


def _mailersend() -> Iterator[Case]:
    def mailersend(status: int, code: str, kind: Kind, text: str = "No.", **more: Any) -> Case:
        body = {"message": f"{text} #{code}"}
        return _of("mailersend", status, body, kind, f"mailersend {code}", **more)

    domain = {"errors": {"from.email": ["The from.email domain must be verified. #MS42207"]}, "message": "Invalid."}
    yield mailersend(403, "MS40301", CONFIGURATION)
    yield mailersend(403, "MS40304", CONFIGURATION, "Your account is suspended.")
    yield _of("mailersend", 422, domain, CONFIGURATION, "mailersend MS42207", concerns=SENDER)
    yield mailersend(422, "MS42225", CONFIGURATION, concerns=MAIL)
    yield mailersend(422, "MS42204", THROTTLED, wait_s=QUOTA_S)
    yield mailersend(429, "MS42901", THROTTLED, wait_s=QUOTA_S, x_ratelimit_reset="5", x_ratelimit_remaining="0")
    yield mailersend(
        429,
        "MS42901",
        THROTTLED,
        wait_s=3600,
        Date="Sun, 22 Nov 2026 23:00:00 GMT",
        x_apiquota_remaining="0",
        x_apiquota_reset="2026-11-23T00:00:00Z",
    )
    yield mailersend(429, "MS42903", THROTTLED, wait_s=40, Retry_After="40")
    yield _of("mailersend", 421, {"message": "?"}, TRANSIENT, "mailersend", concerns=MAILER)
    yield _of("mailersend", 401, {"message": "Unauthenticated."}, CONFIGURATION)
    yield _of("mailersend", 422, {"message": "The to.0.email must be valid. #MS42208"}, PERMANENT)
    yield _of("mailersend", 408, {"message": "?"}, TRANSIENT, concerns=MAILER)
    yield _of("mailersend", 202, {"warnings": [{"type": "UNHEARD"}]}, ACCEPTED, Content_Type="application/json")


def _mailgun() -> Iterator[Case]:
    def not_allowed(why: str, status: int, **more: Any) -> Case:
        body = {"message": f"Domain example.org is not allowed to send: {why}"}
        return _of("mailgun", status, body, code="mailgun", **more)

    yield _of("mailgun", 200, "Mailgun Magnificent API", CONFIGURATION, "mailgun")
    yield _of("mailgun", 404, {"message": "Domain not found: example.org"}, CONFIGURATION, "mailgun", concerns=SENDER)
    yield _of("mailgun", 404, {"message": "Not found"}, TRANSIENT, "mailgun", concerns=MAILER)
    yield not_allowed("recipient limit exceeded", 400, kind=THROTTLED, wait_s=QUOTA_S)
    yield not_allowed("You are sending too fast. Your account is on probation", 400, kind=THROTTLED, wait_s=QUOTA_S)
    yield not_allowed("Account disabled", 403, kind=CONFIGURATION)
    yield not_allowed("Sandbox subdomains are for test purposes only.", 403, kind=CONFIGURATION, concerns=SENDER)
    yield _of("mailgun", 401, "Forbidden", CONFIGURATION)
    yield _of("mailgun", 402, "", CONFIGURATION)
    yield _of("mailgun", 400, {"message": "to parameter is not a valid address."}, PERMANENT)
    yield _of("mailgun", 429, {"message": "?"}, THROTTLED, wait_s=10, x_ratelimit_reset="10", x_ratelimit_remaining="0")
    yield _of("mailgun", 200, "no JSON", ACCEPTED)


def _mailjet() -> Iterator[Case]:
    def mailjet(status: int, code: str, kind: Kind, **more: Any) -> Case:
        body = {"ErrorIdentifier": "id", "ErrorCode": code, "ErrorMessage": "?", "StatusCode": status}
        return _of("mailjet", status, body, kind, f"mailjet {code}", **more)

    unauthorized = {"ErrorIdentifier": "id", "StatusCode": 401, "ErrorMessage": "API key authorization failure."}
    yield mailjet(401, "mj-0015", CONFIGURATION)
    yield mailjet(401, "mj-0001", CONFIGURATION)
    yield mailjet(400, "mj-0002", PERMANENT)
    yield _of("mailjet", 401, unauthorized, CONFIGURATION)
    yield _of("mailjet", 429, "Too many requests", THROTTLED)
    yield _of("mailjet", 500, {"ErrorIdentifier": "id"}, UNKNOWN, concerns=MAILER)
    yield _of("mailjet", 200, [], ACCEPTED)
    yield _of("mailjet", 400, "7", PERMANENT, Content_Type="application/json")


def _mailtrap() -> Iterator[Case]:
    def mailtrap(status: int, text: str, kind: Kind, code: str = "mailtrap", **more: Any) -> Case:
        return _of("mailtrap", status, {"success": False, "errors": [text]}, kind, code, **more)

    yield mailtrap(401, "Unauthorized", CONFIGURATION, concerns=SENDER)
    yield mailtrap(403, "Your account has reached its daily sending limit.", THROTTLED, wait_s=QUOTA_S)
    yield mailtrap(403, "Sending from domain example.org: domain is not allowed", CONFIGURATION, concerns=SENDER)
    yield mailtrap(200, "no", PERMANENT)
    yield mailtrap(400, "'to' address is invalid", PERMANENT, "")
    yield mailtrap(429, "Too many", THROTTLED, "")
    yield _of("mailtrap", 200, "no JSON", ACCEPTED)
    yield _of("mailtrap", 200, {"success": True, "message_ids": []}, ACCEPTED)


def _mandrill() -> Iterator[Case]:
    def mandrill(status: int, name: str, kind: Kind, **more: Any) -> Case:
        body = {"status": "error", "code": -1, "name": name, "message": "?"}
        return _of("mandrill", status, body, kind, f"mandrill {name}", **more)

    yield mandrill(500, "Invalid_Key", CONFIGURATION)
    yield mandrill(401, "Invalid_Key", CONFIGURATION)
    yield mandrill(500, "PaymentRequired", CONFIGURATION)
    yield mandrill(500, "Unknown_Subaccount", CONFIGURATION)
    yield mandrill(500, "ServiceUnavailable", TRANSIENT, concerns=MAILER)
    yield mandrill(500, "ValidationError", PERMANENT)
    yield mandrill(500, "Unknown_Template", PERMANENT)
    yield mandrill(500, "GeneralError", UNKNOWN, concerns=MAILER)
    yield _of("mandrill", 502, "", UNKNOWN, concerns=MAILER)
    yield _of("mandrill", 200, {"what": "?"}, ACCEPTED)


def _postal() -> Iterator[Case]:
    def postal(code: str, kind: Kind, **more: Any) -> Case:
        body = {"status": "error", "time": 0.1, "flags": {}, "data": {"code": code}}
        return _of("postal", 200, body, kind, f"postal {code}", **more)

    parameter_error = {"status": "parameter-error", "data": {"message": "`to` parameter is required"}}
    yield postal("InvalidServerAPIKey", CONFIGURATION)
    yield postal("AccessDenied", CONFIGURATION)
    yield postal("ServerSuspended", CONFIGURATION)
    yield postal("UnauthenticatedFromAddress", CONFIGURATION, concerns=SENDER)
    yield postal("RateLimited", THROTTLED, wait_s=300, Retry_After="300")
    yield postal("ServerUnavailable", TRANSIENT, concerns=MAILER)
    yield _of("postal", 200, {"status": "error", "data": {"code": "NoRecipients"}}, PERMANENT, "postal error")
    yield _of("postal", 200, parameter_error, PERMANENT, "postal parameter-error")
    yield _of("postal", 200, "no JSON", ACCEPTED)
    yield _of("postal", 200, ["no object"], ACCEPTED)
    yield _of("postal", 200, {"status": "success", "data": {}}, ACCEPTED)


def _postmark() -> Iterator[Case]:
    def postmark(code: int, kind: Kind, status: int = 422, **more: Any) -> Case:
        body = {"ErrorCode": code, "Message": "?"}
        return _of("postmark", status, body, kind, f"postmark {code}", **more)

    yield postmark(10, CONFIGURATION, 401)
    yield postmark(100, TRANSIENT, 503, concerns=MAILER)
    yield postmark(100, TRANSIENT, concerns=MAILER)
    yield postmark(300, PERMANENT)
    yield postmark(400, CONFIGURATION, concerns=SENDER)
    yield postmark(401, CONFIGURATION, concerns=SENDER)
    yield postmark(405, CONFIGURATION)
    yield postmark(412, CONFIGURATION)
    yield postmark(413, CONFIGURATION)
    yield postmark(429, THROTTLED)
    yield postmark(429, THROTTLED, 429)
    yield postmark(1235, CONFIGURATION)
    yield postmark(1101, PERMANENT)
    yield _of("postmark", 422, {"ErrorCode": 9999, "Message": "?"}, PERMANENT)
    yield _of("postmark", 200, {"ErrorCode": 0, "Message": "OK"}, ACCEPTED)
    yield _of("postmark", 200, "<html>", ACCEPTED)


def _resend() -> Iterator[Case]:
    def resend(status: int, name: str, kind: Kind, **more: Any) -> Case:
        body = {"statusCode": status, "name": name, "message": "?"}
        return _of("resend", status, body, kind, f"resend {name}", **more)

    yield resend(401, "missing_api_key", CONFIGURATION)
    yield resend(401, "restricted_api_key", CONFIGURATION)
    yield resend(403, "invalid_api_key", CONFIGURATION)
    yield resend(403, "validation_error", CONFIGURATION, concerns=SENDER)
    yield resend(409, "concurrent_idempotent_requests", TRANSIENT, may_be_sent=True)
    yield resend(409, "invalid_idempotent_request", PERMANENT, may_be_sent=True)
    yield resend(429, "daily_quota_exceeded", THROTTLED, wait_s=QUOTA_S, ratelimit_reset="1")
    yield resend(429, "monthly_quota_exceeded", THROTTLED, wait_s=86400, Retry_After="86400")
    yield resend(429, "rate_limit_exceeded", THROTTLED, wait_s=1, ratelimit_reset="1", ratelimit_remaining="0")
    yield resend(500, "application_error", UNKNOWN, concerns=MAILER)
    yield resend(400, "validation_error", PERMANENT)
    yield resend(422, "invalid_from_address", PERMANENT)
    yield resend(451, "security_error", PERMANENT)
    yield _of("resend", 200, {"what": "?"}, ACCEPTED)


def _scaleway() -> Iterator[Case]:
    def scaleway(status: int, kind_of_error: str, kind: Kind, **more: Any) -> Case:
        return _of(
            "scaleway", status, {"type": kind_of_error, "message": "?"}, kind, f"scaleway {kind_of_error}", **more
        )

    yield scaleway(401, "denied_authentication", CONFIGURATION)
    yield scaleway(403, "permissions_denied", CONFIGURATION)
    yield scaleway(403, "quotas_exceeded", THROTTLED, wait_s=QUOTA_S)
    yield scaleway(409, "transient_state", TRANSIENT)
    yield scaleway(423, "locked", CONFIGURATION)
    yield scaleway(400, "invalid_arguments", PERMANENT)
    yield _of("scaleway", 400, {"message": "Invalid email from address"}, PERMANENT)
    yield _of("scaleway", 200, {"what": "?"}, ACCEPTED)
    yield _of("scaleway", 200, "no JSON", ACCEPTED)


def _sendgrid() -> Iterator[Case]:
    def sendgrid(status: int, text: str, kind: Kind, code: str = "", **more: Any) -> Case:
        return _of("sendgrid", status, {"errors": [{"message": text, "field": None}]}, kind, code, **more)

    sender = "The from address does not match a verified Sender Identity."
    yield sendgrid(401, "Maximum credits exceeded", THROTTLED, "sendgrid", wait_s=QUOTA_S)
    yield sendgrid(401, "The provided authorization grant is invalid, expired, or revoked", CONFIGURATION)
    yield sendgrid(403, sender, CONFIGURATION, "sendgrid", concerns=SENDER)
    yield sendgrid(451, "?", CONFIGURATION, "sendgrid")
    yield sendgrid(
        429,
        "too many requests",
        THROTTLED,
        wait_s=30,
        Date="Sun, 22 Nov 2026 10:00:00 GMT",
        X_RateLimit_Reset="1795341630",
        X_RateLimit_Remaining="0",
    )
    yield sendgrid(400, "Does not contain a valid address.", PERMANENT)
    yield sendgrid(413, "too large", PERMANENT)


def _sparkpost() -> Iterator[Case]:
    def sparkpost(status: int, code: int, kind: Kind, **more: Any) -> Case:
        body = {"errors": [{"code": str(code), "message": "?", "description": "?"}]}
        return _of("sparkpost", status, body, kind, f"sparkpost {code}", **more)

    yield sparkpost(403, 1100, CONFIGURATION)
    yield sparkpost(400, 1502, TRANSIENT, concerns=MAILER)
    yield sparkpost(503, 1900, TRANSIENT, concerns=MAILER)
    yield sparkpost(420, 2102, THROTTLED, wait_s=QUOTA_S)
    yield sparkpost(420, 2103, CONFIGURATION, concerns=SENDER)
    yield sparkpost(400, 7001, CONFIGURATION, concerns=SENDER)
    yield sparkpost(400, 1902, PERMANENT)
    yield sparkpost(404, 1600, PERMANENT)
    yield _of("sparkpost", 401, {"errors": [{"message": "Unauthorized."}]}, CONFIGURATION)
    yield _of("sparkpost", 420, {"errors": [{"message": "Exceed Sending Limit (daily)"}]}, THROTTLED, wait_s=QUOTA_S)
    yield _of("sparkpost", 429, {"errors": [{"message": "Too many requests"}]}, THROTTLED)
    yield _of("sparkpost", 200, {"results": {}}, ACCEPTED)


def _unisender_go() -> Iterator[Case]:
    def unisender(status: int, code: int, kind: Kind, text: str = "?", **more: Any) -> Case:
        body = {"status": "error", "code": code, "message": text, **more.pop("body", {})}
        return _of("unisender_go", status, body, kind, f"unisender_go {code}", **more)

    yield unisender(401, 102, CONFIGURATION, "Error ID:1. Can not decode key")
    yield unisender(401, 114, CONFIGURATION, "User with id 1 not found")
    yield unisender(403, 215, CONFIGURATION)
    yield unisender(400, 206, CONFIGURATION, concerns=SENDER)
    yield unisender(403, 903, CONFIGURATION)
    yield unisender(400, 229, CONFIGURATION)
    yield unisender(403, 901, THROTTLED, wait_s=QUOTA_S)
    yield unisender(400, 204, TRANSIENT, body={"failed_emails": {"a@example.org": "temporary_unavailable"}})
    yield unisender(400, 204, PERMANENT, body={"failed_emails": {"a@example.org": "invalid"}})
    yield _of("unisender_go", 400, {"status": "error", "code": 999, "message": "?"}, PERMANENT)
    yield _of("unisender_go", 429, {"status": "error"}, THROTTLED)
    yield _of("unisender_go", 200, {"status": "success"}, ACCEPTED)
    yield _of("unisender_go", 200, "no JSON", ACCEPTED)


def _any_other() -> Iterator[Case]:
    """By the status alone, of an answer without words that its table knows."""
    for status, kind, concerns in (
        (301, CONFIGURATION, None),
        (400, PERMANENT, None),
        (401, CONFIGURATION, None),
        (402, CONFIGURATION, None),
        (403, CONFIGURATION, None),
        (404, CONFIGURATION, None),
        (405, CONFIGURATION, None),
        (408, TRANSIENT, MAILER),
        (409, PERMANENT, None),
        (410, PERMANENT, None),
        (413, PERMANENT, None),
        (415, PERMANENT, None),
        (420, THROTTLED, None),
        (422, PERMANENT, None),
        (425, TRANSIENT, MAILER),
        (429, THROTTLED, None),
        (500, UNKNOWN, MAILER),
        (502, UNKNOWN, MAILER),
        (503, TRANSIENT, MAILER),
        (504, UNKNOWN, MAILER),
        (599, UNKNOWN, MAILER),
    ):
        yield _of("resend", status, {}, kind, concerns=concerns)
    yield _of("scaleway", 409, {"message": "a concurrent request"}, TRANSIENT, may_be_sent=True)
    yield _of("brevo", 429, {"message": "daily quota exceeded"}, THROTTLED, wait_s=QUOTA_S)
    yield _of("resend", 503, {}, TRANSIENT, concerns=MAILER, wait_s=60, Retry_After="60")
    yield _of("resend", 500, {}, UNKNOWN, concerns=MAILER, wait_s=60, Retry_After="60")
    yield _of("brevo", 429, {"message": "Please try again in 5 minutes"}, THROTTLED, wait_s=300)


CASES: tuple[Case, ...] = tuple(
    case
    for cases in (
        _amazon_ses,
        _brevo,
        _mailersend,
        _mailgun,
        _mailjet,
        _mailtrap,
        _mandrill,
        _postal,
        _postmark,
        _resend,
        _scaleway,
        _sendgrid,
        _sparkpost,
        _unisender_go,
        _any_other,
    )
    for case in cases()
)
