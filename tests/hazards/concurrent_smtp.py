"""
Ten mails at once through one mailer, twice, in an event loop.

    python -m tests.hazards.concurrent_smtp stock|ours PORT
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import eventlet

eventlet.monkey_patch()

from django.conf import settings  # noqa: E402
from django.core.mail import EmailMessage  # noqa: E402

MAILS = 10


def stock(port: int) -> Callable[[EmailMessage], Any]:
    """Django's backend, opened once and kept, as its documentation shows."""
    from django.core.mail import get_connection

    backend = get_connection("django.core.mail.backends.smtp.EmailBackend", host="127.0.0.1", port=port, timeout=60)
    backend.open()
    return lambda email: backend.send_messages([email])


def ours(port: int) -> Callable[[EmailMessage], Any]:
    from mail_service.mailers import open_mailer
    from mail_service.settings import load_settings

    options = {"host": "127.0.0.1", "port": port, "timeout": 60}
    entry = {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": options}
    mailer = open_mailer(load_settings({"mail": {"mailers": {"default": entry}}}).mailers["default"])
    return lambda email: mailer.send(email, email.to, attempt=1)


def main(stack: str, port: int) -> None:
    settings.configure()
    send = {"stock": stock, "ours": ours}[stack](port)
    pool = eventlet.GreenPool(MAILS)
    for _ in range(2):
        emails = [EmailMessage(str(n), "text", "a@example.org", [f"to{n}@example.org"]) for n in range(MAILS)]
        list(pool.imap(send, emails))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
