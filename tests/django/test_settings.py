"""MAIL_SERVICE, MAILERS, and what the system checks say about them."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core import checks, mail
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test.utils import override_settings

from mail_service.django import EmailBackend
from mail_service.django.settings import DEFAULT_URI, read

from .conftest import BACKEND, DJANGO_6_1, an_email
from .test_queueing import CLOSED, mails

ROOT = Path(__file__).parents[2]
needs_mailers = pytest.mark.skipif(not DJANGO_6_1, reason="MAILERS came with Django 6.1")


def reported(**settings: Any) -> list[str]:
    with override_settings(**settings):
        return [str(message.msg) for message in checks.run_checks(tags=["mail_service"])]


def test_every_setting_has_a_default() -> None:
    with override_settings():
        settings = read()

    assert settings.amqp_uri == DEFAULT_URI
    assert (settings.wait, settings.timeout_s, settings.on_commit, settings.options) == (False, 10, (), {})


@pytest.mark.parametrize("given", [None, {}, {"AMQP_URI": CLOSED, "WAIT": True, "TIMEOUT": 2.5, "MAX_SIZE": 100}])
def test_good_settings_are_not_reported(given: Any) -> None:
    assert reported(MAIL_SERVICE=given) == []


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["amqp://"], "MAIL_SERVICE must be a dict, not a list."),
        ({"AMPQ_URI": CLOSED}, "MAIL_SERVICE has the key 'AMPQ_URI', which does not exist; did you mean 'AMQP_URI'?"),
        ({"wait": True}, "MAIL_SERVICE has the key 'wait', which does not exist."),
        ({"AMQP_URI": None}, "MAIL_SERVICE['AMQP_URI'] must be a URL like amqp://user:password@host:5672/vhost."),
        ({"WAIT": "yes"}, "MAIL_SERVICE['WAIT'] must be True or False, not 'yes'."),
        ({"TIMEOUT": 0}, "MAIL_SERVICE['TIMEOUT'] must be seconds above 0, not 0."),
        ({"TIMEOUT": True}, "MAIL_SERVICE['TIMEOUT'] must be seconds above 0, not True."),
        ({"TIMEOUT": float("nan")}, "MAIL_SERVICE['TIMEOUT'] must be seconds above 0, not nan."),
        ({"MAX_SIZE": 2.5}, "MAIL_SERVICE['MAX_SIZE'] must be a number of bytes above 0, not 2.5."),
        (
            {"ON_COMMIT": "order"},
            "MAIL_SERVICE['ON_COMMIT'] names 'order', which is not in DATABASES; did you mean 'orders'?",
        ),
        (
            {"ON_COMMIT": 1},
            "MAIL_SERVICE['ON_COMMIT'] must be True, False, or the alias of a database connection or a list of them.",
        ),
        (
            {"OPTIONS": {"prioritty": "high"}},
            "MAIL_SERVICE['OPTIONS'] is wrong: options.prioritty: there is no such option; did you mean 'priority'?",
        ),
        (
            {"OPTIONS": {"id": "1"}},
            "MAIL_SERVICE['OPTIONS'] has an id, which would make one mail of all: set it for each message.",
        ),
        (
            {"AMQP_SSL": "yes"},
            "MAIL_SERVICE['AMQP_SSL'] must be True, False or a dict of py-amqp options, not 'yes'.",
        ),
        (
            {"AMQP_URI": "redis://user:secret@host"},
            "MAIL_SERVICE: AMQP_URI: expected a URL like amqp://user:password@host:5672/vhost",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_each_mistake_is_reported_and_raised(given: Any, text: str) -> None:
    assert reported(MAIL_SERVICE=given) == [text]
    with override_settings(MAIL_SERVICE=given), pytest.raises(ImproperlyConfigured) as caught:
        EmailBackend().send_messages([an_email()])
    assert str(caught.value) == text


def test_all_mistakes_are_reported_together() -> None:
    assert len(reported(MAIL_SERVICE={"WAIT": 1, "TIMEOUT": -1, "TIMOUT": 1})) == 3


def test_a_mistake_stops_manage_py_check() -> None:
    with override_settings(MAIL_SERVICE={"WAIT": 1}), pytest.raises(SystemCheckError, match=r"mail_service\.E001"):
        call_command("check")


def test_deploying_to_the_default_broker_is_a_warning() -> None:
    with override_settings(MAIL_SERVICE={}):
        call_command("check", "--deploy", "--tag=mail_service", stderr=(err := StringIO()))
    with override_settings(MAIL_SERVICE={"AMQP_URI": CLOSED}):
        call_command("check", "--deploy", "--tag=mail_service", stderr=(good := StringIO()))

    assert "mail_service.W001" in err.getvalue()
    assert good.getvalue() == ""


def test_importing_is_enough_to_have_the_checks() -> None:
    code = """
