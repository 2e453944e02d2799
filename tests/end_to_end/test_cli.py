"""Section 7: the commands, as a user types them, against the running service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mail_service.cli import main

from ..support.service import ROOT
from ..support.waiting import eventually
from .conftest import House
from .test_rpc_methods import KEYS, mail

FINAL = ("sent", "partly_sent", "failed", "expired")


class Shell:
    """Types commands for one service."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house = house
        self.folder = folder

    def __call__(self, *arguments: str, given: str | None = None, config: Path | None = None) -> tuple[int, str, str]:
        """Exit status, standard output and error."""
        first, rest = arguments[0], list(arguments[1:])
        if first == "errors":
            first, rest = f"errors {rest[0]}", rest[1:]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "mail_service.cli", *first.split()),
                *("--config", str(config or self.house.service.config_path), *rest),
            ],
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        return done.returncode, done.stdout, done.stderr

    def answer(self, *arguments: str, given: str | None = None) -> Any:
        """What ``--json`` prints; the exit status must be 0."""
        status, out, error = self(*arguments, "--json", given=given)
        assert status == 0, error
        return json.loads(out)


@pytest.fixture
def shell(house: House, tmp_path: Path) -> Shell:
    return Shell(house, tmp_path)


def test_send_waits_and_prints_the_record(shell: Shell) -> None:
    person = shell.house.person("once")

    record = shell.answer(
        "send", "-", "--option", "tenant=acme", "--option", f"id={person}", given=json.dumps(mail(person))
    )

    assert sorted(record) == sorted(KEYS)
    assert (record["id"], record["status"], record["tenant"], record["attempts"]) == (person, "sent", "acme", 2)


def test_send_from_a_file_without_waiting(shell: Shell) -> None:
    person = shell.house.person()
    (shell.folder / "mail.json").write_text(json.dumps(mail(person)))

    answer = shell.answer("send", "--no-wait", "mail.json")

    assert answer == {"id": answer["id"], "status": "queued"}
    shell.house.becomes(answer["id"], "sent")
    status, out, _ = shell("status", answer["id"])
    assert status == 0
    assert "sent" in out
    assert person in out


@pytest.mark.parametrize("name", ["refused", "later", "overfull"])
def test_send_of_a_mail_that_is_not_delivered_exits_1(shell: Shell, name: str) -> None:
    mailer = "throttling" if name == "overfull" else "default"

    status, out, error = shell(
        "send", "--option", f"mailer={mailer}", "-", given=json.dumps(mail(shell.house.person(name)))
    )

    assert status == 1
    assert out + error
    assert "Traceback" not in out + error


@pytest.mark.parametrize(
    ("given", "expected"),
    [("{", 2), ("[]", 2), ('{"to": []}', 1), ('{"to": "a@b@c"}', 1), ('{"tto": "a@example.org"}', 1)],
)
def test_send_of_something_unusable(shell: Shell, given: str, expected: int) -> None:
    status, out, error = shell("send", "-", given=given)

    assert status == expected
    assert error
    assert "Traceback" not in out + error


MISUSED = {
    "no such command": ("sned", "-"),
    "no file": ("send",),
    "a file that is not there": ("send", "absent.json"),
    "an unknown option": ("send", "-", "--option", "prio=high"),
    "an option without a value": ("send", "-", "--option", "priority"),
    "status without an id": ("status",),
    "no limit": ("errors", "list", "--limit", "0"),
    "a status that does not exist": ("errors", "list", "--status", "gone"),
    "replay of nothing": ("errors", "replay"),
    "replay of everything and something": ("errors", "replay", "x", "--all"),
    "purge without an age": ("purge",),
    "purge of mail on its way": ("purge", "--older-than-days", "1", "--status", "queued"),
}


@pytest.mark.parametrize("arguments", MISUSED.values(), ids=MISUSED)
def test_misuse_exits_2(house: House, arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, [*arguments, "--config", str(house.service.config_path)], input="{}")

    assert done.exit_code == 2
    assert done.output


def test_a_configuration_that_is_not_there_is_misuse(shell: Shell) -> None:
    assert shell("status", "x", config=shell.folder / "absent.yaml")[0] == 2


