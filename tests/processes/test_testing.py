"""``mail_service.testing`` in projects of other people: under pytest, unittest and Django's test runner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_PROJECT = """
from django.conf import settings
settings.configure(
    EMAIL_BACKEND="mail_service.django.EmailBackend",
    INSTALLED_APPS=["mail_service.django"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    MAIL_SERVICE={"AMQP_URI": "amqp://guest:guest@127.0.0.1:1//", "OPTIONS": {"tenant": "acme"}},
)
import django
django.setup()
"""

_TESTS = """
from django.core import mail
from django.test import SimpleTestCase, override_settings
from mail_service.errors import DeliveryFailed
from mail_service.testing import MailServiceMixin

def order():
    message = mail.EmailMessage("Order", "Thanks", "shop@example.org", ["ann@example.org"])
    message.mail_service = {"id": "order-1"}
    message.send()
    return message

class OrderTest(MailServiceMixin, SimpleTestCase):
    def test_the_backend_is_ours(self):
        message = order()
        self.assertMailsSent(1)
        found = self.assertMailSent(subject="Order", to=["ann@example.org"])
        self.assertEqual(found.mail_service, {"id": "order-1", "tenant": "acme"})
        self.assertEqual(message.mail_service_status, {"id": "order-1", "status": "queued"})
        self.assertEqual(getattr(mail, "outbox", []), [])
        for wrong in (lambda: self.assertMailsSent(2), lambda: self.assertMailSent(subject="Other")):
            with self.assertRaisesRegex(AssertionError, "Order"):
                wrong()

    def test_each_test_begins_with_none(self):
        self.assertMailsSent(0)

    @override_settings(MAIL_SERVICE={"WAIT": True})
    def test_wait_raises_what_delivery_raised(self):
        self.sent_mails.fail(DeliveryFailed, times=1)
        with self.assertRaises(DeliveryFailed):
            order()
"""


def run(folder: Path, *command: str, **environment: str) -> str:
    paths = f"{ROOT}{os.pathsep}{folder}"
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def test_the_mixin_works_under_djangos_test_runner(tmp_path: Path) -> None:
    (tmp_path / "test_orders.py").write_text(_TESTS)
    (tmp_path / "project.py").write_text(_PROJECT + "from django.test.runner import DiscoverRunner\n")
    program = "import project; raise SystemExit(project.DiscoverRunner().run_tests(['test_orders']))"
    (tmp_path / "manage.py").write_text(program)

    said = run(tmp_path, "manage")

    assert "Ran 3 tests" in said


def test_the_mixin_works_with_unittest_alone(tmp_path: Path) -> None:
    (tmp_path / "test_orders.py").write_text(_PROJECT + _TESTS)

    assert "Ran 3 tests" in run(tmp_path, "unittest", "test_orders")


def test_the_fixtures_work_in_a_project_with_and_without_django(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(
        """
import sys

def test_nothing_is_imported_before_a_test_asks_for_it():
    assert not {"kombu", "django", "mail_service.client", "eventlet"} & set(sys.modules)

def test_without_django(fake_mail_client, sent_mails):
    message = {"to": ["ann@example.org"], "from_email": "shop@example.org", "subject": "Hello"}
    fake_mail_client.submit(message, id="one")
    assert (len(sent_mails), sent_mails.ids, sent_mails.handed_in[0].message) == (1, ["one"], message)
    assert not {"eventlet", "greenlet", "nameko", "sqlalchemy"} & set(sys.modules)
"""
    )
    (tmp_path / "test_z_django.py").write_text(
        """
def test_with_django(sent_mails):
"""
        + "".join(f"    {line}\n" for line in _PROJECT.splitlines())
        + """
    from mail_service.testing import recording
    with recording(sent_mails):
        from django.core import mail
        mail.send_mail("Order", "Thanks", "shop@example.org", ["ann@example.org"])
    assert [one.subject for one in sent_mails] == ["Order"]
"""
    )

    said = run(tmp_path, "pytest", "-p", "mail_service.pytest_plugin", "-q", "-p", "no:cacheprovider")

    assert "3 passed" in said
