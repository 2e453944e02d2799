"""What an import brings into a program's process: for one that sends mail neither nameko nor eventlet."""

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
        "import mail_service.testing",
        "import mail_service.pytest_plugin",
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
    ids=["client", "testing", "pytest plugin", "message", "django", "a mail from Django"],
)
def test_nothing_brings_eventlet_or_nameko(code: str) -> None:
    check = """
import sys
found = {"eventlet", "greenlet", "nameko", "nameko_amqp_retry", "sqlalchemy"} & set(sys.modules)
assert not found, found
"""

    subprocess.run([sys.executable, "-c", code + check], check=True, timeout=60, cwd=ROOT)


def test_checking_a_message_needs_no_broker_no_provider_and_no_settings() -> None:
    code = """
import sys
from mail_service.message import validate
validate({"to": "a@b.example", "from_email": "c@d.example"})
assert not {"eventlet", "nameko", "kombu", "anymail"} & set(sys.modules), sys.modules.keys()
from django.conf import settings
assert not settings.configured
"""

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)


@pytest.mark.parametrize("module", ["mail_service.testing", "mail_service.pytest_plugin"])
def test_help_for_tests_loads_no_database(module: str) -> None:
    code = f"import sys, {module}; assert not {{'sqlalchemy', 'django.db.models'}} & set(sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)
