"""The commands that people know from django-mailer."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test.utils import override_settings

from mail_service.errors import NotFound

from ..support.waiting import eventually
from .conftest import BACKEND, DJANGO_6_1, House, an_email, project_with
from .test_queueing import CLOSED


def run(command: str, *args: Any, **options: Any) -> str:
    out = StringIO()
    call_command(command, *args, stdout=out, **options)
    return out.getvalue().strip()


def attempts_of(house: House, mail_id: str) -> int:
    """How often a mail that waits for its next attempt was tried; 0 when it is not known."""
    try:
        record = house.service.rpc.status(mail_id)
    except NotFound:
        return 0
    return int(record["attempts"]) if record["status"] == "deferred" else 0


def is_known(house: House, mail_id: str) -> bool:
    try:
        house.service.rpc.status(mail_id)
    except NotFound:
        return False
    return True


def test_send_mail_says_that_there_is_nothing_to_do(waiting: House) -> None:
    assert run("send_mail").startswith("Nothing else to do: the mail service is running")


@pytest.mark.parametrize(
    "command", [("send_mail",), ("retry_deferred",), ("purge_mail_log", "7")], ids=lambda args: args[0]
)
def test_without_a_service_a_command_fails(amqp_uri: str, command: tuple[str, ...]) -> None:
    with project_with(amqp_uri), pytest.raises(CommandError, match="not running"):
        run(*command)


def test_without_a_broker_a_command_fails() -> None:
    with project_with(CLOSED, TIMEOUT=0.3), pytest.raises(CommandError, match="cannot be reached"):
        run("retry_deferred")


def test_with_wrong_settings_a_command_fails() -> None:
    with override_settings(MAIL_SERVICE={"WAIT": 1}), pytest.raises(CommandError, match="MAIL_SERVICE"):
        run("send_mail")


def test_retry_deferred_attempts_what_waits(house: House) -> None:
    email = an_email(to=[house.person("later")])
    email.mail_service = {"backoff": "hourly"}
    with project_with(house.amqp_uri):
        email.send()
        mail_id = email.mail_service_status["id"]
        attempts = eventually(lambda: attempts_of(house, mail_id))

        said = run("retry_deferred", "-c", "1")

    assert said.endswith("message(s) retried")
    assert int(said.split()[0]) >= 1
    eventually(lambda: attempts_of(house, mail_id) > attempts)


@pytest.mark.parametrize(
    ("result", "kept"),
    [(["-r", "failure"], {"sent"}), ([], {"failed"}), (["--result", "all"], set())],
    ids=["failure", "success", "all"],
)
def test_purge_mail_log_deletes_what_ended(waiting: House, result: list[str], kept: set[str]) -> None:
    sent, failed = an_email(to=[waiting.person()]), an_email(to=[waiting.person("refused")])
    sent.send()
    failed.send(fail_silently=True)
    ids = {email.mail_service_status["status"]: email.mail_service_status["id"] for email in (sent, failed)}

    said = run("purge_mail_log", "0", *result)

    assert int(said.removesuffix(" log entries deleted")) >= 1
    assert {status for status, mail_id in ids.items() if is_known(waiting, mail_id)} == kept


def test_purge_mail_log_needs_to_know_how_old(waiting: House) -> None:
    with pytest.raises(CommandError, match="DAYS"):
        run("purge_mail_log")
    with pytest.raises(CommandError, match="invalid choice"):
        run("purge_mail_log", "7", "-r", "deferred")
    with pytest.raises(CommandError, match="older_than_days"):
        run("purge_mail_log", "-1")


@pytest.mark.parametrize("command", ["runmailer", "runmailer_pg"])
def test_runmailer_explains_what_replaces_it(command: str) -> None:
    with pytest.raises(CommandError, match=r"mail-service run --config config\.yaml") as caught:
        run(command)

    assert caught.value.returncode == 1


def test_a_command_can_name_an_entry_of_mailers(house: House) -> None:
    if not DJANGO_6_1:
        with project_with(house.amqp_uri), pytest.raises(CommandError, match="no entry 'news'"):
            run("send_mail", "--using", "news")
        return
    mailers = {
        "default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"},
        "news": {"BACKEND": BACKEND, "OPTIONS": {"AMQP_URI": house.amqp_uri}},
    }
    with override_settings(MAILERS=mailers, MAIL_SERVICE={"AMQP_URI": CLOSED, "TIMEOUT": 0.3}):
        assert run("send_mail", "--using", "news").startswith("Nothing else to do")
        with pytest.raises(CommandError, match="no entry 'default' that uses"):
            run("send_mail", "--using", "default")
        with pytest.raises(CommandError, match="cannot be reached"):
            run("send_mail")