@pytest.mark.parametrize("command", ["status", "errors show", "errors replay", "errors discard"])
def test_an_unknown_id_exits_1(shell: Shell, command: str) -> None:
    status, out, error = shell(*command.split(), "no-such-id")

    assert status == 1
    assert "no-such-id" in error
    assert "Traceback" not in out + error


def test_the_error_log_from_the_command_line(own_house: House, tmp_path: Path) -> None:
    shell = Shell(own_house, tmp_path)
    person = own_house.person("refused")
    ids = {}
    for name, options in (("one", {"tenant": "a"}), ("two", {"tenant": "b"}), ("three", {"mailer": "second"})):
        ids[name] = own_house.rpc.submit(mail(person if name == "one" else own_house.person("later")), **options)["id"]
        own_house.becomes(ids[name], *FINAL)

    def listed(*filters: str) -> list[str]:
        return [record["id"] for record in shell.answer("errors", "list", *filters)]

    assert listed() == [ids["three"], ids["two"], ids["one"]]
    assert listed("--status", "failed") == [ids["one"]]
    assert listed("--mailer", "second") == [ids["three"]]
    assert listed("--tenant", "b") == [ids["two"]]
    assert listed("--recipient", person.upper()) == [ids["one"]]
    assert listed("--limit", "1") == [ids["three"]]
    assert listed("--limit", "1", "--after", ids["three"]) == [ids["two"]]
    assert listed("--since", "2999-01-01T00:00:00") == []
    assert listed("--until", "2999-01-01T00:00:00Z") == [ids["three"], ids["two"], ids["one"]]
    status, out, _ = shell("errors", "list")
    assert status == 0
    assert all(mail_id in out for mail_id in ids.values())

    entry = shell.answer("errors", "show", ids["one"])
    assert entry == own_house.rpc.error(ids["one"])
    status, out, _ = shell("errors", "show", ids["one"])
    assert status == 0
    assert "550" in out
    assert "Hello" in out

    assert shell.answer("errors", "discard", ids["three"]) == [ids["three"]]
    own_house.smtp.script()
    assert shell.answer("errors", "replay", ids["one"]) == [ids["one"]]
    own_house.becomes(ids["one"], "sent")
    assert shell.answer("errors", "replay", "--tenant", "b", "--status", "expired") == [ids["two"]]
    own_house.becomes(ids["two"], "sent")
    assert shell.answer("errors", "replay", "--all") == []
    assert shell.answer("errors", "discard", "--all") == []
    status, out, error = shell("errors", "replay", ids["three"], "no-such-id")
    assert status == 1
    assert ids["three"] in out
    assert "no-such-id" in error
    own_house.becomes(ids["three"], "sent")
    assert shell.answer("purge", "--older-than-days", "0") == 3


def test_retry_now_from_the_command_line(shell: Shell) -> None:
    person = shell.house.person("once")
    tenant = f"tenant-{person}"
    mail_id = shell.house.rpc.submit(mail(person), backoff="hourly", tenant=tenant)["id"]
    shell.house.becomes(mail_id, "deferred")

    assert shell.answer("retry-now", "--tenant", tenant) == 1

    shell.house.becomes(mail_id, "sent")


def test_health_exits_1_when_a_part_is_bad(shell: Shell) -> None:
    status, out, _ = shell("health")
    assert status == 1
    assert "mailer closed" in out
    status, out, _ = shell("health", "--json")
    assert status == 1
    assert json.loads(out)["broker"]["ok"] is True


def test_check_config_prints_everything_with_secrets_masked(shell: Shell) -> None:
    config = dict(shell.house.service.config)
    mailer = {
        "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "OPTIONS": {"username": "u", "password": "s3cret-word"},
    }
    config["mail"] = {**config["mail"], "mailers": {"default": mailer}}
    config["mail"]["database"] = "postgresql+psycopg://user:s3cret-word@127.0.0.1/x"
    config["AMQP_URI"] = "amqp://user:s3cret-word@127.0.0.1/x"
    path = shell.folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))

    for json_ in ([], ["--json"]):
        status, out, error = shell("check-config", *json_, config=path)
        assert status == 0, error
        assert "s3cret-word" not in out + error
        assert "hold_probe" in out
        assert "attempt_timeout" in out