from django.conf import settings
settings.configure(MAIL_SERVICE={"WAIT": 1})
import django, mail_service.django
django.setup()
from django.core.checks import run_checks
print([message.id for message in run_checks()])
"""

    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT, timeout=60
    )

    assert done.stdout.strip() == "['mail_service.E001']"


@needs_mailers
def test_an_entry_of_mailers_has_settings_of_its_own(amqp_uri: str) -> None:
    mailers = {
        "default": {"BACKEND": BACKEND, "OPTIONS": {"AMQP_URI": CLOSED, "TIMEOUT": 0.3}},
        "news": {"BACKEND": BACKEND, "OPTIONS": {"AMQP_URI": amqp_uri, "OPTIONS": {"priority": "bulk"}}},
    }
    with override_settings(MAILERS=mailers, MAIL_SERVICE={"OPTIONS": {"tenant": "acme", "priority": "high"}}):
        assert an_email().send(using="news") == 1
        with pytest.raises(ConnectionError):
            an_email().send()
        news = mail.mailers["news"]
        assert (news.alias, news.settings.wait) == ("news", False)

    (found,) = mails(amqp_uri, "bulk")
    assert found.options == {"id": found.id, "priority": "bulk", "tenant": "acme"}


@needs_mailers
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"AMPQ_URI": "x"}, "MAILERS['news']['OPTIONS'] has the key 'AMPQ_URI', which does not exist"),
        ({"WAIT": 1}, "MAILERS['news']['OPTIONS']['WAIT'] must be True or False, not 1."),
        ({"AMQP_URI": None}, "MAILERS['news']['OPTIONS']['AMQP_URI'] must be a URL"),
        ({"AMQP_URI": "redis://x"}, "MAILERS['news']['OPTIONS']: AMQP_URI: expected a URL"),
    ],
    ids=["unknown", "wrong", "empty", "scheme"],
)
def test_mistakes_in_an_entry_of_mailers_are_reported_and_raised(options: Any, text: str) -> None:
    mailers = {"default": {"BACKEND": BACKEND}, "news": {"BACKEND": BACKEND, "OPTIONS": options}}

    (message,) = reported(MAILERS=mailers, MAIL_SERVICE={"AMQP_URI": CLOSED})

    assert message.startswith(text)
    with override_settings(MAILERS=mailers), pytest.raises(ImproperlyConfigured, match=r"news|AMQP_URI"):
        an_email().send(using="news")


@needs_mailers
def test_entries_of_other_backends_are_left_alone() -> None:
    other = {"BACKEND": "django.core.mail.backends.locmem.EmailBackend", "OPTIONS": {"WAIT": 1}}

    assert reported(MAILERS={"default": other, "broken": {"BACKEND": "no.such"}, "smtp": {}}) == []


@needs_mailers
def test_failing_silently_can_be_an_entrys_option() -> None:
    options = {"AMQP_URI": CLOSED, "TIMEOUT": 0.3, "fail_silently": True, "wait": True}
    with override_settings(MAILERS={"default": {"BACKEND": BACKEND, "OPTIONS": options}}):
        assert checks.run_checks(tags=["mail_service"]) == []
        assert an_email().send() == 0
