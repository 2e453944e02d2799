"""Real Anymail backends that ask a server of ours, and what it has to answer for them to be content."""

from __future__ import annotations

from typing import Any

from mail_service.diagnosis import Context, diagnose
from mail_service.local.http_server import HttpServer, Rule
from mail_service.mailers import unwrap
from mail_service.mailers.django_backend import DjangoMailer
from mail_service.outcome import Diagnosis, Receipt
from mail_service.settings import MailerSettings

from .building import an_email

#: of each backend: its OPTIONS besides the address, and the body of a yes for one recipient
PROVIDERS: dict[str, tuple[dict[str, Any], Any]] = {
    "resend": ({"api_key": "key"}, {"id": "id-$number"}),
    "brevo": ({"api_key": "key"}, {"messageId": "id-$number"}),
    "mailersend": ({"api_token": "key"}, ""),
}
SES = "anymail.backends.amazon_ses.EmailBackend"
TO = "a@example.org"


def backend_of(provider: str) -> str:
    return f"anymail.backends.{provider}.EmailBackend"


def yes(provider: str, **more: Any) -> Rule:
    headers = {"X-Message-ID": "id", **more.pop("headers", {})}
    return Rule(status=202, body=PROVIDERS[provider][1], headers=headers, **more)


def settings_for(provider: str, server: HttpServer, **entry: Any) -> MailerSettings:
    options = {**PROVIDERS[provider][0], "api_url": server.url, **entry.pop("options", {})}
    return MailerSettings(name="default", backend=entry.pop("backend", backend_of(provider)), options=options, **entry)


def ses_settings(server: HttpServer, **config: Any) -> MailerSettings:
    params = {
        "region_name": "eu-west-1",
        "aws_access_key_id": "id",
        "aws_secret_access_key": "key",
        "endpoint_url": server.url,
    }
    return MailerSettings(
        name="default", backend=SES, options={"client_params": params | ({"config": config} if config else {})}
    )


def send(mailer: DjangoMailer, *to: str, **attributes: Any) -> list[Receipt]:
    return mailer.send(an_email(*(to or (TO,)), **attributes), list(to or (TO,)))


def failure(mailer: DjangoMailer, *to: str, **attributes: Any) -> Diagnosis:
    """What the default classifier says about an attempt that has to fail for all."""
    try:
        receipts = send(mailer, *to, **attributes)
    except Exception as error:  # noqa: BLE001 - any, it is what the caller looks at
        cause, stage = unwrap(error)
        return diagnose(cause, Context(stage=stage))
    raise AssertionError(f"accepted: {receipts}")
