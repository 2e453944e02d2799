"""``manage.py send_outbox``: hand the outbox's mails over to the mail service."""

from __future__ import annotations

import signal
import threading
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError, OperationalError, ProgrammingError, connections, reset_queries
from django.db import router as database_router

from mail_service.django.outbox import handing
from mail_service.django.outbox.models import OutboxMail

#: seconds between two attempts while RabbitMQ or the database is away: the pause, doubled each time up to this
_LONGEST_PAUSE_S = 30.0
#: SQLite takes 999 parameters in a statement, before 3.32
_LARGEST_BATCH = 900


class Command(BaseCommand):
    """Runs until SIGTERM or SIGINT, which let it finish its batch; or once."""

    help = (
        "Hand the mails in the outbox over to the mail service, in order. Runs until it is stopped; several may run. "
        "With --once it ends when nothing is left, with status 1 if mails wait that could not be handed over."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="End when nothing is left to hand over.")
        parser.add_argument(
            "--pause", type=_seconds, default=1.0, metavar="SECONDS", help="Between two looks at the table (1)."
        )
        parser.add_argument(
            "--batch", type=_batch, default=handing.BATCH, metavar="N", help=f"Mails at a time ({handing.BATCH})."
        )
        parser.add_argument("--database", metavar="ALIAS", help="Where the table is; else as the router says.")
        parser.add_argument(
            "--retry-refused", action="store_true", help="First give the mails another chance that were refused."
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        self._stopped = threading.Event()
        self._last_problem: str | None = None
        database = options["database"] or database_router.db_for_write(OutboxMail)
        if database not in connections:
            raise CommandError(f"There is no database {database!r} in DATABASES.")
        with _stopped_by_signals(self._stopped):
            if options["retry_refused"]:
                self._take_back(database)
            if options["once"]:
                self._once(database, options["batch"], options["verbosity"])
            else:
                self._go_on(database, options["batch"], options["pause"])

    def _take_back(self, database: str) -> None:
        refused = OutboxMail.objects.using(database).exclude(refused_at=None)
        try:
            count = refused.update(refused_at=None, error="")
        except DatabaseError as exc:
            raise CommandError(_about(exc)) from exc
        self.stdout.write(f"{count} refused mails wait again.")

    def _once(self, database: str, batch: int, verbosity: int) -> None:
        tally = handing.Tally()
        try:
            handing.hand_over_all(database, batch=batch, is_over=self._stopped.is_set, tally=tally)
        except DatabaseError as exc:
            raise CommandError(_about(exc)) from exc
        finally:
            if verbosity:
                self.stdout.write(f"{tally.handed_over} mails handed over.")
            self._tell_of_refused(tally)
        if tally.problem:
            raise CommandError(f"Mails wait in the outbox: {tally.problem}")

    def _go_on(self, database: str, batch: int, pause_s: float) -> None:
        failures = 0
        while not self._stopped.is_set():
            problem = self._try(database, batch)
            failures = failures + 1 if problem else 0
            self._tell(problem)
            longest_s = max(pause_s, _LONGEST_PAUSE_S)
            self._stopped.wait(min(longest_s, pause_s * 2 ** min(failures, 10)) if problem else pause_s)

    def _try(self, database: str, batch: int) -> str | None:
        """What stood in the way."""
        # kept by Django where DEBUG is on
        reset_queries()
        tally = handing.Tally()
        try:
            handing.hand_over_all(database, batch=batch, is_over=self._stopped.is_set, tally=tally)
        except ProgrammingError as exc:
            raise CommandError(_about(exc)) from exc
        except (OperationalError, InterfaceError) as exc:
            # the next attempt makes a new one
            connections[database].close()
            return _about(exc)
        finally:
            self._tell_of_refused(tally)
        return tally.problem

    def _tell(self, problem: str | None) -> None:
        """A line when something begins to be in the way, and one when it is over."""
        if problem and self._last_problem is None:
            self.stderr.write(f"Mails wait in the outbox: {problem}")
        if self._last_problem and not problem:
            self.stderr.write("The outbox is handed over again.")
        self._last_problem = problem

    def _tell_of_refused(self, tally: handing.Tally) -> None:
        if tally.refused:
            self.stderr.write(
                f"{tally.refused} mails cannot be handed over: see the column error of mail_service_outbox. "
                "--retry-refused gives them another chance."
            )


@contextmanager
def _stopped_by_signals(stopped: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set the event; only a main thread can be told."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _about(exc: DatabaseError) -> str:
    text = str(exc).strip().partition("\n")[0]
    hint = " Has `manage.py migrate` been run?" if isinstance(exc, ProgrammingError) else ""
    return f"the database does not answer as it should: {text}.{hint}"


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 86_400:
        raise ArgumentTypeError("expected seconds above 0")
    return seconds


def _batch(text: str) -> int:
    size = int(text)
    if not 1 <= size <= _LARGEST_BATCH:
        raise ArgumentTypeError(f"expected a number from 1 to {_LARGEST_BATCH}")
    return size
