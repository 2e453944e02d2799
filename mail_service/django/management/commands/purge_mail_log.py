"""``manage.py purge_mail_log DAYS [-r success|failure|all]``, as django-mailer has it."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from mail_service.client import MailClient
from mail_service.django.management.asking import TIMEOUT_S, AskingCommand
from mail_service.outcome import FINAL, Status

_STATUSES: dict[str, list[str]] = {
    "success": [str(Status.SENT)],
    "failure": sorted(map(str, FINAL - {Status.SENT})),
    "all": ["all"],
}


class Command(AskingCommand):
    """Deletes records and entries of the error log; never mail that is still on its way."""

    help = "Delete what the mail service keeps about mail that ended more than DAYS days ago."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("days", type=int, metavar="DAYS")
        parser.add_argument(
            "-r", "--result", choices=_STATUSES, default="success",
            help="success (default) is mail sent to everybody, failure all other mail, which is the error log.",
        )  # fmt: skip

    def ask(self, client: MailClient, options: dict[str, Any]) -> str:
        count = sum(
            client.call("purge", options["days"], status=status, timeout=TIMEOUT_S)
            for status in _STATUSES[options["result"]]
        )
        return f"{count} log entries deleted"
