"""The commands that steer the flow: who is not mailed, what is paused, and what becomes of one mail that waits."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from mail_service.cli import tables
from mail_service.cli.common import Call, Time, common_options

#: entries of the list in one answer
_PAGE = 1_000
_COLUMNS = ("address", "tenant", "reason", "since", "until")
_TENANT = click.option("--tenant", metavar="NAME", help="For mail of this tenant alone.")


@click.command(short_help="Mail somebody no more.")
@click.argument("address", required=False)
@click.option("--reason", default="", metavar="TEXT", help="Stands in the record of each mail that is not sent.")
@_TENANT
@click.option("--until", type=Time(), help="Until this time (ISO 8601, UTC); without it, until unsuppress.")
@click.option("--csv", "file", type=click.File(encoding="utf-8-sig"), metavar="FILE", help="Those in FILE; - is stdin.")
@common_options()
def suppress(call: Call, address: str | None, file: Any, **about: Any) -> None:
    """
    Mail ADDRESS, or the whole domain @example.org, no more: in to, cc or bcc, whoever hands it in.

    A CSV file has a first line with its columns' names: address, and if wanted tenant, reason, since, until. A line
    that cannot be used does not stop the others; exit status 1.
    """
    if (address is None) == (file is None):
        raise click.UsageError("name either an ADDRESS or a file with --csv")
    if file is None:
        with call.service() as ask:
            call.show(ask("suppress", **_given({"address": address, **about})), lambda _: "1 suppressed")
        return
    entries = [_given(entry) for entry in _read(file, about)]
    with call.service() as ask:
        answers = [
            answer
            for start in range(0, len(entries), _PAGE)
            for answer in ask("suppress_many", entries[start : start + _PAGE])
        ]
    call.show(answers, _imported)
    if any("error" in answer for answer in answers):
        raise SystemExit(1)


def _imported(answers: Sequence[dict[str, Any]]) -> str:
    wrong = [(number, answer["error"]) for number, answer in enumerate(answers, start=1) if "error" in answer]
    lines = [f"{len(answers) - len(wrong)} suppressed"]
    # no address: what is printed is logged in many places
    return "\n".join(lines + [f"entry {number} of the file: {error['message']}" for number, error in wrong])


def _read(file: Any, about: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The entries of a CSV file; the options are for those that leave something open."""
    rows = csv.DictReader(file)
    if "address" not in (rows.fieldnames or ()):
        raise click.UsageError("the first line of the CSV file has to name its columns; `address` is one of them")
    for row in rows:
        named = {name: row.get(name) or about.get(name) for name in _COLUMNS if name != "address"}
        yield {"address": row["address"], **named}


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value not in (None, "")}


_UNKEPT = click.option("--reason", expose_value=False, metavar="TEXT", help="For your shell's history; it is not kept.")


@click.command(short_help="Mail somebody again.")
@click.argument("address")
@_UNKEPT
@_TENANT
@common_options()
def unsuppress(call: Call, address: str, tenant: str | None) -> None:
    """Mail ADDRESS, or the domain @example.org, again. What was not sent meanwhile can be replayed."""
    with call.service() as ask:
        answer = ask("unsuppress", address, **_given({"tenant": tenant}))
    call.show(answer, lambda removed: "mailed again" if removed else "was not suppressed")


@click.command(short_help="List who is not mailed.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many addresses; 100 without it.")
@click.option("--after", metavar="ADDRESS", help="Those after this one, for the next page.")
@click.option("--tenant", metavar="NAME", help="Those that are about this tenant's mail alone.")
@click.option("--domain", metavar="DOMAIN", help="The domain itself, and the addresses in it.")
@click.option("--csv", "as_csv", is_flag=True, help="All of them, as CSV that suppress --csv takes.")
@common_options()
def suppressions(call: Call, limit: int | None, after: str | None, as_csv: bool, **which: Any) -> None:
    """List who is not mailed, in the order of the addresses."""
    with call.service() as ask:
        if as_csv:
            click.echo(_as_csv(_all(ask, which)), nl=False)
        else:
            call.show(ask("suppressions", **_given({"limit": limit, "after": after, **which})), tables.suppressions)


