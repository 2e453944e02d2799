"""Error-log entries of what arrived and is no mail, or can no longer be treated as one."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import replace

from mail_service import clock, topology
from mail_service.amqp.publisher import PublishFailed
from mail_service.delivery.announcing import Announcer, Report
from mail_service.delivery.copies import read
from mail_service.delivery.settling import ended
from mail_service.envelope import Envelope, ReplyTo
from mail_service.errors import InvalidMessage
from mail_service.ledger import Ledger, StoreDown
from mail_service.ledger.records import RAW, Change, Mail
from mail_service.outcome import Status
from mail_service.settings import Settings


class Unusable:
    """Makes the entries, whole. Each call raises StoreDown while the database is away."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        announcer: Announcer,
        *,
        report: Report | None,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._announcer = announcer
        self._report = report

    def refused(self, body: bytes, *, status: str, error: str) -> None:
        """
        Make an error-log entry of what was in a lane and cannot be used, under the id that whoever put it there knows.

        A mail of that id is the same one if it was accepted at the same moment.
        """
        try:
            envelope = Envelope.parse(body)
        except InvalidMessage:
            self.raw(body, status=status, error=error)
            return
        known = self._ledger.find(envelope.id)
        if known is None:
            self.raw(body, status=status, error=error, envelope=envelope)
        elif known.submitted_at != envelope.submitted_at:
            self.raw(body, status=status, error=error)
        elif not known.status.is_final:
            self._store(_ended_now(known, status, error), body, [])

    def raw(self, body: bytes, *, status: str, error: str, envelope: Envelope | None = None) -> Mail:
        """Make an error-log entry of a message that is no mail, or can no longer be treated as one."""
        moment = clock.now_iso()
        mail = Mail(
            id=envelope.id if envelope else str(uuid.uuid4()),
            status=Status(status),
            mailer="default",
            door=RAW,
            generation=1,
            digest=hashlib.sha256(body).hexdigest(),
            submitted_at=envelope.submitted_at if envelope else moment,
            updated_at=moment,
            error=error,
        )
        self._store(mail, body, [])
        return mail

    def parked(self, body: bytes) -> None:
        """Make an error-log entry of what was returned to its queue too often."""
        error = f"it was returned to its queue {topology.DELIVERY_LIMIT} times without an end; it may end the process"
        try:
            self._parked_mail(body, error)
        except (StoreDown, PublishFailed):
            raise
        except Exception:  # noqa: BLE001 - whatever is odd about it, it has to be stored
            self.raw(body, status="failed", error=error)

    def _parked_mail(self, body: bytes, error: str) -> None:
        copy = read(body, {}, redelivered=True, settings=self._settings)
        mail, envelope = self._ledger.find(copy.mail.id) or copy.mail, copy.envelope
        if mail.digest != copy.mail.digest:
            # another mail has this id
            self.raw(body, status="failed", error=error)
        elif not mail.status.is_final:
            mail = _ended_now(mail, "failed", error)
            self._store(mail, body, [envelope.reply_to] if envelope.reply_to else [])
        if self._report is not None and mail.digest == copy.mail.digest:
            self._report(envelope, mail)

    def _store(self, mail: Mail, body: bytes, waiting: Iterable[ReplyTo]) -> None:
        self._ledger.record(Change(mail=mail, content=body))
        self._announcer.change(mail, waiting)


def _ended_now(mail: Mail, status: str, error: str) -> Mail:
    """Copies of it that are still about are old ones."""
    generation = mail.generation + 1
    return replace(ended(mail, Status(status), error), generation=generation, updated_at=clock.now_iso())
