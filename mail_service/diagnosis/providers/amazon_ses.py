"""Amazon SES: boto's error codes of API v2 and v1, and the status of each mail of a bulk request."""

from typing import Final

from mail_service.diagnosis import waits
from mail_service.diagnosis.provider import Fates, Provider
from mail_service.diagnosis.rows import AnswerRow
from mail_service.outcome import Kind, Scope

_V2: Final = "botocore's model of sesv2, SendEmail and SendBulkEmail, 2026"
_V1: Final = "botocore's model of ses, SendEmail and SendRawEmail, 2026"
_COMMON: Final = "docs.aws.amazon.com/ses/latest/APIReference-V2/CommonErrors.html, 2026"
_QUOTAS: Final = "docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas-errors.html, 2026"
_ERRORS: Final = "docs.aws.amazon.com/ses/latest/dg/troubleshoot-error-messages.html, 2026"

#: of a request, and of each mail of a bulk request; v1 has other spellings
_ROWS: Final = (
    AnswerRow(
        codes="ACCOUNT_DAILY_QUOTA_EXCEEDED AccountDailyQuotaExceeded LimitExceededException",
        kind=Kind.THROTTLED,
        wait_s=waits.QUOTA_S,
        source=f"{_V2}: the quota of 24 hours",
    ),
    AnswerRow(
        codes="Throttling ThrottlingException TooManyRequestsException",
        text=waits.QUOTA_TEXT,
        kind=Kind.THROTTLED,
        wait_s=waits.QUOTA_S,
        source=f'{_QUOTAS}: "Daily message quota exceeded"',
    ),
    AnswerRow(
        codes="Throttling ThrottlingException TooManyRequestsException ACCOUNT_THROTTLED AccountThrottled",
        kind=Kind.THROTTLED,
        source=f'{_QUOTAS}: "Maximum sending rate exceeded"',
    ),
    AnswerRow(
        codes="MailFromDomainNotVerifiedException MailFromDomainNotVerified MAIL_FROM_DOMAIN_NOT_VERIFIED",
        kind=Kind.CONFIGURATION,
        scope=Scope.SENDER,
        source=f"{_V2}: the sending domain is not verified",
    ),
    AnswerRow(
        codes="MessageRejected MESSAGE_REJECTED BadRequestException",
        text=r"not verified",
        kind=Kind.CONFIGURATION,
        scope=Scope.SENDER,
        source=f'{_ERRORS}: "Email address is not verified"; in the sandbox also a recipient\'s',
    ),
    AnswerRow(
        codes="AccountSuspendedException ACCOUNT_SUSPENDED AccountSuspended SendingPausedException"
        " AccountSendingPausedException ACCOUNT_SENDING_PAUSED AccountSendingPaused"
        " ConfigurationSetSendingPausedException CONFIGURATION_SET_SENDING_PAUSED ConfigurationSetSendingPaused",
        kind=Kind.CONFIGURATION,
        source=f"{_V2}, {_V1}: the account or the configuration set may not send",
    ),
    AnswerRow(
        codes="TEMPLATE_NOT_FOUND TemplateDoesNotExist TemplateDoesNotExistException",
        kind=Kind.CONFIGURATION,
        scope=Scope.MAIL,
        source=f"{_V2}: the template that this mail asks for does not exist yet",
    ),
    AnswerRow(
        codes="NotFoundException",
        text="template",
        kind=Kind.CONFIGURATION,
        scope=Scope.MAIL,
        source=f"{_V2}: the template that this mail asks for does not exist yet",
    ),
    AnswerRow(
        codes="NotFoundException CONFIGURATION_SET_NOT_FOUND ConfigurationSetDoesNotExist"
        " ConfigurationSetDoesNotExistException INVALID_SENDING_POOL_NAME InvalidSendingPoolName",
        kind=Kind.CONFIGURATION,
        source=f"{_V2}, {_V1}: the configuration set or its pool of addresses does not exist",
    ),
    AnswerRow(
        codes="AccessDenied AccessDeniedException ExpiredToken ExpiredTokenException IncompleteSignature"
        " InvalidClientTokenId InvalidSignatureException MissingAuthenticationToken NotAuthorized OptInRequired"
        " RequestExpired SignatureDoesNotMatch UnrecognizedClientException",
        kind=Kind.CONFIGURATION,
        source=f"{_COMMON}: about the credentials, their rights, or our clock",
    ),
    AnswerRow(
        codes="ServiceUnavailable ServiceUnavailableException TRANSIENT_FAILURE TransientFailure",
        kind=Kind.TRANSIENT,
        scope=Scope.MAILER,
        source=f"{_COMMON}: 503, and a temporary issue with one mail of several",
    ),
    AnswerRow(
        codes="InternalFailure InternalServiceError InternalServiceErrorException",
        kind=Kind.UNKNOWN,
        scope=Scope.MAILER,
        source=f"{_COMMON}: 500, an unknown error",
    ),
    AnswerRow(
        codes="MessageRejected MESSAGE_REJECTED BadRequestException ValidationError INVALID_PARAMETER"
        " InvalidParameterValue FAILED Failed",
        kind=Kind.PERMANENT,
        source=f"{_V2}, {_V1}: the content or the parameters are not valid",
    ),
)

#: those that have a word of v2 for a mail's status
_OF_SINGLE_MAILS: Final = tuple(row for row in _ROWS if any(code.isupper() for code in row.codes.split()))

PROVIDER: Final = Provider(
    names=("Amazon SES",),
    codes=("Error.Code", "BulkEmailEntryResults.*.Status"),
    rows=_ROWS,
    # of a bulk request whose mails failed in different ways; when all failed alike, Anymail raises it as one error
    fates=Fates(items="BulkEmailEntryResults.*", codes=("Status",), rows=_OF_SINGLE_MAILS),
)