def _all(ask: Callable[..., Any], which: dict[str, Any]) -> Iterator[dict[str, Any]]:
    after = None
    while page := ask("suppressions", **_given({"limit": _PAGE, "after": after, **which})):
        yield from page
        after = page[-1]["address"]


def _as_csv(entries: Iterator[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(entries)
    return out.getvalue()


_CRITERIA = (
    click.option("--mailer", metavar="NAME", help="Mail for this mailer."),
    click.option("--tenant", metavar="NAME", help="Mail for this tenant."),
    click.option("--priority", type=click.Choice(["high", "normal", "bulk"]), help="Mail of this priority."),
)


def _criteria(command: Any) -> Any:
    for option in reversed(_CRITERIA):
        command = option(command)
    return command


_SECONDS = click.FloatRange(min=0, min_open=True)


@click.command(short_help="Hold mail until it is resumed.")
@_criteria
@click.option("--seconds", type=_SECONDS, metavar="N", help="Resumed by itself after so many.")
@click.option("--reason", default="", metavar="TEXT", help="Stands in the record of each mail that is held.")
@common_options()
def pause(call: Call, **about: Any) -> None:
    """Hold the mail that has all of what is named; without any, all mail. It costs no attempt, and can still expire."""
    with call.service() as ask:
        call.show(ask("pause", **_given(about)), lambda paused: tables.pauses([paused]))


@click.command(short_help="End pauses.")
@_criteria
@click.option("--seconds", type=_SECONDS, metavar="N", help="Not now, but after so many.")
@_UNKEPT
@common_options()
def resume(call: Call, **about: Any) -> None:
    """End the pauses that have all of what is named; without any, all pauses. Their mail goes on at once."""
    with call.service() as ask:
        call.show(ask("resume", **_given(about)), tables.pauses)


@click.command(short_help="List what is paused.")
@common_options()
def pauses(call: Call) -> None:
    """List what is paused, oldest first."""
    with call.service() as ask:
        call.show(ask("pauses"), tables.pauses)


@click.command(short_help="End a mail that waits.")
@click.argument("mail_id", metavar="ID")
@common_options()
def cancel(call: Call, mail_id: str) -> None:
    """End a mail that waits (queued, deferred or held) as discarded."""
    with call.service() as ask:
        call.show(ask("cancel", mail_id), tables.record)


@click.command(short_help="Attempt a mail that waits at another time.")
@click.argument("mail_id", metavar="ID")
@click.argument("at", metavar="TIME", type=Time())
@common_options()
def reschedule(call: Call, mail_id: str, at: str) -> None:
    """Have a mail that waits attempted at TIME (ISO 8601, UTC without offset), and not before."""
    with call.service() as ask:
        call.show(ask("reschedule", mail_id, at), tables.record)


@click.command(short_help="Tell the story of a mail.")
@click.argument("mail_id", metavar="ID")
@common_options()
def explain(call: Call, mail_id: str) -> None:
    """Tell what happened to a mail, why it is where it is, and what happens next."""
    with call.service() as ask:
        call.show(ask("explain", mail_id), tables.story)


@click.command(short_help="Redact what is stored about a recipient.")
@click.argument("address")
@common_options()
def forget(call: Call, address: str) -> None:
    """
    Redact what is stored about ADDRESS in mail that is over; that mail cannot be replayed any more.

    An entry of the list of those who are not mailed stays: unsuppress removes it.
    """
    with call.service() as ask:
        call.show(ask("forget", address), lambda count: f"forgotten in {count} mails")


COMMANDS = (suppress, unsuppress, suppressions, pause, resume, pauses, cancel, reschedule, explain, forget)
