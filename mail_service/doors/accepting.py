"""
Take responsibility for a mail: check it, give it its id, put it into its lane, and only then say yes.

The order is what a caller can rely on: the answer comes after RabbitMQ has confirmed. The ledger is told afterwards, so
that ``status`` knows the mail at once; if that fails, the worker that takes the mail from its lane makes it known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import eventlet

from mail_service import clock
from mail_service import message as messages
from mail_service.amqp.mailqueue import MailQueue
from mail_service.amqp.publisher import PublishFailed, TooLarge
from mail_service.amqp.rpc import Caller
from mail_service.delivery.announcing import Announcer
from mail_service.delivery.copies import validated
from mail_service.envelope import Envelope, derived_id, seal
from mail_service.errors import Conflict, InvalidMessage, MailServiceError, Unavailable
from mail_service.ledger import Ledger, StoreDown
from mail_service.ledger.records import Mail, recipient
from mail_service.message import Options, references
from mail_service.outcome import Status
from mail_service.routing import choose
from mail_service.settings import Settings
from mail_service.storeroom import NO_STORE, Storeroom
from mail_service.tracing import NO_TRACE, NO_TRACING, Carrier, Tracing

#: until an accepted mail is answered although ``status`` does not know it yet, seconds
KNOWN_WITHIN_S = 2.0
#: mails of one submit_many that wait for their confirms together
MOST_AT_ONCE = 100


class Acceptance:
    """
    The front doors' common part. Raises InvalidMessage, Conflict, or PublishFailed when the broker does not confirm.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        queue: MailQueue,
        announcer: Announcer,
        *,
        storeroom: Storeroom = NO_STORE,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._tracing = tracing
        self._storeroom = storeroom
        self._settings = settings
        self._ledger = ledger
        self._queue = queue
        self._announcer = announcer

    def submit(self, message: Any, options: Mapping[str, Any], caller: Caller, *, index: int = 0) -> dict[str, Any]:
        """Queue a mail: ``{"id", "status": "queued"}``, or the record of the mail that has this id already."""
        envelope, mail, canonical = self._check(message, options, door="submit", caller=caller, index=index)
        known = self._known(mail) if mail_may_be_known(options, caller) else None
        if known:
            return known.record()
        self._put(envelope, canonical, caller.trace)
        self._make_known(mail)
        return {"id": mail.id, "status": str(Status.QUEUED)}

    def submit_many(self, items: Any, caller: Caller) -> list[dict[str, Any]]:
        """An answer for each, in order; one that cannot be used does not stop the others."""
        if not isinstance(items, list):
            raise InvalidMessage("messages", "has to be a list of messages")
        # side by side, so that they share confirms and commits; an id that comes again meets the one before it
        pool = eventlet.GreenPool(MOST_AT_ONCE)
        latest: dict[str, Any] = {}
        answers = []
        for index, item in enumerate(items):
            mail_id = _own_id(item)
            before = latest.get(mail_id) if mail_id else None
            answers.append(pool.spawn(self._submit_one, item, caller, index, before))
            if mail_id:
                latest[mail_id] = answers[-1]
        return [answer.wait() for answer in answers]

    def _submit_one(self, item: Any, caller: Caller, index: int, before: Any) -> dict[str, Any]:
        if before is not None:
            before.wait()
        try:
            message, options = split(item)
            return self.submit(message, options, caller, index=index)
        except MailServiceError as exc:
            field = exc.field if isinstance(exc, InvalidMessage) else None
            return {"error": {"type": type(exc).__name__, "message": str(exc), "field": field}}

    def send(self, message: Any, options: Mapping[str, Any], caller: Caller) -> None:
        """Queue a mail whose caller waits for its end, or let the caller join the wait for one that is known."""
        envelope, mail, canonical = self._check(message, options, door="send", caller=caller, index=0)
        if mail_may_be_known(options, caller) and self._join(mail, caller):
            return
        self._put(replace(envelope, reply_to=caller.reply_to), canonical, caller.trace)
        self._make_known(mail)

    def accept_event(self, payload: Any, fingerprint: str, *, redelivered: bool, trace: Carrier = NO_TRACE) -> None:
        """Queue the mail of an event."""
        message, options = split(payload)
        envelope, mail, canonical = self._check(message, options, door="event", caller=Caller(reply_to=None), index=0)
        if options.get("id"):
            if not self._known(mail):
                self._put_event(envelope, canonical, trace)
                self._make_known(mail)
            return
        mail_id = self._begin_intake(fingerprint, mail, redelivered=redelivered)
        self._put_event(replace(envelope, id=mail_id), canonical, trace)
        self._end_intake(mail_id)

    def again(self, raw: Mail, content: bytes) -> tuple[Envelope, Mail]:
        """Make a mail of what could not be used as one when it came. Raises InvalidMessage if it still cannot."""
        message, options, door = _reread(content)
        envelope, mail, _ = self._check(message, options, door=door, caller=Caller(reply_to=None), index=0)
        return replace(envelope, id=raw.id), replace(mail, id=raw.id, generation=raw.generation)

    def _check(
        self, message: Any, options: Mapping[str, Any], *, door: str, caller: Caller, index: int
    ) -> tuple[Envelope, Mail, dict[str, Any]]:
        tenant = options.get("tenant")
        mailers = self._settings.mailers_of(tenant if isinstance(tenant, str) else None)
        parsed = Options.parse(options, mailers=mailers, schedules=self._settings.schedules)
        canonical = validated(message, self._settings, takes_references=self._settings.blobs is not None)
        envelope = seal(
            message,
            {name: value for name, value in options.items() if value is not None},
            door=door,
            mail_id=parsed.id or _derived(caller, index),
            sender=str(canonical.get("from_email") or ""),
        )
        references.require_own(canonical, envelope.id)
        mail = Mail(
            id=envelope.id,
            status=Status.QUEUED,
            mailer=choose(self._settings, canonical, parsed, envelope.id),
            tenant=parsed.tenant,
            priority=parsed.priority or "normal",
            door=door,
            digest=messages.digest(canonical),
            recipients={address: recipient(Status.QUEUED) for address in messages.recipients(canonical)},
            submitted_at=envelope.submitted_at,
            updated_at=envelope.submitted_at,
            next_attempt_at=_due(canonical),
        )
        return envelope, mail, canonical

    def _put_event(self, envelope: Envelope, canonical: Mapping[str, Any], trace: Carrier) -> None:
        try:
            self._put(envelope, canonical, trace)
        except Unavailable as exc:
            # nobody waits for an answer: the broker keeps the event until it can be accepted
            raise PublishFailed(str(exc)) from exc

    def _put(self, envelope: Envelope, canonical: Mapping[str, Any], trace: Carrier) -> None:
        facts = {"mail_id": envelope.id, "door": envelope.door, "priority": envelope.lane}
        try:
            with self._tracing.accepting(trace, **facts) as carried:
                if carried:
                    envelope = replace(envelope, trace=carried)
                self._queue.put(self._storeroom.keep(envelope, canonical))
        except TooLarge as exc:
            raise InvalidMessage("message", str(exc)) from exc

    def _known(self, mail: Mail) -> Mail | None:
        """The mail that has this id already. While the database is away it is the worker that finds a double."""
        try:
            known = self._ledger.find(mail.id)
        except StoreDown:
            return None
        if known and known.digest != mail.digest:
            raise Conflict(f"id {mail.id!r} already belongs to another mail")
        return known

    def _join(self, mail: Mail, caller: Caller) -> bool:
        """Whether the mail is known; if so, its caller has an answer or waits."""
        try:
            if caller.reply_to is None:
                return self._known(mail) is not None
            known = self._ledger.join(mail.id, mail.digest, caller.reply_to)
        except StoreDown:
            return False
        if known is not None:
            self._announcer.answer(known, caller.reply_to)
        return known is not None

    def _make_known(self, mail: Mail) -> None:
        try:
            # the mail is accepted already: nobody waits for a database that somebody else has locked
            with eventlet.Timeout(KNOWN_WITHIN_S, exception=False):
                self._ledger.accept(mail)
        except StoreDown:
            # the mail is safe with the broker; the worker that takes it makes it known
            return

    def _begin_intake(self, fingerprint: str, mail: Mail, *, redelivered: bool) -> str:
        try:
            return self._ledger.begin_intake(fingerprint, mail, redelivered=redelivered)
        except StoreDown:
            return mail.id

    def _end_intake(self, mail_id: str) -> None:
        try:
            self._ledger.end_intake(mail_id)
        except StoreDown:
            return