def test_check_config_reports_every_mistake_and_exits_1(shell: Shell) -> None:
    path = shell.folder / "config.yaml"
    path.write_text(
        yaml.safe_dump({"mail": {"hold_prob": 1, "max_size": "big", "mailers": {"default": {"BAKEND": "x"}}}})
    )

    status, out, error = shell("check-config", config=path)

    assert status == 1
    for word in ("mail.hold_prob", "hold_probe", "mail.max_size", "mail.mailers.default.BAKEND", "BACKEND"):
        assert word in out + error
    assert "Traceback" not in out + error


@pytest.mark.parametrize("text", ["mail: [", "- a\n- b\n", "mail: 7\n", "\x00"], ids=repr)
def test_check_config_of_a_bad_file_exits_1(shell: Shell, text: str) -> None:
    path = shell.folder / "config.yaml"
    path.write_text(text)

    status, out, error = shell("check-config", config=path)

    assert status == 1
    assert error
    assert "Traceback" not in out + error


COMMANDS = (
    *("run", "send", "status", "errors", "errors list", "errors show", "errors replay", "errors discard"),
    *("retry-now", "purge", "check-config", "health"),
)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(command: str) -> None:
    done = CliRunner().invoke(main, [*command.split(), "--help"])

    assert done.exit_code == 0
    assert "Usage:" in done.output
    if command not in ("", "errors"):
        assert "--config" in done.output
        assert "--json" in done.output


def test_without_a_running_service_each_command_says_so_and_exits_1(own_house: House, tmp_path: Path) -> None:
    shell = Shell(own_house, tmp_path)
    own_house.service.stop()

    status, out, error = shell("status", "x")

    assert status == 1
    assert "not running" in error
    assert "Traceback" not in out + error
    assert shell("send", "-", given=json.dumps(mail(own_house.person())))[0] == 1


def test_without_a_broker_a_command_says_so_and_exits_1(shell: Shell) -> None:
    path = shell.folder / "config.yaml"
    path.write_text(yaml.safe_dump({"AMQP_URI": "amqp://guest:s3cret-word@127.0.0.1:1/x"}))

    status, out, error = shell("health", config=path)

    assert status == 1
    assert "s3cret-word" not in out + error
    assert "Traceback" not in out + error


def test_run_starts_the_service_and_stops_it(amqp_uri: str, tmp_path: Path) -> None:
    config = {"AMQP_URI": amqp_uri, "mail": {"database": f"sqlite:///{tmp_path / 'mail.db'}"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "mail_service.cli", "run"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def is_healthy() -> bool:
            command = [sys.executable, "-m", "mail_service.cli", "health"]
            return (
                subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False).returncode == 0
            )

        eventually(is_healthy, 40, every_s=0.3)
    finally:
        process.terminate()
    assert process.wait(30) == 0


def test_who_is_suppressed_is_listed_and_not_mailed(shell: Shell) -> None:
    person = shell.house.person()

    entry = shell.answer("suppress", person, "--reason", "asked us to stop")
    status, _, _ = shell("send", "-", given=json.dumps(mail(person)))

    assert entry["address"] == person
    assert status == 1
    assert shell.house.mails_to(person) == []
    _, listed, _ = shell("suppressions", "--csv")
    assert f"{person},,asked us to stop,{entry['since']}," in listed.splitlines()
    assert shell.answer("unsuppress", person) is True
    assert shell.answer("unsuppress", person) is False


def test_mail_is_paused_explained_put_off_cancelled_and_forgotten(shell: Shell) -> None:
    person = shell.house.person()
    paused = shell.answer("pause", "--tenant", person, "--reason", "moving")
    shell.answer(
        "send",
        "--no-wait",
        "-",
        "--option",
        f"tenant={person}",
        "--option",
        f"id={person}",
        given=json.dumps(mail(person)),
    )
    shell.house.becomes(person, "held")

    assert paused in shell.answer("pauses")
    story = shell("explain", person)[1]
    assert "moving" in story
    assert f"`mail-service resume --tenant {person}`" in story
    record = shell.answer("reschedule", person, "2040-01-01")
    assert record["next_attempt_at"] == "2040-01-01T00:00:00.000000+00:00"
    assert shell.answer("resume", "--tenant", person) == [paused]
    assert shell.answer("cancel", person)["status"] == "discarded"
    status, _, problem = shell("cancel", person)
    assert (status, "does not wait" in problem) == (1, True)
    assert shell.answer("forget", person) == 1
    assert person not in json.dumps(shell.answer("errors", "show", person)["record"]["recipients"])
