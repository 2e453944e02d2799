"""The commands of the error log: mail that did not end as sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from mail_service.cli import tables
from mail_service.cli.common import Call, common_options, filter_options
from mail_service.errors import Conflict, NotFound


@click.group()
def errors() -> None:
    """Mail that failed, expired or was not sent to everybody."""


@errors.command("list")
@filter_options(with_pages=True)
@common_options()
def list_(call: Call, filters: dict[str, Any]) -> None:
    """List entries, newest first."""
    with call.service() as ask:
        call.show(ask("errors", **filters), tables.records)


@errors.command()
@click.argument("mail_id", metavar="ID")
@common_options()
def show(call: Call, mail_id: str) -> None:
    """Show an entry with its attempts and the message as it was handed in."""
    with call.service() as ask:
        call.show(ask("error", mail_id), tables.entry)


@errors.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@filter_options()
@click.option("--all", "everything", is_flag=True, help="Everything in the error log.")
@common_options()
def replay(call: Call, ids: tuple[str, ...], filters: dict[str, Any], everything: bool) -> None:
    """Send entries again, to the recipients who have not got the mail: by id, by the filters of list, or --all."""
    _on_entries(call, "replay", ids, filters, everything, "on its way again")


@errors.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@filter_options()
@click.option("--all", "everything", is_flag=True, help="Everything in the error log.")
@common_options()
def discard(call: Call, ids: tuple[str, ...], filters: dict[str, Any], everything: bool) -> None:
    """Mark entries as dealt with; they stay until they are purged. By id, by the filters of list, or --all."""
    _on_entries(call, "discard", ids, filters, everything, "discarded")


def _on_entries(  # noqa: PLR0917  # the four ways to choose are alternatives
    call: Call, method: str, ids: tuple[str, ...], filters: dict[str, Any], everything: bool, done: str
) -> None:
    if sum((bool(ids), bool(filters), everything)) != 1:
        raise click.UsageError("say which entries: either IDs, or filters such as --status expired, or --all")
    with call.service() as ask:
        if ids:
            answer, problems = _one_by_one(ask, method, ids)
        else:
            answer, problems = ask(method, **(filters or {"all": True})), []
    call.show(answer, lambda changed: "\n".join([*changed, f"{len(changed)} {done}"]))
    for problem in problems:
        click.echo(f"Error: {problem}", err=True)
    if problems:
        raise SystemExit(1)


def _one_by_one(ask: Callable[..., Any], method: str, ids: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """All of *ids*, also when one of them does not exist."""
    changed: list[str] = []
    problems: list[str] = []
    for mail_id in dict.fromkeys(ids):
        try:
            changed += ask(method, mail_id)
        except (NotFound, Conflict) as exc:
            problems.append(f"{mail_id}: {exc}")
    return changed, problems
