"""What the commands share: their options, the way to the service, and how errors end."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mail_service import clock
from mail_service.errors import ConfigurationError, MailServiceError
from mail_service.outcome import Status

if TYPE_CHECKING:
    from mail_service.client import MailClient

Command = TypeVar("Command", bound=Callable[..., Any])

#: seconds to wait for an answer of the service
DEFAULT_TIMEOUT_S = 30.0
#: how Python begins one
TRACEBACK = "Traceback (most recent call last):"


class Group(click.Group):
    """Ends with one clear line and status 1 where a command failed, never with a traceback of what was foreseen."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (MailServiceError, ConfigurationError) as exc:
            raise click.ClickException(printable(without_traceback(str(exc)))) from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The options that every command has."""

    config_path: str
    as_json: bool
    timeout_s: float = DEFAULT_TIMEOUT_S

    def config(self) -> dict[str, Any]:
        """Read the configuration. A file that is not there is misuse; raises ConfigurationError when it is bad."""
        from mail_service.settings import load_config_file  # noqa: PLC0415

        if not Path(self.config_path).exists():
            raise click.UsageError(f"{self.config_path}: there is no such file. Name one with --config.")
        return load_config_file(self.config_path)

    @contextmanager
    def service(self) -> Iterator[Callable[..., Any]]:
        """Yield the way to call a method of the running service. Raises Unavailable at once when none is running."""
        with open_client(self.config(), self.timeout_s) as client:
            if not client.is_running():
                raise click.ClickException(
                    "the mail service is not running on this broker: start it with `mail-service run`"
                )
            yield client.call

    def show(self, answer: Any, as_text: Callable[[Any], str]) -> None:
        """Print *answer*: exactly as it came, or for people."""
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False) if self.as_json else as_text(answer))


def open_client(config: dict[str, Any], timeout_s: float) -> MailClient:
    """A client for the broker of *config*."""
    from mail_service.client import MailClient  # noqa: PLC0415

    return MailClient.from_config(config, timeout=timeout_s)


def common_options(*, timeout_s: float | None = DEFAULT_TIMEOUT_S) -> Callable[[Command], Command]:
    """Give a command ``--config``, ``--json`` and, unless None, ``--timeout``; it gets them as a Call."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def called(config_path: str, as_json: bool, timeout_s: float = DEFAULT_TIMEOUT_S, **kwargs: Any) -> Any:
            return command(Call(config_path=config_path, as_json=as_json, timeout_s=timeout_s), **kwargs)

        decorated: Any = called
        if timeout_s is not None:
            limit = click.FloatRange(min=0, min_open=True)
            decorated = click.option(
                "--timeout", "timeout_s", type=limit, default=timeout_s, show_default=True, metavar="SECONDS",
                help="How long to wait for the answer.",
            )(decorated)  # fmt: skip
        decorated = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")(decorated)
        named: Command = click.option(
            "--config", "config_path", default="config.yaml", show_default=True, metavar="FILE", help="Of the service."
        )(decorated)
        return named

    return decorate


class Time(click.ParamType[str]):
    """A time in ISO 8601, UTC where it has no offset; passed on in UTC with offset."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return clock.iso(clock.parse(str(value)))
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time in ISO 8601, such as 2026-11-22T03:00:00+01:00", param, ctx)


def filter_options(*, with_pages: bool = False) -> Callable[[Command], Command]:
    """Give a command the filters of the error log; it gets those that were given as ``filters``."""
    options = {**_FILTERS, **(_PAGES if with_pages else {})}

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def called(*args: Any, **kwargs: Any) -> Any:
            filters = {name: kwargs.pop(name) for name in options}
            statuses = filters["status"]
            filters["status"] = statuses[0] if len(statuses) == 1 else list(statuses) or None
            given = {name: value for name, value in filters.items() if value is not None}
            return command(*args, filters=given, **kwargs)

        decorated: Any = called
        for option in reversed(options.values()):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


_Option = Callable[[Any], Any]
_STATUSES = click.Choice([str(status) for status in Status])
_FILTERS: dict[str, _Option] = {
    "status": click.option("--status", multiple=True, type=_STATUSES, help="May be given several times."),
    "mailer": click.option("--mailer", metavar="NAME", help="The mailer that the mail is for."),
    "recipient": click.option("--recipient", metavar="ADDRESS", help="In any case of letters."),
    "tenant": click.option("--tenant", metavar="NAME", help="Whom the mail is for."),
    "since": click.option("--since", type=Time(), help="Changed at this time or later (ISO 8601, UTC)."),
    "until": click.option("--until", type=Time(), help="Changed at this time or earlier."),
}
_PAGES: dict[str, _Option] = {
    "limit": click.option("--limit", type=click.IntRange(min=1), help="At most so many; 100 without it."),
    "after": click.option("--after", metavar="ID", help="Those after this one, for the next page."),
}


def without_traceback(text: str) -> str:
    """The part of an error's text that says what happened; the error log has all of it."""
    return text.partition(TRACEBACK)[0].rstrip() or text


def printable(text: str) -> str:
    """*text* without what a terminal would obey: error texts and subjects come from strangers. Keeps line breaks."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
