"""The command for those who send by cron."""

from __future__ import annotations

from typing import Any

import click

from mail_service.cli.common import Call, common_options


@click.command(short_help="Deliver what is due, then end.")
@click.option("--max-batch", type=click.IntRange(min=1), metavar="N", help="End after N mails were sent.")
@click.option("--max-deferred", type=click.IntRange(min=1), metavar="N", help="End after N mails were put off.")
@click.option(
    "--throttle",
    "throttle_s",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Wait after each mail.",
)
@common_options(timeout_s=None)
def drain(call: Call, **limits: Any) -> None:
    """
    Deliver what is due, one mail after the other, and end: for cron, where no service runs. One pass; what is put off
    is due in a later one.

    Exit status 0 when the pass was made, whatever became of the mails; 1 when the broker or the database is away.
    """
    call.config()
    from mail_service import runner  # noqa: PLC0415  # brings nameko and eventlet

    done = runner.drain(call.config_path, **limits)
    call.show(done, lambda answer: ", ".join(f"{count} {outcome}" for outcome, count in answer.items()))
