"""Servers of all kinds, and mails to them that are refused."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from mail_service.diagnosis import Context, diagnose
from mail_service.local.http_server import HttpServer
from mail_service.local.smtp_server import Rule, SmtpServer
from mail_service.mailers import open_mailer, unwrap
from mail_service.outcome import Diagnosis
from tests.mailers.building import an_email, smtp_settings

from .asking import A, context_of
from .replies import Case
from .talking import talking


@dataclass(frozen=True, kw_only=True)
class Servers:
    """One of each kind."""

    http: HttpServer
    #: with a certificate that nobody trusts
    https: HttpServer
    smtp: SmtpServer
    #: which knows a user called ``user``
    smtp_login: SmtpServer
    #: with STARTTLS and a certificate that nobody trusts
    smtp_tls: SmtpServer


def refused(case: Case, servers: Servers) -> tuple[BaseException, Context]:
    """What a classifier is asked about this reply."""
    with ExitStack() as stack:
        options: dict[str, Any] = {}
        if case.at == "starttls":
            port = stack.enter_context(talking({"STARTTLS": case.reply}, offers=("STARTTLS",)))
            options = {"use_tls": True}
        else:
            server = servers.smtp_login if case.at == "auth" else servers.smtp
            server.script(Rule(at="end" if case.at == "body" else case.at, reply=case.reply))
            port = server.port
            options = {"username": "user", "password": "right"} if case.at == "auth" else {}
        return asked_over_smtp(port, **options)


def asked_over_smtp(port: int, **options: Any) -> tuple[BaseException, Context]:
    """What a classifier is asked about a mail to one recipient over SMTP."""
    asked: list[tuple[BaseException, Context]] = []

    def classify(error: BaseException, context: Context) -> Diagnosis:
        asked.append((error, context))
        return diagnose(error, context)

    mailer = open_mailer(smtp_settings(port, timeout=5, **options), classify=classify)
    try:
        mailer.send(an_email(A), [A])
    except Exception as raised:  # noqa: BLE001 - any, it is what the caller looks at
        error, stage = unwrap(raised)
        return error, context_of(mailer, stage)
    finally:
        mailer.close()
    return asked[0]
