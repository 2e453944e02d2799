"""README, CHANGELOG and docs/ say what is there: names, keys, commands and tables are held against the code."""

from __future__ import annotations

import ast
import json
import re
import shlex
import smtplib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import click
import pytest
from django.utils.module_loading import import_string

from mail_service import errors, topology
from mail_service.cli import main
from mail_service.diagnosis import Context, diagnose, diagnose_reply
from mail_service.django import settings as in_django
from mail_service.ledger import tables
from mail_service.message import Options
from mail_service.message.fields import FIELDS
from mail_service.outcome import FINAL, Kind, Status
from mail_service.settings import Settings, load_config_file, load_settings
from mail_service.settings.mailers import _MAILER_KEYS

ROOT = Path(__file__).parents[2]
PAGES = {str(path.relative_to(ROOT)): path for path in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md"))]}
README = PAGES["README.md"].read_text()
FAILURES = PAGES["docs/failures.md"].read_text()
ARCHITECTURE = PAGES["docs/architecture.md"].read_text()
OPERATING = PAGES["docs/operating.md"].read_text()
MOVING = PAGES["docs/moving.md"].read_text()
PARITY = PAGES["docs/parity.md"].read_text()


@dataclass(frozen=True)
class Snippet:
    """A fenced block."""

    page: str
    line: int
    language: str
    text: str


def _snippets() -> Iterator[Snippet]:
    for page, path in PAGES.items():
        content = path.read_text()
        for found in re.finditer(r"^```(\w+)\n(.*?)^```$", content, re.DOTALL | re.MULTILINE):
            line = content.count("\n", 0, found.start()) + 1
            yield Snippet(page=page, line=line, language=found[1], text=found[2])


SNIPPETS = list(_snippets())


def of(*languages: str) -> Any:
    """Parametrise with the snippets in *languages*."""
    chosen = [snippet for snippet in SNIPPETS if snippet.language in languages]
    return pytest.mark.parametrize("snippet", chosen, ids=[f"{one.page}:{one.line}" for one in chosen])


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table after *heading*, without its header."""
    lines = page[page.index(f"{heading}\n") :].split("\n")
    rows = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
        elif rows:
            break
    return rows[2:]


def words(cell: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", cell)


def first_words(page: str, heading: str) -> list[str]:
    return [word for row in table(page, heading) for word in words(row[0])]


@of("python")
def test_python_is_python(snippet: Snippet) -> None:
    ast.parse(snippet.text)


@of("json")
def test_json_is_json(snippet: Snippet) -> None:
    json.loads(snippet.text)


@of("yaml")
def test_yaml_is_a_configuration_that_the_service_takes(snippet: Snippet, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(snippet.text)

    load_settings(load_config_file(path))


def _tests_in(body: list[ast.stmt], inside: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _tests_in(node.body, f"{inside}::{node.name}")
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield f"{inside}::{node.name}"


def test_every_row_about_the_systems_before_names_tests_that_exist() -> None:
    rows = [line for line in PARITY.splitlines() if line.startswith("| ") and not line.startswith(("| there", "| ---"))]
    tests = {name for name in words(PARITY) if "::" in name}
    files = sorted({name.partition("::")[0] for name in tests})

    known = {name for file in files for name in _tests_in(ast.parse((ROOT / "tests" / file).read_text()).body, file)}

    assert not [row for row in rows if "::test_" not in row]
    assert not sorted(tests - known)


def _commands(snippet: Snippet) -> Iterator[list[str]]:
    text = snippet.text.replace("\\\n", " ")
    for line in text.splitlines():
        for part in re.split(r"[|;]", line.removeprefix("$ ")):
            argv = shlex.split(part, comments=True) if "mail-service" in part else []
            if argv and Path(argv[0]).name == "mail-service":
                yield argv[1:]


def _parse(argv: list[str]) -> None:
    """Let click read the arguments, down to the last command, without running it."""
    command: click.Command = main
    while isinstance(command, click.Group):
        command, argv = command.commands[argv[0]], argv[1:]
    for param in command.params:
        param.callback = None
    command.make_context("mail-service", list(argv))


@pytest.fixture
def _callbacks_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """``_parse`` takes away the callbacks that would read files."""
    for command in main.commands.values():
        for param in command.params:
            monkeypatch.setattr(param, "callback", param.callback)


@pytest.mark.usefixtures("_callbacks_kept")
@of("sh", "console")
def test_commands_exist_with_these_options(snippet: Snippet) -> None:
    for argv in _commands(snippet):
        _parse(argv)


@pytest.mark.usefixtures("_callbacks_kept")
@pytest.mark.parametrize("page", PAGES)
def test_commands_in_running_text_exist(page: str) -> None:
    for found in re.finditer(r"`mail-service ([a-z][a-z -]*)", PAGES[page].read_text()):
        command: click.Command = main
        for word in found[1].split():
            if isinstance(command, click.Group):
                command = command.commands[word]


def test_every_command_is_in_the_readme() -> None:
    names = {name for name in main.commands if not isinstance(main.commands[name], click.Group)}
    group = main.commands["errors"]
    assert isinstance(group, click.Group)

    names |= {f"errors {name}" for name in group.commands}
    missing = [name for name in names if f"mail-service {name}" not in README]

    assert not missing


def _links(text: str) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = PAGES[page]
    for link in _links(path.read_text()):
        target, _, anchor = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), link
        assert not anchor or anchor in _anchors(found.read_text()), link


def _rpc_methods() -> dict[str, list[str]]:
    """Methods and their named arguments. Read, not imported: the service brings eventlet."""
    tree = ast.parse((ROOT / "mail_service" / "service.py").read_text())
    service = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "MailService")
    return {
        node.name: [argument.arg for argument in node.args.args[1:]]
        for node in service.body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(decorator, ast.Name) and decorator.id == "rpc" for decorator in node.decorator_list)
    }


def test_the_readme_has_every_rpc_method_and_no_other() -> None:
    methods = _rpc_methods()
    documented = {}
    for row in table(README, "### RPC methods"):
        name, _, arguments = words(row[0])[0].rstrip(")").partition("(")
        documented[name] = [argument.partition("=")[0].strip("* ") for argument in arguments.split(",") if argument]

    assert documented.keys() == methods.keys()
    for name, expected in methods.items():
        assert set(expected) <= set(documented[name]), name


def test_the_readme_has_every_key_of_the_mail_section() -> None:
    assert set(first_words(README, "## Configuration")) == {field.name for field in fields(Settings)}


def test_the_defaults_in_the_readme_are_the_defaults() -> None:
    defaults = Settings()
    for key, _, default in table(README, "## Configuration"):
        value = getattr(defaults, words(key)[0])
        if isinstance(value, int | float):
            assert float(default) == value, key
        elif isinstance(value, str):
            assert words(default) == [value], key


def test_the_readme_has_every_key_of_django_with_its_default() -> None:
    assert first_words(README, "### From Django") == list(in_django._KEYS)

    defaults = in_django.Settings()
    for keys, _, default in table(README, "### From Django"):
        for key in words(keys):
            value = getattr(defaults, in_django._KEYS[key].field)
            if isinstance(value, str):
                assert words(default) == [value], key
            elif isinstance(value, bool) or key == "ON_COMMIT":
                assert words(default) == [str(bool(value))], key
            elif isinstance(value, int | float):
                assert float(default) == value, key
            else:
                assert default == "none", key
                assert not value, key


def _management_commands(app: str) -> set[str]:
    folder = ROOT / "mail_service" / app / "management" / "commands"
    return {path.stem for path in folder.glob("*.py")} - {"__init__"}


def test_the_management_commands_in_the_docs_exist() -> None:
    ours = _management_commands("django")
    rows = [row for row in table(MOVING, "## Management commands") if not re.match("do(es)? not exist", row[2])]
    in_readme = README[README.index("### From Django") : README.index("### The message")]

    documented = {words(row[0])[0].split()[0] for row in rows}

    assert documented == ours | _management_commands("django/outbox")
    assert set(re.findall(r"^\| `([a-z_]+)\b.*` \|", in_readme, re.MULTILINE)) == ours
    assert "manage.py send_outbox" in in_readme


def test_the_readme_has_every_key_of_a_mailer() -> None:
    assert set(first_words(README, "### Mailers")) == set(_MAILER_KEYS)


def test_the_readme_has_every_schedule() -> None:
    assert set(first_words(README, "### Schedules")) == Settings().schedules.keys()


def test_the_readme_has_every_option() -> None:
    assert first_words(README, "### Options") == [field.name for field in fields(Options)]


def test_the_readme_has_every_field_of_a_message() -> None:
    assert set(first_words(README, "### The message")) == FIELDS.keys() - {"types"}


def test_the_readme_has_every_error() -> None:
    known = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.MailServiceError)
    }

    assert set(first_words(README, "### Errors")) == known - {"MailServiceError"}


def test_the_readme_has_every_status_with_the_final_ones_last() -> None:
    statuses = first_words(README, "### The record")

    assert set(statuses) == {str(status) for status in Status}
    assert set(statuses[3:]) == {str(status) for status in FINAL}


def test_the_table_of_failures_has_every_kind_with_its_status() -> None:
    rows = {found[1]: row for row in table(README, "## When a mail fails") if (found := re.match(r"\*\*(\w+)", row[0]))}

    assert rows.keys() == {str(kind) for kind in Kind} - {"accepted"}
    for kind, _, status, _ in table(FAILURES, "# What each failure means"):
        if words(kind) != ["accepted"]:
            assert words(status)[0] in words(rows[words(kind)[0]][2])


REPLIES = [
    (words(reply)[0], stage.strip("`"), words(kind)[0]) for reply, stage, kind in table(FAILURES, "## SMTP replies")
]


@pytest.mark.parametrize(("reply", "stage", "kind"), REPLIES, ids=[f"{one[0][:12]} at {one[1]}" for one in REPLIES])
def test_an_smtp_reply_means_what_is_written(reply: str, stage: Any, kind: str) -> None:
    code, _, text = reply.partition(" ")
    for each in ("connect", "mail", "rcpt", "body") if stage == "any" else (stage,):
        assert diagnose_reply(int(code), text, each).kind == kind


ERRORS = [
    (words(error)[0], stage.strip("`"), words(kind)[0])
    for error, stage, kind in table(FAILURES, "## Connections, time and exceptions")
]


@pytest.mark.parametrize(("path", "stage", "kind"), ERRORS, ids=[f"{one[0]} at {one[1]}" for one in ERRORS])
def test_an_exception_means_what_is_written(path: str, stage: Any, kind: str) -> None:
    error = import_string(path)("text")
    for each in (None, "connect", "body") if stage == "any" else (None if stage == "unknown" else stage,):
        assert diagnose(error, Context(stage=each)).kind == kind


def _statuses() -> Iterator[tuple[int, str]]:
    for answer, kinds, *_ in table(FAILURES, "## HTTP statuses"):
        if "saying" not in answer:
            for status in words(answer):
                yield int(status.replace("xx", "99")), words(kinds)[0]


@pytest.mark.parametrize(("status", "kind"), list(_statuses()))
def test_an_http_status_means_what_is_written(status: int, kind: str) -> None:
    with HTTPError("https://api.example.org", status, "text", {}, None) as error:  # type: ignore[arg-type]
        assert diagnose(error, Context()).kind == kind


def test_the_classifier_in_the_docs_works() -> None:
    snippet = next(one for one in SNIPPETS if one.page == "docs/failures.md" and one.language == "python")
    names: dict[str, Any] = {}
    exec(compile(snippet.text, "docs/failures.md", "exec"), names)

    full = smtplib.SMTPDataError(550, b"mailbox full")
    other = smtplib.SMTPDataError(550, b"no")

    assert names["classify"](full, Context()).kind == Kind.TRANSIENT
    assert names["classify"](other, Context()).kind == Kind.PERMANENT


def test_the_variables_in_the_docs_are_those_of_config_yaml() -> None:
    config = (ROOT / "config.yaml").read_text()
    lines = [line for line in config.splitlines() if not line.lstrip().startswith("#")]

    variables = set(re.findall(r"\$\{(\w+)", "\n".join(lines)))

    assert set(first_words(OPERATING, "## Variables of `config.yaml`")) == variables


def test_the_queues_in_the_docs_exist() -> None:
    names = {name for lane in topology.LANES for name in topology.queue_names(lane)}
    names |= {topology.PARKED, topology.EVENTS}
    documented = set(first_words(ARCHITECTURE, "## The queues")) - {
        "mail.delay.v1.<ms>",
        "rpc-mail_service",
        "mail.turn.v1.<lane>.<key>.<part>",
    }

    assert documented == names
    assert topology.delay_name(5).replace("5", "<ms>") in ARCHITECTURE
    assert topology.turn_queue_name("<lane>", "mailer:x", 0).replace("mailer:x.0", "<key>.<part>") in ARCHITECTURE
    assert f"{topology.TENANT_PARTS} a part of the tenants" in ARCHITECTURE
    assert f"{len(topology.LEVELS_MS)} lengths" in ARCHITECTURE
    assert f"returned {topology.DELIVERY_LIMIT} times" in ARCHITECTURE


def test_the_tables_in_the_docs_exist() -> None:
    rows = [row for row in table(OPERATING, "## What is stored where") if row[0].startswith("database")]

    assert rows
    for name in (words(row[0])[0] for row in rows):
        of_mails, _, column = name.partition(".")
        assert not column or column in tables.metadata.tables[of_mails].columns


LIBRARIES = {
    "eventlet", "nameko", "nameko_amqp_retry", "kombu", "amqp", "django", "anymail", "sqlalchemy", "alembic", "yaml",
    "click", "aiosmtpd", "dkim", "opentelemetry",
}  # fmt: skip


def _parts() -> dict[str, tuple[int, set[str]]]:
    """Each part of the documented table: its row, counted from the top, and the libraries it may import."""
    rows = table(ARCHITECTURE, "## Who may import whom")
    return {part: (number, set(words(row[1]))) for number, row in enumerate(rows) for part in words(row[0])}


def _part_of(module: str, parts: Mapping[str, object]) -> str | None:
    """The longest documented name that *module*, such as ``amqp.rpc``, begins with."""
    names = module.split(".")
    return next((name for n in range(len(names), 0, -1) if (name := ".".join(names[:n])) in parts), None)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            is_package = (ROOT / Path(*node.module.split("."))).is_dir()
            yield from (f"{node.module}.{alias.name}" for alias in node.names) if is_package else [node.module]


def test_nobody_imports_from_below() -> None:
    parts = _parts()
    package = ROOT / "mail_service"
    wrong = []
    for path in sorted(package.rglob("*.py")):
        module = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        if module in {"__init__", "amqp", "delivery", "doors", "web"}:
            continue
        part = _part_of(module, parts)
        assert part, f"{module} is missing in docs/architecture.md"
        row, libraries = parts[part]
        for name in _imports(path):
            top, _, rest = name.partition(".")
            if top in LIBRARIES - libraries:
                wrong.append(f"{module} imports {top}")
            other = _part_of(rest, parts) if top == "mail_service" else None
            # parts of one row belong together
            if other and other != part and parts[other][0] > row:
                wrong.append(f"{module} imports {rest}")

    assert not wrong
