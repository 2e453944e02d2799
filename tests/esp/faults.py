"""
Errors that are no answer: of the network, TLS, the configuration, and Anymail; how to get each, and what it means.
"""

from __future__ import annotations

import smtplib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from anymail.exceptions import AnymailRecipientsRefused
from django.core.mail.backends.base import BaseEmailBackend

from mail_service.diagnosis import Context, DeadlineExceeded
from mail_service.local.http_server import Rule
from mail_service.local.process import free_port
from mail_service.local.smtp_server import Rule as SmtpRule
from mail_service.mailers import open_mailer
from mail_service.outcome import Kind, Scope
from tests.mailers.building import settings_of

from .answers import ACCEPTED, CONFIGURATION, MAILER, PERMANENT, TRANSIENT, UNKNOWN
from .asking import a_mailer, failure, options_for, path_of, usual_scope
from .sending import Servers, asked_over_smtp
from .talking import talking

Fault = tuple[BaseException, Context]


class Raising(BaseEmailBackend):
    """Raises what it was configured with: errors that come from elsewhere, or from other backends than those here."""

    def __init__(self, error: BaseException, **options: Any) -> None:
        super().__init__(**options)
        self._error = error

    def send_messages(self, email_messages: Any) -> int:
        raise self._error


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Something that goes wrong."""

    name: str
    happen: Callable[[Servers], Fault]
    kind: Kind
    concerns: Scope

    def __str__(self) -> str:
        return self.name


def _of(name: str, kind: Kind, happen: Callable[[Servers], Fault], concerns: Scope | None = None) -> Case:
    return Case(name=name, happen=happen, kind=kind, concerns=concerns or usual_scope(kind))


def _raised(error: BaseException) -> Callable[[Servers], Fault]:
    return lambda _: failure(open_mailer(settings_of(f"{__name__}.Raising", error=error)))


def _configured(esp: str, /, **options: Any) -> Callable[[Servers], Fault]:
    return lambda _: failure(open_mailer(settings_of(path_of(esp), **options)))


def _answered(esp: str, *rules: Rule, **options: Any) -> Callable[[Servers], Fault]:
    """Over HTTP, by a server that obeys *rules*."""

    def happen(servers: Servers) -> Fault:
        servers.http.script(*rules)
        return failure(a_mailer(esp, servers.http.url, **options))

    return happen


def _ses(url: str, **config: Any) -> Fault:
    params = {**options_for("amazon_ses", url)["client_params"], "config": config}
    return failure(open_mailer(settings_of(path_of("amazon_ses"), client_params=params)))


def _ses_answered(*rules: Rule, **config: Any) -> Callable[[Servers], Fault]:
    def happen(servers: Servers) -> Fault:
        servers.http.script(*rules)
        return _ses(servers.http.url, **config)

    return happen


def _mail(esp: str, /, **attributes: Any) -> Callable[[Servers], Fault]:
    """A mail that the backend does not take."""
    return lambda servers: failure(a_mailer(esp, servers.http.url), **attributes)


def _over_smtp(*rules: SmtpRule, **options: Any) -> Callable[[Servers], Fault]:
    def happen(servers: Servers) -> Fault:
        servers.smtp.script(*rules)
        return asked_over_smtp(servers.smtp.port, **options)

    return happen


def _closed() -> str:
    return f"http://127.0.0.1:{free_port()}"


def _no_way_to_log_in(_: Servers) -> Fault:
    with talking({}, offers=("AUTH XUNHEARD",)) as port:
        return asked_over_smtp(port, username="user", password="right")


def _https_at(server: str) -> Callable[[Servers], Fault]:
    return lambda servers: failure(a_mailer("resend", f"https://127.0.0.1:{getattr(servers, server).port}"))


_HANGING = Rule(hang_s=60)

CASES: tuple[Case, ...] = (
    # nobody knows how it would have ended
    _of("given up", UNKNOWN, lambda _: (DeadlineExceeded("took 120 s"), Context(stage="connect")), MAILER),
    # the configuration
    _of("no key", CONFIGURATION, _configured("resend")),
    _of("no such backend", CONFIGURATION, _configured("unheard_of")),
    _of("package missing", CONFIGURATION, _raised(ModuleNotFoundError("No module named 'boto3'"))),
    _of(
        "boto without credentials", CONFIGURATION, _configured("amazon_ses", client_params={"region_name": "eu-west-1"})
    ),
    _of("boto without a region", CONFIGURATION, _configured("amazon_ses")),
    _of("boto without this profile", CONFIGURATION, _configured("amazon_ses", session_params={"profile_name": "me"})),
    _of("no URL", CONFIGURATION, _configured("resend", api_key="key", api_url="nonsense")),
    _of("no certificate of ours", CONFIGURATION, _over_smtp(use_tls=True, ssl_certfile="/does/not/exist.pem")),
    # TLS
    _of("certificate over SMTP", CONFIGURATION, lambda servers: asked_over_smtp(servers.smtp_tls.port, use_tls=True)),
    _of("certificate over HTTP", CONFIGURATION, _https_at("https")),
    _of("certificate by boto", CONFIGURATION, lambda servers: _ses(servers.https.url)),
    _of("no TLS at all", CONFIGURATION, _https_at("smtp")),
    _of("no STARTTLS", CONFIGURATION, _over_smtp(use_tls=True)),
    _of("no way to log in", CONFIGURATION, _no_way_to_log_in),
    # the mail
    _of("no SMTPUTF8", PERMANENT, _raised(smtplib.SMTPNotSupportedError("SMTPUTF8 not supported by server"))),
    _of("all refused", PERMANENT, _raised(AnymailRecipientsRefused())),
    _of("unsupported feature", PERMANENT, _mail("postmark", envelope_sender="bounces@example.org")),
    _of("not JSON", PERMANENT, _mail("resend", metadata={"what": object()})),
    _of("no address", PERMANENT, _mail("resend", from_email="no address")),
    _of("slash in a domain", PERMANENT, _configured("mailgun", api_key="key", sender_domain="example.org/x")),
    # the network, before
    _of("SMTP refused", TRANSIENT, lambda _: asked_over_smtp(free_port()), MAILER),
    _of("HTTP refused", TRANSIENT, lambda _: failure(a_mailer("resend", _closed())), MAILER),
    _of("boto refused", TRANSIENT, lambda _: _ses(_closed()), MAILER),
    _of("SMTP drop at connect", TRANSIENT, _over_smtp(SmtpRule(at="connect", drop=True)), MAILER),
    _of("SMTP drop at MAIL", TRANSIENT, _over_smtp(SmtpRule(at="mail", drop=True)), MAILER),
    _of("SMTP drop at RCPT", TRANSIENT, _over_smtp(SmtpRule(at="rcpt", drop=True)), MAILER),
    _of("SMTP drop at DATA", TRANSIENT, _over_smtp(SmtpRule(at="data", drop=True)), MAILER),
    # the network, when the mail may have been taken
    _of("SMTP drop in the content", UNKNOWN, _over_smtp(SmtpRule(at="body", drop=True)), MAILER),
    _of("SMTP drop at the end", UNKNOWN, _over_smtp(SmtpRule(at="end", accept=True, drop=True)), MAILER),
    _of("HTTP drop at connect", UNKNOWN, _answered("resend", Rule(drop="connection")), MAILER),
    _of("HTTP drop in the request", UNKNOWN, _answered("resend", Rule(drop="head", reset=True)), MAILER),
    _of("HTTP drop after the request", UNKNOWN, _answered("resend", Rule(drop="request")), MAILER),
    _of("HTTP reset after the request", UNKNOWN, _answered("resend", Rule(drop="request", reset=True)), MAILER),
    _of("HTTP no answer", UNKNOWN, _answered("resend", _HANGING, requests_timeout=0.3), MAILER),
    _of("HTTP slow answer", UNKNOWN, _answered("resend", Rule(status=200, byte_s=1), requests_timeout=0.3), MAILER),
    _of("HTTP half an answer", UNKNOWN, _answered("resend", Rule(status=200, body="x" * 99, cut_after=9)), MAILER),
    _of("HTTP garbage", UNKNOWN, _answered("resend", Rule(garbage="SSH-2.0-what\r\n")), MAILER),
    _of("boto no answer", UNKNOWN, _ses_answered(_HANGING, read_timeout=0.3), MAILER),
    _of("boto drop after the request", UNKNOWN, _ses_answered(Rule(drop="request")), MAILER),
    _of("boto half an answer", ACCEPTED, _ses_answered(Rule(status=200, body="x" * 99, cut_after=9))),
)
