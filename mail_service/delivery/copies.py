"""A copy of a mail as it arrives at a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mail_service import clock, message, sizes, topology
from mail_service.delivery.settling import MOST_DEATHS
from mail_service.envelope import OURS, Envelope
from mail_service.ledger.records import Mail, recipient
from mail_service.message import Options
from mail_service.message.references import require_own
from mail_service.outcome import Status
from mail_service.routing import choose
from mail_service.settings import Settings

#: A delay level may end this much early by the clocks of two hosts; not worth another round, milliseconds.
EARLY_MS = 1000
DOORS = ("send", "submit", "event")
#: What a count in a header may be; PostgreSQL's integer ends at twice this.
LARGEST_NUMBER = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A copy of a mail as it arrived at a worker, read and checked."""

    envelope: Envelope
    #: the message in its canonical form
    canonical: Mapping[str, Any]
    options: Options
    #: the mail as this copy knows it
    mail: Mail
    headers: Mapping[str, Any] = field(default_factory=dict)
    redelivered: bool = False
    #: the envelope as it arrived; empty if somebody else wrote it, or more into it than is ours
    body: bytes = b""

    @property
    def attempts(self) -> int:
        """Attempts that this copy knows of."""
        return self.mail.attempts

    @property
    def passed(self) -> tuple[str, ...]:
        """The keys of the limits whose turn it has had."""
        keys = self.headers.get(topology.TURNS)
        return tuple(key for key in keys if isinstance(key, str)) if isinstance(keys, list) else ()

    @property
    def early_ms(self) -> int:
        """Milliseconds until it is due, 0 when it is: some waits are longer than the longest delay level."""
        due = self.headers.get(topology.DUE)
        early = due - clock.now_ms() if isinstance(due, int) else 0
        return min(early, topology.LEVELS_MS[-1]) if early > EARLY_MS else 0

    @property
    def has_expired(self) -> bool:
        """Its ``expires_at`` has passed."""
        return self.options.expires_at is not None and self.options.expires_at <= clock.now()

    @property
    def content(self) -> bytes:
        """What the ledger keeps of it."""
        if self.body and not self.envelope.unrecorded and self.envelope.reply_to is None:
            # writing it anew would take three times its size
            return self.body
        return replace(self.envelope, unrecorded=(), reply_to=None).body()

    @property
    def only_to_record(self) -> bool:
        """What became of the mail is decided and only has to be written down."""
        return self.headers.get(topology.STATE) == topology.STATE_LOG


def number(value: Any) -> int:
    """A header that should be a count: anything else is 0, since anybody can publish anything."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_NUMBER
    return value if is_count else 0


def validated(given: object, settings: Settings, *, takes_references: bool = False) -> dict[str, Any]:
    """A message in its canonical form, within the bounds of *settings*. Raises InvalidMessage."""
    return message.validate(
        given,
        default_from=settings.default_from,
        max_size=settings.max_size,
        bounds=settings.bounds,
        takes_references=takes_references,
    )


def read(body: bytes, headers: Mapping[str, Any], *, redelivered: bool, settings: Settings) -> Delivery:
    """
    Make a Delivery of what arrived. Raises InvalidMessage.

    Everything is checked again here: clients publish to the work queue themselves, and so can anybody else.
    """
    envelope = Envelope.parse(body)
    canonical = validated(envelope.message, settings, takes_references=settings.blobs is not None)
    require_own(canonical, envelope.id)
    options = Options.parse(envelope.options)
    recipients = {
        address: dict(envelope.settled.get(address) or recipient(Status.QUEUED))
        for address in message.recipients(canonical)
    }
    mail = Mail(
        id=envelope.id,
        status=Status.QUEUED,
        mailer=choose(settings, canonical, options, envelope.id),
        tenant=options.tenant,
        priority=options.priority or "normal",
        door=envelope.door if envelope.door in DOORS else "submit",
        attempts=number(headers.get(topology.ATTEMPTS)),
        generation=number(headers.get(topology.GENERATION)),
        deaths=min(number(headers.get(topology.DEATHS)), MOST_DEATHS - 1),
        digest=message.digest(canonical),
        recipients=recipients,
        submitted_at=envelope.submitted_at,
        updated_at=envelope.submitted_at,
    )
    return Delivery(
        envelope=envelope,
        canonical=canonical,
        options=options,
        mail=mail,
        headers=headers,
        redelivered=redelivered or headers.get(topology.REDELIVERED) is True,
        body=body if body.startswith(OURS) and len(body) <= settings.max_size + sizes.ROOM_TO_GROW else b"",
    )


def with_turn(headers: Mapping[str, Any], key: str) -> list[Any]:
    """What stands in the header for the turns that a copy has had, with that of *key*."""
    passed = headers.get(topology.TURNS)
    return [*(passed if isinstance(passed, list) else ()), key]
