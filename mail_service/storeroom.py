"""
The service's use of its blob store: put large content there, fetch it for an attempt, delete it when nobody needs it.

A blob is needed as long as its mail can be attempted: until it is sent, or its entry of the error log has no content
any more. What is deleted at the end of a mail is what its copy refers to; what is left over for any reason, such as a
client that died between the store and RabbitMQ, is found by ``collect``.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

import eventlet
import sqlalchemy as sa
from eventlet import tpool
from sqlalchemy.engine import Connection

from mail_service import enclosing
from mail_service.blobs import BlobMissing, BlobSettings, Store, StoreAway, open_store
from mail_service.envelope import Envelope
from mail_service.errors import InvalidMessage, Unavailable
from mail_service.ledger import StoreDown, tables
from mail_service.ledger.contents import Keeps, everything
from mail_service.ledger.database import Database
from mail_service.ledger.records import Mail
from mail_service.message.references import copied, owner_of, references, spots
from mail_service.outcome import FINAL, Status

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: Bytes of blobs that one process sends at a time; a single larger mail is sent alone. Each takes about four times as
#: much memory: as it came, in base64, and in lines.
MOST_AT_ONCE: Final = 50_000_000
#: until a mail that found no room comes back, and between two of them, milliseconds
NO_ROOM_MS: Final = 1000
STEP_MS: Final = 100
LONGEST_WAIT_MS: Final = 60_000
#: Nothing younger is left over: it may be on its way to RabbitMQ, or in a worker's hand.
ORPHAN_S: Final = 86_400
LOOK_S: Final = 3600
#: for mail without blobs, which is nearly all
_ROOM: Final = nullcontext(0)
#: ids that are read at a time
SLICE: Final = 20_000


class Storeroom:
    """One for all workers of a process. *settings* None: there is no store, and nothing is put anywhere."""

    def __init__(
        self,
        settings: BlobSettings | None,
        *,
        keeps: Keeps = everything,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keeps = keeps
        self._settings = settings
        self._store: Store | None = open_store(settings) if settings else None
        self._now = monotonic
        self._in_use = 0
        self._next_turn_ms = 0.0

    def keep(self, envelope: Envelope, canonical: Mapping[str, Any]) -> Envelope:
        """Return *envelope* as it can travel: its large content is in the store. Raises Unavailable."""
        settings, store = self._settings, self._store
        if settings is None or store is None or not enclosing.has_large(canonical, settings.above):
            return envelope
        try:
            message = enclosing.emptied(
                envelope.message,
                canonical,
                mail_id=envelope.id,
                above=settings.above,
                put=partial(self._ask, store.put),
            )
        except StoreAway as exc:
            raise Unavailable(f"{exc}. Nothing was handed over") from exc
        return replace(envelope, message=message)

    def fetch(self, canonical: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a message with all its content. Raises BlobMissing, InvalidMessage or StoreAway."""
        if not references(canonical):
            return canonical
        return enclosing.filled(canonical, partial(self._ask, self._opened.get))

    def ended(self, mail: Mail, message: object) -> None:
        """Delete what a mail refers to that is over and cannot be replayed."""
        if mail.status == Status.SENT or (mail.status.is_final and self._keeps(mail.mailer, mail.tenant) != "keep"):
            self.delete(message)

    def delete(self, message: object) -> None:
        """Delete what *message* refers to; what cannot be deleted now is left to ``collect``."""
        try:
            for reference in references(message):
                self._ask(self._opened.delete, reference.key)
        except (StoreAway, InvalidMessage) as exc:
            _log.info("blobs of a mail are left over for now (%s)", type(exc).__name__)

    def adopt(self, envelope: Envelope, mail_id: str) -> Envelope:
        """Return *envelope* as that of *mail_id*, with blobs of its own. One that cannot be copied stays as it is."""
        owned = replace(envelope, id=mail_id)
        if not references(envelope.message):
            return owned
        message = copied(envelope.message)
        try:
            for spot in spots(message):
                if (reference := spot.reference) is not None:
                    key = f"{owner_of(mail_id)}/{reference.key.partition('/')[2]}"
                    self._ask(self._opened.put, key, self._ask(self._opened.get, reference.key))
                    spot.holder[spot.name] = replace(reference, key=key).to_json()
        except (StoreAway, BlobMissing) as exc:
            _log.warning("blobs of mail %s could not be copied (%s)", mail_id, type(exc).__name__)
            return owned
        return replace(owned, message=message)

    def room_for(self, canonical: Mapping[str, Any]) -> AbstractContextManager[int]:
        """Give 0 when the mail may be attempted now, as far as memory goes, else how many milliseconds later."""
        size = sum(reference.size for reference in references(canonical))
        return self._room_of(size) if size else _ROOM

    @contextmanager
    def _room_of(self, size: int) -> Iterator[int]:
        if self._in_use and self._in_use + size > MOST_AT_ONCE:
            yield self._turn()
            return
        self._in_use += size
        try:
            yield 0
        finally:
            self._in_use -= size

    def _turn(self) -> int:
        """Not all come back at once: each finds room only when others have gone."""
        now_ms = self._now() * 1000
        self._next_turn_ms = max(now_ms + NO_ROOM_MS, self._next_turn_ms + STEP_MS)
        return int(min(self._next_turn_ms - now_ms, LONGEST_WAIT_MS))

    def watch(self, database: Database, *, are_queues_empty: Callable[[], bool]) -> None:
        """Collect what is left over, about once an hour, for ever."""
        while self._store is not None:
            # processes that start together do not look together
            eventlet.sleep(LOOK_S * (0.5 + random.random()))  # noqa: S311 - no secret hangs on it
            try:
                if count := self.collect(database, are_queues_empty=are_queues_empty):
                    _log.info("blobs of %d mails were left over and are deleted", count)
            except (StoreAway, StoreDown) as exc:
                _log.info("blobs could not be looked at (%s)", type(exc).__name__)
            except Exception as exc:  # noqa: BLE001 - if this loop ended, nothing would be collected any more
                _log.warning("blobs could not be looked at (%s)", type(exc).__name__)

    def collect(self, database: Database, *, are_queues_empty: Callable[[], bool]) -> int:
        """
        Delete the blobs of mails that cannot be attempted any more; answers of how many. Raises StoreAway or StoreDown.

        A mail that no worker has seen is in no database. So nothing is deleted unless the queues of such mail are empty
        at this moment: what is older was seen then, and each worker makes a mail with blobs known before anything else.
        """
        store = self._opened
        before = time.time() - ORPHAN_S
        left = {owner for owner, newest in self._ask(_listed, store) if newest < before}
        if not left or not are_queues_empty():
            return 0
        last = ""
        while rows := database.read(partial(_with_content, after=last)):
            left.difference_update(owner_of(row.id) for row in rows if self._may_be_attempted(row))
            last = rows[-1].id
        for owner in left:
            self._ask(store.delete_all, owner)
        return len(left)

    def _may_be_attempted(self, row: Any) -> bool:
        return row.status not in _FINAL or self._keeps(row.mailer, row.tenant) == "keep"

    @property
    def _opened(self) -> Store:
        if self._store is None:
            raise StoreAway("mail.blobs is not configured")
        return self._store

    def _ask(self, function: Callable[..., T], *arguments: Any) -> T:
        """What *function* of the store answers; in a native thread where it would keep all others waiting."""
        if self._opened.blocks:
            answer: T = tpool.execute(function, *arguments)
            return answer
        return function(*arguments)


def _listed(store: Store) -> list[tuple[str, float]]:
    return list(store.owners())


_FINAL: Final = frozenset(map(str, FINAL))


def _with_content(connection: Connection, after: str) -> Sequence[Any]:
    """Mails that wait, and those that have some of the content that a replay needs."""
    mail = tables.mail.c
    is_meant = sa.or_(mail.content.is_not(None), mail.status.not_in(sorted(_FINAL)))
    query = sa.select(mail.id, mail.status, mail.mailer, mail.tenant).where(mail.id > after, is_meant)
    return connection.execute(query.order_by(mail.id).limit(SLICE)).all()


#: for those who have none
NO_STORE: Final = Storeroom(None)
