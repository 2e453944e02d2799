"""
A web application that mails, for a server that loads it before it forks: the connections are open by then.

``GET /`` sends a mail through the client and one through Django, and answers ``{"pid": ..., "ids": [...]}``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage

from mail_service.client import MailClient

AMQP_URI = os.environ["AMQP_URI"]
#: of the mails that were sent before the fork
PRELOADED = ("before-1", "before-2")

settings.configure(
    EMAIL_BACKEND="mail_service.django.EmailBackend", MAIL_SERVICE={"AMQP_URI": AMQP_URI, "TIMEOUT": 20}, USE_TZ=True
)
client = MailClient(AMQP_URI, timeout=20)


def send(*ids: str | None) -> list[str]:
    """One mail through each door; returns their ids."""
    by_client, by_django = ids
    message = {"from_email": "shop@example.org", "to": ["ann@example.org"], "subject": "client"}
    answer = client.submit(message, id=by_client)
    email = EmailMessage("django", "", "shop@example.org", ["ann@example.org"])
    email.mail_service = {"id": by_django}
    email.send()
    return [answer["id"], email.mail_service_status["id"]]


def application(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = json.dumps({"pid": os.getpid(), "ids": send(None, None)}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


send(*PRELOADED)
