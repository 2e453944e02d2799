"""
What errors mean by their class: the network's, TLS', the configuration's and Anymail's own.

Names, not classes, so that nothing has to be installed or imported. A row fits the named class and those derived
from it, which also covers the classes that Anymail makes at run time out of its own and one of requests'.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mail_service.diagnosis import rows
from mail_service.diagnosis.context import BEFORE_CONTENT, Context, Stage
from mail_service.diagnosis.reading import class_name, class_names, described, inside, text_of
from mail_service.outcome import Diagnosis, Kind, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRow:
    """One line of the table."""

    #: full names of classes
    names: frozenset[str]
    kind: Kind
    #: who says so
    source: str
    #: None for any, also an unknown one
    stages: frozenset[Stage] | None = None
    #: full names of classes, one of which the error was made from; see ``reading.inside``
    made_from: frozenset[str] = frozenset()
    #: a regular expression to be found in the error's text
    text: str = ""
    certainly_not_sent: bool = False
    #: whom it is about; None is the usual of its kind
    scope: Scope | None = None

    def fits(self, error: BaseException, stage: Stage | None) -> bool:
        """Whether this row speaks about *error*."""
        return (
            bool(class_names(error) & self.names)
            and (self.stages is None or stage in self.stages)
            and (not self.made_from or any(class_names(one) & self.made_from for one in inside(error)))
            and (not self.text or re.search(self.text, text_of(error), re.IGNORECASE) is not None)
        )


def _row(
    kind: Kind,
    source: str,
    *names: str,
    stages: frozenset[Stage] | None = None,
    made_from: frozenset[str] = frozenset(),
    text: str = "",
    not_sent: bool = True,
    scope: Scope | None = None,
) -> ErrorRow:
    return ErrorRow(
        names=frozenset(names),
        kind=kind,
        source=source,
        stages=stages,
        made_from=made_from,
        text=text,
        certainly_not_sent=not_sent,
        scope=scope,
    )


_CERTIFICATE: Final = frozenset({"ssl.SSLCertVerificationError", "urllib3.util.ssl_match_hostname.CertificateError"})
_NO_CONNECTION: Final = frozenset(
    {
        "urllib3.exceptions.NewConnectionError",
        "urllib3.exceptions.ConnectTimeoutError",
        "urllib3.exceptions.ProxyError",
        "socket.gaierror",
        "builtins.ConnectionRefusedError",
    }
)
#: what OpenSSL says when the two sides cannot agree at all
_NO_COMMON_TLS: Final = (
    r"WRONG_VERSION_NUMBER|UNSUPPORTED_PROTOCOL|NO_PROTOCOLS_AVAILABLE|HTTP_REQUEST|ALERT_\w*(CERTIFICATE|UNKNOWN_CA)"
)
_FAILED_ANYWHERE: Final = ("builtins.OSError", "smtplib.SMTPServerDisconnected")

#: first match wins
ROWS: Final[tuple[ErrorRow, ...]] = (
    _row(
        Kind.UNKNOWN,
        "an attempt that was given up may have been about to succeed",
        "mail_service.diagnosis.context.DeadlineExceeded",
        "eventlet.timeout.Timeout",
        not_sent=False,
        scope=Scope.MAILER,
    ),
    _row(
        Kind.CONFIGURATION,
        "Django's and Anymail's words for a setting that is missing or wrong, a package that is not there",
        "django.core.exceptions.ImproperlyConfigured",
        "builtins.ImportError",
    ),
    _row(
        Kind.CONFIGURATION,
        "botocore/exceptions.py: the credentials, the profile or the region are missing or cannot be had",
        "botocore.exceptions.NoCredentialsError",
        "botocore.exceptions.PartialCredentialsError",
        "botocore.exceptions.CredentialRetrievalError",
        "botocore.exceptions.NoRegionError",
        "botocore.exceptions.InvalidRegionError",
        "botocore.exceptions.ProfileNotFound",
        "botocore.exceptions.ConfigNotFound",
        "botocore.exceptions.ConfigParseError",
        "botocore.exceptions.SSOError",
        "botocore.exceptions.TokenRetrievalError",
    ),
    _row(
        Kind.CONFIGURATION,
        "requests/exceptions.py: the provider's URL or a header made of a setting is malformed",
        "requests.exceptions.MissingSchema",
        "requests.exceptions.InvalidSchema",
        "requests.exceptions.InvalidURL",
        "requests.exceptions.InvalidHeader",
        "requests.exceptions.TooManyRedirects",
    ),
    _row(Kind.CONFIGURATION, "RFC 5280, 6: the certificate is not valid for this host", *_CERTIFICATE),
    _row(
        Kind.CONFIGURATION,
        "the same, as requests and boto wrap it",
        "requests.exceptions.SSLError",
        "botocore.exceptions.SSLError",
        "urllib.error.URLError",
        made_from=_CERTIFICATE,
    ),
    _row(
        Kind.CONFIGURATION,
        "OpenSSL: no TLS on this port, no version in common, or a certificate of ours that the server refuses",
        "ssl.SSLError",
        "requests.exceptions.SSLError",
        text=_NO_COMMON_TLS,
    ),
    # smtplib's own refusals to go on
    _row(
        Kind.CONFIGURATION,
        "smtplib: the server has no STARTTLS or AUTH, which the configuration asks for",
        "smtplib.SMTPNotSupportedError",
        stages=frozenset({"helo", "starttls", "auth"}),
    ),
    _row(
        Kind.PERMANENT,
        "smtplib: the server lacks what this mail needs, such as SMTPUTF8 (RFC 6531)",
        "smtplib.SMTPNotSupportedError",
    ),
    # Anymail's own errors
    _row(
        Kind.PERMANENT,
        "anymail/exceptions.py: the provider refused every recipient",
        "anymail.exceptions.AnymailRecipientsRefused",
    ),
    _row(
        Kind.PERMANENT,
        "anymail/exceptions.py: this mail cannot be put into the provider's words; raised before the request",
        "anymail.exceptions.AnymailInvalidAddress",
        "anymail.exceptions.AnymailSerializationError",
        "anymail.exceptions.AnymailUnsupportedFeature",
        "mail_service.mailers.CannotExpress",
    ),
    _row(
        Kind.PERMANENT,
        "anymail/backends/mailgun.py: no domain in the From, or one with a slash; raised before the request",
        "anymail.exceptions.AnymailError",
        text="unknown sender domain|in sender domain",
    ),
    # the network, before anything was sent
    _row(
        Kind.TRANSIENT,
        "no connection was made: timeout, DNS, refused, proxy",
        "requests.exceptions.ConnectTimeout",
        "requests.exceptions.ProxyError",
        "socket.gaierror",
        "socket.herror",
        "builtins.ConnectionRefusedError",
        "botocore.exceptions.EndpointConnectionError",
        "botocore.exceptions.ConnectTimeoutError",
        "botocore.exceptions.ProxyConnectionError",
        "httpx.ConnectError",
        "httpx.ConnectTimeout",
        *_NO_CONNECTION,
        scope=Scope.MAILER,
    ),
    _row(
        Kind.TRANSIENT,
        "requests/adapters.py: every fault of a connection is a ConnectionError, only its reason tells them apart",
        "requests.exceptions.ConnectionError",
        "urllib.error.URLError",
        made_from=_NO_CONNECTION,
        scope=Scope.MAILER,
    ),
    # files that a configuration names: certificates, folders of mail
    _row(
        Kind.CONFIGURATION,
        "errno(3): a file that the configuration names is not there or not ours to use",
        "builtins.FileNotFoundError",
        "builtins.PermissionError",
        "builtins.NotADirectoryError",
        "builtins.IsADirectoryError",
    ),
    _row(
        Kind.CONFIGURATION,
        "smtplib.login: no way to log in that both sides know",
        "smtplib.SMTPException",
        stages=frozenset({"auth"}),
        text="No suitable authentication method",
    ),
    _row(
        Kind.TRANSIENT,
        "RFC 5321, 4.1.1.4: a server takes no mail before the end of its content",
        *_FAILED_ANYWHERE,
        stages=BEFORE_CONTENT,
        scope=Scope.MAILER,
    ),
    # the network, when the mail may have been taken
    _row(
        Kind.UNKNOWN,
        "RFC 1047: the answer was lost, not necessarily the mail",
        *_FAILED_ANYWHERE,
        "botocore.exceptions.HTTPClientError",
        "http.client.HTTPException",
        "urllib3.exceptions.HTTPError",
        "httpx.TransportError",
        not_sent=False,
        scope=Scope.MAILER,
    ),
)


def from_error(error: BaseException, context: Context) -> Diagnosis | None:
    """Say what *error* means by its class; None when no row knows it."""
    row = rows.first(ROWS, lambda row: row.fits(error, context.stage))
    if row is None:
        return None
    return Diagnosis(
        kind=row.kind,
        text=described(error),
        code=f"{class_name(error)} at {context.stage}" if context.stage else class_name(error),
        certainly_not_sent=row.certainly_not_sent,
        scope=row.scope,
    )
