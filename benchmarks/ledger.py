"""``python -m benchmarks.ledger MAILS WORKERS`` prints how many mails a second are claimed and recorded in SQLite."""

from __future__ import annotations

import eventlet

eventlet.monkey_patch()

import sys  # noqa: E402 - after the patching, as in the service
import tempfile  # noqa: E402
import time  # noqa: E402
from dataclasses import replace  # noqa: E402
from functools import partial  # noqa: E402

from mail_service import clock  # noqa: E402
from mail_service.ledger import Ledger  # noqa: E402
from mail_service.ledger.database import Database  # noqa: E402
from mail_service.ledger.records import Attempt, Change, Copy, Mail, recipient  # noqa: E402
from mail_service.outcome import Status  # noqa: E402


def deliver(ledger: Ledger, number: int) -> None:
    """What a worker asks of the ledger for a mail that is sent at the first attempt."""
    moment = clock.now_iso()
    recipients = {f"m{number}@example.org": recipient(Status.QUEUED)}
    mail = Mail(
        id=f"mail-{number}",
        status=Status.QUEUED,
        mailer="default",
        digest="0" * 64,
        recipients=recipients,
        submitted_at=moment,
        updated_at=moment,
    )
    ledger.claim(Copy(mail=mail))
    sent = {address: recipient(Status.SENT, detail="250 2.0.0 taken") for address in recipients}
    attempt = Attempt(
        at=moment, mailer="default", diagnosis="accepted", text="250 taken", milliseconds=1, recipients=sent
    )
    ledger.record(
        Change(mail=replace(mail, status=Status.SENT, attempts=1, generation=1, recipients=sent), attempts=[attempt])
    )


def main() -> None:
    """Run the workers and print the rate."""
    mails, workers = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Database(f"sqlite:///{folder}/bench.db"), attempt_timeout_s=120)
        ledger.database.check()
        pool = eventlet.GreenPool(workers)
        began = time.monotonic()
        # with its result, so that what fails ends this
        for _ in pool.imap(partial(deliver, ledger), range(mails)):
            pass
        print(mails / (time.monotonic() - began))
        ledger.database.close()


if __name__ == "__main__":
    main()
