"""The command line without a broker: what a command asks the service, what it prints, and its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest
from click.testing import CliRunner, Result

from mail_service import errors
from mail_service.cli import common, main

ROOT = Path(__file__).parents[2]

RECORD = {
    "id": "m1",
    "status": "sent",
    "mailer": "default",
    "tenant": None,
    "priority": "normal",
    "attempts": 1,
    "recipients": {
        "ann@example.org": {"status": "sent", "message_id": "<1@example.org>", "detail": None},
        "bob@example.org": {"status": "sent", "message_id": None, "detail": None},
    },
    "submitted_at": "2026-11-22T03:00:00.000000+00:00",
    "updated_at": "2026-11-22T03:00:01.000000+00:00",
    "next_attempt_at": None,
    "error": None,
}


class FakeService:
    """Answers as it is told, in the place of a client and the service behind it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.answers: dict[str, Any] = {}
        self.timeout_s = 0.0
        self.running = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def is_running(self) -> bool:
        return self.running

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((method, args, kwargs))
        answer = self.answers[method]
        if callable(answer):
            answer = answer(*args)
        if isinstance(answer, Exception):
            raise answer
        return answer


Run = Callable[..., Result]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeService:
    fake = FakeService()

    def open_client(_config: object, timeout_s: float) -> FakeService:
        fake.timeout_s = timeout_s
        return fake

    monkeypatch.setattr(common, "open_client", open_client)
    return fake


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a folder that has a configuration."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("AMQP_URI: amqp://localhost\n")
    Path("mail.json").write_text('{"to": "ann@example.org"}')

    def invoke(*args: str, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(main, args, input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


COMMANDS = [
    ["run"],
    ["send", "-"],
    ["status", "x"],
    ["errors", "list"],
    ["errors", "show", "x"],
    ["errors", "replay", "x"],
    ["errors", "discard", "x"],
    ["retry-now"],
    ["purge", "--older-than-days", "1"],
    ["check-config"],
    ["health"],
    ["suppress", "ann@example.org"],
    ["unsuppress", "ann@example.org"],
    ["suppressions"],
    ["pause"],
    ["resume"],
    ["pauses"],
    ["explain", "x"],
    ["cancel", "x"],
    ["reschedule", "x", "2026-11-22T03:00:00Z"],
    ["forget", "ann@example.org"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_config_and_json(run: Run, command: list[str]) -> None:
    result = run(*command, "--help")

    assert result.exit_code == 0
    assert all(option in result.stdout for option in ("--help", "--config", "--json"))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_configuration_that_is_not_there_is_misuse(run: Run, command: list[str]) -> None:
    result = run(*command, "--config", "nowhere.yaml", stdin="{}")

    assert result.exit_code == 2
    assert "nowhere.yaml: there is no such file" in result.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_configuration_that_cannot_be_read_fails_without_a_traceback(run: Run, command: list[str]) -> None:
    Path("config.yaml").write_text("AMQP_URI: [")

    result = run(*command, stdin="{}")

    assert result.exit_code == 1
    assert "config.yaml: line 1" in result.stderr


@pytest.mark.parametrize(
    ("args", "call"),
    [
        (["status", "m1"], ("status", ("m1",), {})),
        (["errors", "list"], ("errors", (), {})),
        (
            ["errors", "list", "--status", "failed", "--mailer", "a", "--recipient", "b@example.org", "--limit", "5"],
            ("errors", (), {"status": "failed", "mailer": "a", "recipient": "b@example.org", "limit": 5}),
        ),
        (
            ["errors", "list", "--status", "failed", "--status", "expired", "--after", "m0"],
            ("errors", (), {"status": ["failed", "expired"], "after": "m0"}),
        ),
        (
            ["errors", "list", "--since", "2026-11-22", "--until", "2026-11-22T04:00:00+01:00"],
            (
                "errors",
                (),
                {"since": "2026-11-22T00:00:00.000000+00:00", "until": "2026-11-22T03:00:00.000000+00:00"},
            ),
        ),
        (["errors", "replay", "m1"], ("replay", ("m1",), {})),
        (["errors", "replay", "--tenant", "acme"], ("replay", (), {"tenant": "acme"})),
        (["errors", "replay", "--all"], ("replay", (), {"all": True})),
        (["errors", "discard", "--status", "expired"], ("discard", (), {"status": "expired"})),
        (["purge", "--older-than-days", "30"], ("purge", (30,), {"status": "sent"})),
        (["purge", "--older-than-days", "0", "--status", "all"], ("purge", (0,), {"status": "all"})),
        (["retry-now", "--mailer", "a"], ("retry_now", (), {"mailer": "a"})),
        (["retry-now"], ("retry_now", (), {})),
        (["send", "mail.json", "--option", "id=m1"], ("send", ({"to": "ann@example.org"},), {"id": "m1"})),
        (
            ["send", "mail.json", "--no-wait", "--option", "id=a=b", "--option", "priority=high"],
            ("submit", ({"to": "ann@example.org"},), {"id": "a=b", "priority": "high"}),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_command_asks_the_service(
    run: Run, service: FakeService, args: list[str], call: tuple[str, tuple[Any, ...], dict[str, Any]]
) -> None:
    service.answers = {
        "status": RECORD,
        "send": RECORD,
        "submit": {"id": "m1", "status": "queued"},
        "errors": [RECORD],
        "replay": ["m1"],
        "discard": ["m1"],
        "purge": 3,
        "retry_now": 3,
    }

    result = run(*args, "--json")

    assert service.calls == [call]
    assert result.exit_code == 0
    assert json.loads(result.stdout) == service.answers[call[0]]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["status"], "Missing argument"),
        (["paint"], "No such command"),
        (["send", "nowhere.json"], "nowhere.json cannot be read: No such file"),
        (["send", "."], "Is a directory"),
        (["send", "broken.json"], "broken.json is not JSON"),
        (["send", "list.json"], "a message is a JSON object"),
        (["send", "latin1.json"], "latin1.json is not JSON"),
        (["send", "mail.json", "--option", "id"], "expected KEY=VALUE"),
        (["send", "mail.json", "--option", "prority=high"], "id, mailer, priority"),
        (["send", "mail.json", "--option", "id=a", "--option", "id=b"], "given twice"),
        (["errors", "list", "--status", "lost"], "'lost' is not one of"),
        (["errors", "list", "--since", "yesterday"], "not a time in ISO 8601"),
        (["errors", "list", "--limit", "0"], "0 is not in the range"),
        (["errors", "replay"], "say which entries"),
        (["errors", "discard"], "say which entries"),
        (["errors", "replay", "m1", "--all"], "say which entries"),
        (["errors", "discard", "--all", "--tenant", "acme"], "say which entries"),
        (["purge"], "Missing option"),
        (["purge", "--older-than-days", "-1"], "-1 is not in the range"),
        (["purge", "--older-than-days", "1", "--status", "queued"], "'queued' is not one of"),
        (["run", "--processes", "0"], "0 is not in the range"),
        (["status", "m1", "--timeout", "0"], "0.0 is not in the range"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_misuse_asks_nothing_and_has_status_2(run: Run, service: FakeService, args: list[str], told: str) -> None:
    Path("broken.json").write_text('{"to": ')
    Path("list.json").write_text("[]")
    Path("latin1.json").write_bytes('{"subject": "Grüße"}'.encode("latin-1"))

    result = run(*args)

    assert result.exit_code == 2
    assert told in result.stderr.replace("\n", " ")
    assert service.calls == []


@pytest.mark.parametrize(
    ("status", "exit_code"), [("sent", 0), ("partly_sent", 1), ("held", 1)], ids=["sent", "partly sent", "held"]
)
def test_send_succeeds_when_everybody_has_the_mail(run: Run, service: FakeService, status: str, exit_code: int) -> None:
    service.answers = {"send": {**RECORD, "status": status}}

    result = run("send", "-", stdin='{"to": "ann@example.org"}')

    assert result.exit_code == exit_code
    assert f"status        {status}\n" in result.stdout
    assert service.timeout_s == 60


@pytest.mark.parametrize(
    "error",
    [
        errors.DeliveryFailed("550 no such user"),
        errors.InvalidMessage("to", "is missing"),
        errors.NotFound("no mail has the id 'm1'"),
        errors.Timeout("no answer"),
        errors.Unavailable("RabbitMQ cannot be reached"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_service_refuses_is_one_line_and_status_1(run: Run, service: FakeService, error: Exception) -> None:
    service.answers = {"status": error}

    result = run("status", "m1")

    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"Error: {error}\n")


def test_send_gives_the_mail_an_id_that_is_known_when_no_answer_comes(run: Run, service: FakeService) -> None:
    service.answers = {"send": RECORD}

    run("send", "mail.json")

    assert service.calls[0][2]["id"]


def test_a_service_that_is_not_running_is_told_at_once(run: Run, service: FakeService) -> None:
    service.running = False

    result = run("health")

    assert result.exit_code == 1
    assert "not running" in result.stderr
    assert service.calls == []


def test_one_unknown_id_does_not_keep_the_others_from_being_replayed(run: Run, service: FakeService) -> None:
    service.answers = {"replay": lambda mail_id: errors.NotFound("no such mail") if mail_id == "m2" else [mail_id]}

    result = run("errors", "replay", "m1", "m2", "m3", "m1")

    assert [args for _, args, _ in service.calls] == [("m1",), ("m2",), ("m3",)]
    assert result.stdout == "m1\nm3\n2 on its way again\n"
    assert result.stderr == "Error: m2: no such mail\n"
    assert result.exit_code == 1


@pytest.mark.parametrize(("broker_ok", "exit_code"), [(True, 0), (False, 1)], ids=["all fine", "a bad part"])
def test_health_fails_with_a_bad_part(run: Run, service: FakeService, broker_ok: bool, exit_code: int) -> None:
    parts = {"broker": {"ok": broker_ok, "text": "RabbitMQ"}, "db": {"ok": True, "text": "answers"}}
    service.answers = {"health": parts}

    result = run("health")

    assert result.exit_code == exit_code
    word = "ok" if broker_ok else "BAD"
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["broker", word, "RabbitMQ"],
        ["db", "ok", "answers"],
    ]


def test_a_record_is_shown_as_an_aligned_table(run: Run, service: FakeService) -> None:
    deferred = {"status": "deferred", "next_attempt_at": "2026-11-22T03:05:00.000000+00:00"}
    service.answers = {"status": RECORD | deferred}

    assert run("status", "m1").stdout.splitlines() == [
        "id               m1",
        "status           deferred",
        "mailer           default",
        "priority         normal",
        "attempts         1",
        "submitted at     2026-11-22 03:00:00",
        "updated at       2026-11-22 03:00:01",
        "next attempt at  2026-11-22 03:05:00",
        "recipients",
        "  ann@example.org  sent  <1@example.org>",
        "  bob@example.org  sent",
    ]


def test_the_error_log_is_shown_one_mail_a_line(run: Run, service: FakeService) -> None:
    long = {**RECORD, "id": "another", "status": "failed", "error": "x" * 200, "recipients": {}}
    service.answers = {"errors": [{**RECORD, "error": "550\nno such user"}, long]}

    lines = run("errors", "list").stdout.splitlines()

    assert lines[0].split() == ["ID", "STATUS", "MAILER", "ATTEMPTS", "UPDATED", "AT", "RECIPIENTS", "ERROR"]
    assert lines[1].endswith("2026-11-22 03:00:01  ann@example.org and 1 more  550 no such user")
    assert lines[2].endswith("x…")
    assert all(len(line) < 180 for line in lines)


def test_an_empty_error_log_says_so(run: Run, service: FakeService) -> None:
    service.answers = {"errors": []}

    assert run("errors", "list").stdout == "no entries\n"


def test_an_entry_is_shown_with_its_attempts_and_message_but_not_the_whole_attachment(
    run: Run, service: FakeService
) -> None:
    service.answers = {
        "error": {
            "record": RECORD,
            "attempts": [
                {"at": "2026-11-22T03:00:00+00:00", "mailer": "a", "diagnosis": "transient", "text": "450\nlater"}
            ],
            "message": {"subject": "Hello", "attachments": [{"content": "A" * 10_000}]},
            "options": {"priority": "high"},
        }
    }

    shown = run("errors", "show", "m1").stdout

    assert "  2026-11-22 03:00:00  a  transient  450 later\n" in shown
    assert '"priority": "high"' in shown
    assert "(10,000 characters)" in shown
    assert len(shown) < 2000


def test_an_error_is_shown_whole_and_its_traceback_as_python_prints_it(run: Run, service: FakeService) -> None:
    error = "KeyError: " + "x" * 200 + '\nTraceback (most recent call last):\n  File "a.py", line 1\nKeyError: y'
    record = {**RECORD, "attempts": 0, "error": error}
    service.answers = {"error": {"record": record, "attempts": [{"at": "", "text": error}]}, "status": record}

    shown = run("errors", "show", "m1").stdout
    status = run("status", "m1").stdout

    assert 'traceback\n  Traceback (most recent call last):\n    File "a.py", line 1\n  KeyError: y\n' in shown
    assert "error         KeyError: " + "x" * 200 + "\n" in status
    assert "attempts      0\n" in status


def test_what_a_stranger_wrote_cannot_command_the_terminal(run: Run, service: FakeService) -> None:
    service.answers = {"status": {**RECORD, "error": "\x1b[2J\x07 gone"}}

    shown = run("status", "m1").stdout

    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_check_config_prints_everything_but_the_secrets(run: Run) -> None:
    Path("config.yaml").write_text(
        "AMQP_URI: amqp://me:hidden1@localhost//\n"
        "mail:\n"
        "  mailers:\n"
        "    default:\n"
        "      BACKEND: django.core.mail.backends.smtp.EmailBackend\n"
        "      OPTIONS: {host: mx.example.org, password: hidden2}\n"
    )

    as_yaml, as_json = run("check-config"), run("check-config", "--json")

    assert as_yaml.exit_code == as_json.exit_code == 0
    assert "host: mx.example.org" in as_yaml.stdout
    assert json.loads(as_json.stdout)["mail"]["mailers"]["default"]["OPTIONS"]["password"] == "***"
    assert "hidden" not in as_yaml.stdout + as_json.stdout


def test_check_config_reports_all_mistakes(run: Run) -> None:
    Path("config.yaml").write_text("mail: {mailer: {}, hold_probe: never}\n")

    result = run("check-config")

    assert result.exit_code == 1
    assert "mail.mailer" in result.stderr
    assert "mail.hold_probe" in result.stderr


def test_check_config_finds_a_backend_that_does_not_exist(run: Run) -> None:
    Path("config.yaml").write_text("mail: {mailers: {default: {BACKEND: nowhere.to.be.found}}}\n")

    result = run("check-config")

    assert result.exit_code == 1
    assert "nowhere" in result.stderr


def test_run_hands_over_to_the_runner(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, int]] = []
    runner = ModuleType("mail_service.runner")
    runner.run = lambda path, processes: started.append((str(path), processes))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mail_service.runner", runner)
    monkeypatch.setattr("mail_service.runner", runner, raising=False)

    result = run("run", "--processes", "3")

    assert result.exit_code == 0
    assert started == [("config.yaml", 3)]


def test_commands_start_without_eventlet_and_nameko() -> None:
    program = (
        "import sys; from mail_service.cli import main, commands, errorlog, common; import mail_service.client; "
        "print(sorted({'eventlet', 'nameko'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


ENTRY = {
    "address": "ann@example.org",
    "tenant": None,
    "reason": "bounced",
    "since": "2026-11-22T03:00:00",
    "until": None,
}
PAUSE = {
    "mailer": "other",
    "tenant": None,
    "priority": None,
    "reason": "moving",
    "since": "2026-11-22T03:00:00.000000+00:00",
    "until": None,
}


@pytest.mark.parametrize(
    ("args", "call"),
    [
        (
            ["suppress", "ann@example.org", "--reason", "why"],
            ("suppress", {"address": "ann@example.org", "reason": "why"}),
        ),
        (
            ["suppress", "@example.org", "--tenant", "acme", "--until", "2026-11-23"],
            (
                "suppress",
                {"address": "@example.org", "tenant": "acme", "until": "2026-11-23T00:00:00.000000+00:00"},
            ),
        ),
        (["pause"], ("pause", {})),
        (
            ["pause", "--mailer", "m", "--tenant", "t", "--priority", "bulk", "--seconds", "1.5", "--reason", "r"],
            ("pause", {"mailer": "m", "tenant": "t", "priority": "bulk", "seconds": 1.5, "reason": "r"}),
        ),
        (["resume", "--mailer", "m", "--reason", "r"], ("resume", {"mailer": "m"})),
        (["resume", "--seconds", "60"], ("resume", {"seconds": 60.0})),
        (["suppressions", "--limit", "5", "--after", "a@b"], ("suppressions", {"limit": 5, "after": "a@b"})),
        (
            ["suppressions", "--tenant", "acme", "--domain", "b.example"],
            ("suppressions", {"tenant": "acme", "domain": "b.example"}),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_steered_is_asked_for_by_name(
    run: Run, service: FakeService, args: list[str], call: tuple[str, dict[str, Any]]
) -> None:
    service.answers = {"suppress": ENTRY, "pause": PAUSE, "resume": [PAUSE], "suppressions": [ENTRY]}

    result = run(*args)

    assert result.exit_code == 0
    assert service.calls == [(call[0], (), call[1])]


@pytest.mark.parametrize(
    ("args", "call"),
    [
        (["unsuppress", "a@b", "--reason", "r"], ("unsuppress", ("a@b",))),
        (["explain", "x"], ("explain", ("x",))),
        (["cancel", "x"], ("cancel", ("x",))),
        (["reschedule", "x", "2026-11-22T03:00+01:00"], ("reschedule", ("x", "2026-11-22T02:00:00.000000+00:00"))),
        (["forget", "a@b"], ("forget", ("a@b",))),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_thing_is_asked_for_by_its_name(
    run: Run, service: FakeService, args: list[str], call: tuple[str, tuple[str, ...]]
) -> None:
    story = {"record": RECORD, "timeline": [], "why": "", "next": ""}
    service.answers = {"unsuppress": True, "explain": story, "cancel": RECORD, "reschedule": RECORD, "forget": 1}

    result = run(*args)

    assert result.exit_code == 0
    assert service.calls == [(*call, {})]


@pytest.mark.parametrize(
    "args",
    [
        ["suppress"],
        ["suppress", "a@b", "--csv", "-"],
        ["suppress", "--csv", "nowhere.csv"],
        ["pause", "--priority", "urgent"],
        ["pause", "--seconds", "0"],
        ["reschedule", "x", "soon"],
        ["cancel"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_steered_is_misuse(run: Run, service: FakeService, args: list[str]) -> None:
    assert run(*args).exit_code == 2
    assert service.calls == []


def test_a_list_goes_out_as_csv_whole_and_comes_in_again(run: Run, service: FakeService) -> None:
    pages = [
        [ENTRY, {**ENTRY, "tenant": "acme", "reason": 'said "no", twice'}],
        [{**ENTRY, "address": "@b.example"}],
        [],
    ]
    service.answers["suppressions"] = lambda: pages.pop(0)
    service.answers["suppress_many"] = lambda entries: [ENTRY for _ in entries]

    out = run("suppressions", "--csv").stdout
    asked = [call[2] for call in service.calls]
    service.calls.clear()
    result = run("suppress", "--csv", "-", stdin=out)

    assert asked == [
        {"limit": 1000},
        {"limit": 1000, "after": "ann@example.org"},
        {"limit": 1000, "after": "@b.example"},
    ]
    assert out.splitlines()[0] == "address,tenant,reason,since,until"
    assert result.stdout == "3 suppressed\n"
    assert service.calls == [
        (
            "suppress_many",
            (
                [
                    {"address": "ann@example.org", "reason": "bounced", "since": ENTRY["since"]},
                    {
                        "address": "ann@example.org",
                        "tenant": "acme",
                        "reason": 'said "no", twice',
                        "since": ENTRY["since"],
                    },
                    {"address": "@b.example", "reason": "bounced", "since": ENTRY["since"]},
                ],
            ),
            {},
        )
    ]


def test_a_line_that_cannot_be_used_is_named_by_its_number(run: Run, service: FakeService) -> None:
    error = {"error": {"type": "InvalidMessage", "message": "address: has to be an address", "field": "address"}}
    service.answers["suppress_many"] = [ENTRY, error]

    # as a spreadsheet writes it, with a byte order mark
    result = run("suppress", "--csv", "-", "--reason", "left", stdin="\ufeffaddress\nann@example.org\nnobody at all\n")

    assert result.exit_code == 1
    assert result.stdout == "1 suppressed\nentry 2 of the file: address: has to be an address\n"
    assert service.calls[0][1] == (
        [{"address": "ann@example.org", "reason": "left"}, {"address": "nobody at all", "reason": "left"}],
    )


def test_csv_without_a_column_of_addresses_is_misuse(run: Run, service: FakeService) -> None:
    result = run("suppress", "--csv", "-", stdin="ann@example.org\nbob@example.org\n")

    assert result.exit_code == 2
    assert "`address`" in result.stderr
    assert service.calls == []


@pytest.mark.parametrize(
    ("command", "answer", "shown"),
    [
        ("pauses", [PAUSE], "other 2026-11-22 03:00:00 moving"),
        ("pauses", [], "nothing is paused"),
        ("suppressions", [ENTRY], "ann@example.org 2026-11-22 03:00:00 bounced"),
        ("suppressions", [], "nobody is suppressed"),
    ],
)
def test_lists_are_shown_one_entry_a_line(
    run: Run, service: FakeService, command: str, answer: list[Any], shown: str
) -> None:
    service.answers[command] = answer

    assert shown in [" ".join(line.split()) for line in run(command).stdout.splitlines()]


def test_a_story_is_shown_from_the_beginning_to_what_comes_next(run: Run, service: FakeService) -> None:
    service.answers["explain"] = {
        "record": RECORD,
        "timeline": [{"at": "2026-11-22T03:00:00.000000+00:00", "what": "accepted", "text": "accepted\x1b[2J"}],
        "why": "Because.",
        "next": "Nothing.",
    }

    lines = run("explain", "m1").stdout.splitlines()

    assert lines == ["m1: sent", "", "2026-11-22 03:00:00  accepted\ufffd[2J", "", "Because.", "Nothing."]
