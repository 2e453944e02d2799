"""One message on its way to RabbitMQ, and how far it got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mail_service import envelope, sizes, topology

#: bytes that an AMQP property may have; an id of 200 characters may have more, and the body has it in any case
_LONGEST_SHORTSTR = 255


class Progress(StrEnum):
    """What is known about a parcel."""

    #: RabbitMQ does not have it
    WAITING = "waiting"
    #: written to a socket; RabbitMQ may have it
    WRITTEN = "written"
    #: confirmed: RabbitMQ has it, durably
    CONFIRMED = "confirmed"
    #: returned: no queue was there to take it
    UNROUTABLE = "unroutable"
    #: larger than RabbitMQ takes
    TOO_LARGE = "too large"


@dataclass(slots=True, kw_only=True)
class Parcel:
    """A message with its address."""

    id: str
    body: bytes
    routing_key: str
    exchange: str = ""
    headers: Mapping[str, Any] = field(default_factory=dict)
    #: more AMQP properties: reply_to, correlation_id, expiration
    properties: Mapping[str, Any] = field(default_factory=dict)
    #: of a mail, which queue to declare where there is none
    lane: str | None = None
    progress: Progress = Progress.WAITING
    #: bytes; of the queue that it is too large for
    limit: int = 0

    @property
    def is_open(self) -> bool:
        """Something is still to be done about it."""
        return self.progress not in (Progress.CONFIRMED, Progress.TOO_LARGE)

    def fit_into(self, largest: int) -> None:
        """It is too large if RabbitMQ would not take it, or would not take a mail's later copies, which are larger."""
        room = sizes.ROOM_TO_GROW if self.lane else 0
        if self.is_open and len(self.body) + room > largest:
            self.progress, self.limit = Progress.TOO_LARGE, largest

    @property
    def amqp_id(self) -> str:
        """The property ``message_id``."""
        return self.id if len(self.id.encode()) <= _LONGEST_SHORTSTR else envelope.derived_id(self.id)

    @classmethod
    def of(cls, mail: envelope.Envelope, message_json: str | None) -> Parcel:
        """A mail, addressed to its lane's work queue."""
        return cls(
            id=mail.id,
            body=mail.body(message_json),
            routing_key=topology.lane_queue_name(mail.lane),
            headers=mail.headers(),
            lane=mail.lane,
        )

    def amqp_properties(self) -> dict[str, Any]:
        """Persistent JSON, always."""
        return {
            "content_type": envelope.CONTENT_TYPE,
            "content_encoding": "utf-8",
            "delivery_mode": 2,
            "message_id": self.amqp_id,
            "application_headers": dict(self.headers),
            **self.properties,
        }
