"""What a client does with attachments that are too large for RabbitMQ: into the blob store, before anything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mail_service import blobs, enclosing
from mail_service.errors import ConfigurationError, Unavailable
from mail_service.message.checks import Checked

#: characters of a message's JSON; in a shorter one nothing can be large
_SHORT = blobs.LEAST_ABOVE


class Attic:
    """A client's way to the store; None: it has none, and large mail is refused."""

    def __init__(self, settings: blobs.BlobSettings | None) -> None:
        self._settings = settings
        self._store: blobs.Store | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> Attic:
        """Read ``mail.blobs``. Raises ConfigurationError."""
        if given is None:
            return cls(None)
        unknown = [str(name) for name in given if name not in blobs.KEYS]
        found, wrong = blobs.read({name: value for name, value in given.items() if name in blobs.KEYS})
        mistakes = [f"blobs.{name}: unknown key; known: {', '.join(blobs.KEYS)}" for name in unknown]
        mistakes += [f"blobs.{key}: expected {expected}" for key, expected in wrong]
        if mistakes:
            raise ConfigurationError("\n".join(mistakes))
        return cls(found)

    def without_large(self, mail: Checked, mail_id: str) -> Any:
        """The message of *mail*, its large content put into the store. Raises Unavailable or ConfigurationError."""
        settings = self._settings
        if settings is None or len(mail.text) < _SHORT or not enclosing.has_large(mail.canonical, settings.above):
            return mail.message
        if self._store is None:
            self._store = blobs.open_store(settings)
        try:
            return enclosing.emptied(
                mail.message, mail.canonical, mail_id=mail_id, above=settings.above, put=self._store.put
            )
        except blobs.StoreAway as exc:
            raise Unavailable(f"{exc}. Nothing was handed over") from exc