def _due(canonical: dict[str, Any]) -> str | None:
    """When a mail with ``send_at`` is attempted, if that is still to come."""
    moment = messages.send_at(canonical)
    return clock.iso(moment) if moment and moment > clock.now() else None


def mail_may_be_known(options: Mapping[str, Any], caller: Caller) -> bool:
    """A new UUID needs no look-up; an id of the caller's does, and a request that is delivered again."""
    return bool(options.get("id")) or caller.redelivered


def split(item: Any) -> tuple[Any, Mapping[str, Any]]:
    """A message with its ``options`` beside it, as events and ``submit_many`` have them."""
    if not isinstance(item, dict):
        raise InvalidMessage("message", "has to be an object")
    options = item.get("options")
    if options is not None and not isinstance(options, dict):
        raise InvalidMessage("options", "has to be an object")
    return {name: value for name, value in item.items() if name != "options"}, options or {}


def _reread(content: bytes) -> tuple[Any, Mapping[str, Any], str]:
    """Message, options and door of an event's payload, or of what a client put into a lane itself."""
    try:
        envelope = Envelope.parse(content)
    except InvalidMessage:
        return *split(_payload(content)), "event"
    return envelope.message, envelope.options, envelope.door


def _payload(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidMessage("message", "is no JSON and cannot be replayed; discard it") from None


def _own_id(item: Any) -> str | None:
    """The id that the caller gave a message of ``submit_many``, as far as can be said before it is checked."""
    options = item.get("options") if isinstance(item, dict) else None
    mail_id = options.get("id") if isinstance(options, dict) else None
    return mail_id if isinstance(mail_id, str) else None


def _derived(caller: Caller, index: int) -> str | None:
    """A request that is delivered twice is one mail: its id comes from what names the request."""
    if caller.reply_to is None or not caller.reply_to.correlation_id:
        return None
    return derived_id(caller.reply_to.routing_key, caller.reply_to.correlation_id, str(index))
