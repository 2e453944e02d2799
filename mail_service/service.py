"""
The doors and the lanes: what nameko runs.

``nameko run --config config.yaml mail_service.service`` starts all four services. A door only accepts; a lane delivers,
and each lane has workers of its own, so that no lane's backlog keeps another one waiting.
"""

from __future__ import annotations

from typing import Any

from mail_service.logs import quiet_the_stack

quiet_the_stack()

from mail_service.amqp.lanes import Event, deliver, events, parked
from mail_service.amqp.rpc import ReplyLater, rpc
from mail_service.delivery.copies import Delivery
from mail_service.delivery.verdicts import Verdict
from mail_service.doors.provider import DoorProvider, Doors
from mail_service.web.pages import Web
from mail_service.wiring import Runtime, RuntimeProvider

__all__ = ["BulkLane", "HighLane", "MailService", "NormalLane", "Web"]


class MailService:
    """The RPC methods, and the event handler."""

    name = "mail_service"

    doors: Doors = DoorProvider()

    @rpc
    def send(self, message: Any = None, **options: Any) -> ReplyLater:
        """Queue a mail; the caller is answered when it is final or held. Raises what delivery came to."""
        self.doors.accept.send(message, options, self.doors.caller)
        return ReplyLater()

    @rpc
    def submit(self, message: Any = None, **options: Any) -> dict[str, Any]:
        """Queue a mail: ``{"id", "status"}`` once RabbitMQ has it."""
        return self.doors.accept.submit(message, options, self.doors.caller)

    @rpc
    def submit_many(self, messages: Any = None) -> list[dict[str, Any]]:
        """Queue many; one answer per message, in order."""
        return self.doors.accept.submit_many(messages, self.doors.caller)

    @rpc
    def status(self, id: Any = None) -> dict[str, Any]:
        """The record of a mail."""
        return self.doors.operate.status(id)

    @rpc
    def errors(self, **filters: Any) -> list[dict[str, Any]]:
        """The error log's records, newest first."""
        return self.doors.operate.errors(filters)

    @rpc
    def error(self, id: Any = None) -> dict[str, Any]:
        """One entry of the error log with its attempts, its message and its options."""
        return self.doors.operate.error(id)

    @rpc
    def replay(self, id: Any = None, **filters: Any) -> list[str]:
        """Put entries back on their way."""
        return self.doors.operate.replay(id, filters)

    @rpc
    def discard(self, id: Any = None, **filters: Any) -> list[str]:
        """Mark entries as dealt with."""
        return self.doors.operate.discard(id, filters)

    @rpc
    def purge(self, older_than_days: Any = None, status: Any = "sent") -> int:
        """Delete old final mails."""
        return self.doors.operate.purge(older_than_days, status)

    @rpc
    def retry_now(self, **filters: Any) -> int:
        """Attempt deferred and held mail now."""
        return self.doors.operate.retry_now(filters)

    @rpc
    def suppress(self, address: Any = None, reason: Any = "", tenant: Any = None, until: Any = None) -> dict[str, Any]:
        """Mail nobody of this address, or of this domain (``@example.org``), any more."""
        return self.doors.steer.suppress(address, reason, tenant, until)

    @rpc
    def suppress_many(self, entries: Any = None) -> list[dict[str, Any]]:
        """Put many on the list of those who are not mailed; one answer for each, in order."""
        return self.doors.steer.suppress_many(entries)

    @rpc
    def unsuppress(self, address: Any = None, tenant: Any = None) -> bool:
        """Mail this address, or this domain, again."""
        return self.doors.steer.unsuppress(address, tenant)

    @rpc
    def suppressions(
        self, limit: Any = 100, after: Any = None, tenant: Any = None, domain: Any = None
    ) -> list[dict[str, Any]]:
        """Who is not mailed, in the order of the addresses."""
        return self.doors.steer.suppressions(limit, after, tenant, domain)

    @rpc
    def pause(
        self, mailer: Any = None, tenant: Any = None, priority: Any = None, seconds: Any = None, reason: Any = ""
    ) -> dict[str, Any]:
        """Hold what matches, for so many seconds or until it is resumed."""
        return self.doors.steer.pause({"mailer": mailer, "tenant": tenant, "priority": priority}, seconds, reason)

    @rpc
    def resume(
        self, mailer: Any = None, tenant: Any = None, priority: Any = None, seconds: Any = None
    ) -> list[dict[str, Any]]:
        """End the pauses that have what is named, or all of them."""
        return self.doors.steer.resume({"mailer": mailer, "tenant": tenant, "priority": priority}, seconds)

    @rpc
    def pauses(self) -> list[dict[str, Any]]:
        """What is paused."""
        return self.doors.steer.pauses()

    @rpc
    def cancel(self, id: Any = None) -> dict[str, Any]:
        """End a mail that waits."""
        return self.doors.steer.cancel(id)

    @rpc
    def reschedule(self, id: Any = None, at: Any = None) -> dict[str, Any]:
        """Have a mail that waits attempted at another time."""
        return self.doors.steer.reschedule(id, at)

    @rpc
    def explain(self, id: Any = None) -> dict[str, Any]:
        """What happened to a mail, why it is where it is, and what happens next."""
        return self.doors.steer.explain(id)

    @rpc
    def forget(self, address: Any = None) -> int:
        """Redact what is stored about a recipient."""
        return self.doors.steer.forget(address)

    @rpc
    def health(self) -> dict[str, dict[str, Any]]:
        """How the broker, the database and each mailer are."""
        return self.doors.health()

    @events
    def send_email(self, event: Event) -> None:
        """Queue the mail of a ``send_email`` event."""
        self.doors.accept.accept_event(
            event.payload, event.fingerprint, redelivered=event.redelivered, trace=event.trace
        )

    @parked
    def park(self) -> None:
        """Moves what was returned too often to the error log; the entrypoint does it all."""


class HighLane:
    """Delivers mail of priority ``high``."""

    name = "mail_service_high"

    runtime: Runtime = RuntimeProvider()

    @deliver("high")
    @deliver("high", again=True)
    def deliver(self, delivery: Delivery) -> Verdict:
        """Attempt one mail. Raises a Backoff when it is to be attempted again."""
        return self.runtime.courier.attempt(delivery)


class NormalLane:
    """Delivers mail of priority ``normal``."""

    name = "mail_service_normal"

    runtime: Runtime = RuntimeProvider()

    @deliver("normal")
    @deliver("normal", again=True)
    def deliver(self, delivery: Delivery) -> Verdict:
        """Attempt one mail. Raises a Backoff when it is to be attempted again."""
        return self.runtime.courier.attempt(delivery)


class BulkLane:
    """Delivers mail of priority ``bulk``."""

    name = "mail_service_bulk"

    runtime: Runtime = RuntimeProvider()

    @deliver("bulk")
    @deliver("bulk", again=True)
    def deliver(self, delivery: Delivery) -> Verdict:
        """Attempt one mail. Raises a Backoff when it is to be attempted again."""
        return self.runtime.courier.attempt(delivery)
