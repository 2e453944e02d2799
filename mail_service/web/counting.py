"""The parts of a service that others can ask for its numbers: they do what they do without, and count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from kombu import Connection

from mail_service.amqp.mailqueue import MailQueue
from mail_service.amqp.publisher import Publisher, PublishFailed, TooLarge, Unroutable
from mail_service.envelope import Envelope
from mail_service.ledger import StoreDown
from mail_service.ledger.database import Database, Write
from mail_service.ledger.records import Mail
from mail_service.web.metrics import Metrics

T = TypeVar("T")


class CountedDatabase(Database):
    """Counts how often it could not be used."""

    def __init__(self, url: str, metrics: Metrics) -> None:
        super().__init__(url)
        self._metrics = metrics

    def write(self, write: Write, item: Any) -> Any:
        """See Database."""
        try:
            return super().write(write, item)
        except StoreDown:
            self._metrics.failed("database")
            raise

    def read(self, query: Callable[[Any], Any]) -> Any:
        """See Database."""
        try:
            return super().read(query)
        except StoreDown:
            self._metrics.failed("database")
            raise


class CountedPublisher(Publisher):
    """Counts how often the broker did not take something; what it would never take says nothing about the broker."""

    def __init__(self, connect: Callable[[], Connection], metrics: Metrics) -> None:
        super().__init__(connect)
        self._metrics = metrics

    def publish(self, body: bytes, **where: Any) -> None:
        """See Publisher."""
        try:
            super().publish(body, **where)
        except (TooLarge, Unroutable):
            raise
        except PublishFailed:
            self._metrics.failed("broker")
            raise

    def declare(self, declaration: Callable[[Connection], T]) -> T:
        """See Publisher."""
        try:
            return super().declare(declaration)
        except PublishFailed:
            self._metrics.failed("broker")
            raise


class CountedQueue(MailQueue):
    """Counts the mails that it takes for the first time."""

    def __init__(self, publisher: Publisher, metrics: Metrics) -> None:
        super().__init__(publisher)
        self._metrics = metrics

    def put(self, envelope: Envelope, mail: Mail | None = None, *, replay: bool = False) -> None:
        """See MailQueue."""
        super().put(envelope, mail, replay=replay)
        if mail is None:
            self._metrics.accepted(envelope.door)
