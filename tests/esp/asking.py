"""The fourteen ESPs: how to configure Anymail's backend for a server of ours, and what each calls a yes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from anymail.exceptions import AnymailNotSupportedWarning

from mail_service.diagnosis import Context, Stage, diagnose
from mail_service.local.http_server import Rule
from mail_service.mailers import Mailer, open_mailer, unwrap
from mail_service.outcome import Diagnosis, Kind, Receipt, Scope
from mail_service.settings import MailerSettings
from tests.mailers.building import an_email

A, B = "a@example.org", "b@example.org"

#: OPTIONS besides the address
CREDENTIALS: Mapping[str, dict[str, Any]] = {
    "amazon_ses": {},
    "brevo": {"api_key": "key"},
    "mailersend": {"api_token": "key"},
    "mailgun": {"api_key": "key"},
    "mailjet": {"api_key": "key", "secret_key": "secret"},
    "mailtrap": {"api_token": "key"},
    "mandrill": {"api_key": "key"},
    "postal": {"api_key": "key"},
    "postmark": {"server_token": "key"},
    "resend": {"api_key": "key"},
    "scaleway": {"secret_key": "key", "project_id": "project"},
    "sendgrid": {"api_key": "key"},
    "sparkpost": {"api_key": "key"},
    "unisender_go": {"api_key": "key"},
}
ESPS = tuple(CREDENTIALS)

#: bodies of a yes for A alone
YES: Mapping[str, Any] = {
    "amazon_ses": {"MessageId": "1"},
    "brevo": {"messageId": "1"},
    "mailersend": "",
    "mailgun": {"id": "1", "message": "Queued. Thank you."},
    "mailjet": {"Messages": [{"Status": "success", "To": [{"Email": A, "MessageID": 1}]}]},
    "mailtrap": {"success": True, "message_ids": ["1"]},
    "mandrill": [{"email": A, "status": "sent", "_id": "1"}],
    "postal": {"status": "success", "data": {"messages": {A: {"id": 1}}}},
    "postmark": {"ErrorCode": 0, "Message": "OK", "MessageID": "1", "To": A},
    "resend": {"id": "1"},
    "scaleway": {"emails": [{"id": "1", "mail_rcpt": A, "status": "new"}]},
    "sendgrid": "",
    "sparkpost": {"results": {"id": "1", "total_accepted_recipients": 1, "total_rejected_recipients": 0}},
    "unisender_go": {"status": "success", "job_id": "1", "emails": [A], "failed_emails": {}},
}


def path_of(esp: str) -> str:
    return f"anymail.backends.{esp}.EmailBackend"


def options_for(esp: str, url: str) -> dict[str, Any]:
    if esp != "amazon_ses":
        return {**CREDENTIALS[esp], "api_url": url}
    access = {"aws_access_key_id": "id", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    return {"client_params": {**access, "endpoint_url": url}}


def a_mailer(esp: str, url: str, **more: Any) -> Mailer:
    options = {**options_for(esp, url), **more}
    return open_mailer(MailerSettings(name="default", backend=path_of(esp), options=options))


def yes(esp: str) -> Rule:
    return Rule(status=200, headers={"X-Message-ID": "1"}, body=YES[esp])


def send(mailer: Mailer, *to: str, **attributes: Any) -> list[Receipt]:
    """Send one mail, whatever Anymail thinks of the provider."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnymailNotSupportedWarning)
        return mailer.send(an_email(*(to or (A,)), **attributes), list(to or (A,)))


def failure(mailer: Mailer, *to: str, **attributes: Any) -> tuple[BaseException, Context]:
    """What a classifier is asked about an attempt that failed for all alike."""
    try:
        receipts = send(mailer, *to, **attributes)
    except Exception as raised:  # noqa: BLE001 - any, it is what the caller looks at
        error, stage = unwrap(raised)
        return error, context_of(mailer, stage)
    raise AssertionError(f"not raised: {receipts}")


def context_of(mailer: Mailer, stage: Stage | None = None) -> Context:
    return Context(mailer=mailer.name, backend=mailer.backend, stage=stage)


def judged(mailer: Mailer, *to: str, **attributes: Any) -> Diagnosis:
    return diagnose(*failure(mailer, *to, **attributes))


def usual_scope(kind: Kind) -> Scope:
    return Scope.MAILER if kind in {Kind.THROTTLED, Kind.CONFIGURATION} else Scope.MAIL
