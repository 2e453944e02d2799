"""What a program that sends mail gets into its process: neither nameko nor eventlet, by any way in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "code",
    [
        "import mail_service.client",
        "import mail_service.message",
        # Django imports a backend when the first mail is sent; its settings are not needed before
        "import mail_service.django",
        """
from django.conf import settings
settings.configure(INSTALLED_APPS=["mail_service.django"], EMAIL_BACKEND="mail_service.django.EmailBackend",
                   MAIL_SERVICE={"AMQP_URI": "amqp://127.0.0.1:1//", "TIMEOUT": 0.2})
import django
django.setup()
from django.core import mail
from django.core.management import call_command
from mail_service.django import EmailBackend
call_command("check")
assert EmailBackend(fail_silently=True).send_messages([mail.EmailMessage(to=["ann@example.org"])]) == 0
assert EmailBackend(fail_silently=True, wait=True).send_messages([mail.EmailMessage(to=["ann@example.org"])]) == 0
""",
    ],
    ids=["client", "message", "django", "a mail from Django"],
)
def test_nothing_brings_eventlet_or_nameko(code: str) -> None:
    check = """
import sys
found = {"eventlet", "greenlet", "nameko", "nameko_amqp_retry", "sqlalchemy"} & set(sys.modules)
assert not found, found
"""

    subprocess.run([sys.executable, "-c", code + check], check=True, timeout=60, cwd=ROOT)
