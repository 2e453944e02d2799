"""The commands that are about the service as a whole, sending and looking; the others are added here."""

from __future__ import annotations

import json
import uuid
from typing import Any

import click

from mail_service import __version__
from mail_service.cli import flow, tables
from mail_service.cli.common import Call, Group, common_options, filter_options
from mail_service.cli.drain import drain
from mail_service.cli.errorlog import errors
from mail_service.errors import ConfigurationError
from mail_service.outcome import FINAL, Status

#: seconds; the schedule of ``send`` may retry for a while
_SEND_TIMEOUT_S = 60.0
_OPTIONS = ("id", "mailer", "priority", "backoff", "expires_at", "tenant")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mail-service")
def main() -> None:
    """Deliver mail, see what became of it, and deal with what failed."""


main.add_command(errors)
main.add_command(drain)
for command in flow.COMMANDS:
    main.add_command(command)


@main.command()
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="On N cores.")
@common_options(timeout_s=None)
def run(call: Call, processes: int) -> None:
    """Run the service until it is stopped by SIGTERM or Ctrl-C."""
    call.config()
    from mail_service import runner  # noqa: PLC0415  # brings nameko and eventlet

    raise SystemExit(int(runner.run(call.config_path, processes) or 0))


def _options(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    options: dict[str, str] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or name not in _OPTIONS:
            expected = f"KEY=VALUE with a key of {', '.join(_OPTIONS)}"
            raise click.BadParameter(f"expected {expected}, got {item!r}", ctx, param)
        if name in options:
            raise click.BadParameter(f"{name} is given twice", ctx, param)
        options[name] = value
    return options


def _message(ctx: click.Context, param: click.Parameter, path: str) -> dict[str, Any]:
    try:
        with click.open_file(path, "rb") as file:
            message = json.loads(file.read())
    except OSError as exc:
        raise click.BadParameter(f"{path} cannot be read: {exc.strerror}", ctx, param) from None
    except (ValueError, RecursionError) as exc:
        raise click.BadParameter(f"{path} is not JSON: {exc}", ctx, param) from None
    if not isinstance(message, dict):
        raise click.BadParameter(f"{path}: a message is a JSON object", ctx, param)
    return message


@main.command(short_help="Send a message.")
@click.argument("message", metavar="FILE|-", callback=_message)
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", callback=_options, help=f"One of {', '.join(_OPTIONS)}."
)
@click.option("--wait/--no-wait", default=True, help="Until it is delivered (default), or only queued.")
@common_options(timeout_s=_SEND_TIMEOUT_S)
def send(call: Call, message: dict[str, Any], options: dict[str, str], wait: bool) -> None:
    """
    Send a message, a JSON object such as {"to": "a@example.org", "subject": "Hello", "body": "..."}.

    Exit status 1 when it was not delivered to everybody; a mail that is held or takes longer goes on by itself.
    """
    # ours, so that the id is known also when no answer comes
    options.setdefault("id", str(uuid.uuid4()))
    with call.service() as ask:
        answer = ask("send" if wait else "submit", message, **options)
    call.show(answer, tables.record)
    if wait and answer.get("status") != Status.SENT:
        raise SystemExit(1)


@main.command()
@click.argument("mail_id", metavar="ID")
@common_options()
def status(call: Call, mail_id: str) -> None:
    """Show what became of a mail."""
    with call.service() as ask:
        call.show(ask("status", mail_id), tables.record)


@main.command("retry-now", short_help="Attempt mail that waits now.")
@filter_options()
@common_options()
def retry_now(call: Call, filters: dict[str, Any]) -> None:
    """Attempt mail that waits (deferred or held) now: all of it, or what the filters choose."""
    with call.service() as ask:
        call.show(ask("retry_now", **filters), lambda count: f"{count} attempted now")


@main.command()
@click.option("--older-than-days", type=click.IntRange(min=0), required=True, metavar="N", help="Of its last change.")
@click.option(
    "--status",
    type=click.Choice([*sorted(map(str, FINAL)), "all"]),
    default=str(Status.SENT),
    show_default=True,
    help="Which entries; never mail that is still on its way.",
)
@common_options()
def purge(call: Call, older_than_days: int, status: str) -> None:
    """Delete old entries."""
    with call.service() as ask:
        call.show(ask("purge", older_than_days, status=status), lambda count: f"{count} deleted")


@main.command("check-config", short_help="Check and print the configuration.")
@common_options(timeout_s=None)
def check_config(call: Call) -> None:
    """Check the configuration and print it with every default filled in and secrets masked."""
    from mail_service.mailers import signing  # noqa: PLC0415  # Django takes its time
    from mail_service.mailers.django_backend import configure_django  # noqa: PLC0415
    from mail_service.settings import check_imports, load_settings, mask  # noqa: PLC0415

    config = call.config()
    settings = load_settings(config)
    configure_django()
    if mistakes := check_imports(settings) + signing.problems(settings.dkim):
        raise ConfigurationError("\n".join(mistakes))
    call.show({**_as_mapping(mask(config)), "mail": settings.masked()}, _as_yaml)


def _as_mapping(masked: object) -> dict[str, Any]:
    return dict(masked) if isinstance(masked, dict) else {}


def _as_yaml(answer: dict[str, Any]) -> str:
    import yaml  # noqa: PLC0415

    # by way of JSON: PyYAML would write tuples and dates in forms of its own
    plain = json.loads(json.dumps(answer, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).rstrip()


@main.command(short_help="Ask how the service's parts are.")
@common_options()
def health(call: Call) -> None:
    """Ask the service whether its broker, its database and its mailers are fine."""
    with call.service() as ask:
        answer = ask("health")
    call.show(answer, tables.health)
    if not all(part.get("ok") for part in answer.values()):
        raise SystemExit(1)
