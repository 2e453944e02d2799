"""
Where large attachments lie while their mail is on its way: RabbitMQ 4 takes no message above 16 MiB.

A blob is written once, before its mail is handed to RabbitMQ, and never changed. Clients write it and the service reads
it, so the store has to be reachable for both: a folder on a shared disk, or a storage of Django's such as S3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol

DEFAULT_FOLDER: Final = "var/blobs"
DEFAULT_ABOVE: Final = 1_000_000
#: Bytes. What is smaller stays in the message: its digest is that of its text (``message.digests``).
LEAST_ABOVE: Final = 100_000
KEYS: Final = ("folder", "BACKEND", "OPTIONS", "above")


class BlobMissing(Exception):
    """The store answers, and has no such blob: to ask again would not help."""


class StoreAway(Exception):
    """The store cannot be read or written now."""


class Store(Protocol):
    """Keeps bytes by key, which is ``owner/name``, both of 32 hexadecimal digits. For many threads at a time."""

    #: it blocks its thread, also where sockets are green
    blocks: bool

    def put(self, key: str, content: bytes) -> None:
        """Keep *content*, durably when it returns. Raises StoreAway."""
        ...

    def get(self, key: str) -> bytes:
        """Return what was put. Raises BlobMissing or StoreAway."""
        ...

    def delete(self, key: str) -> None:
        """Delete it; nothing happens when there is none. Raises StoreAway."""
        ...

    def owners(self) -> Iterator[tuple[str, float]]:
        """Give each owner who has blobs, and when the newest was put, in seconds since 1970. Raises StoreAway."""
        ...

    def delete_all(self, owner: str) -> None:
        """Delete all that *owner* has. Raises StoreAway."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobSettings:
    """``mail.blobs``, MailClient's ``blobs`` and Django's ``BLOBS``."""

    #: where files are kept, if *backend* is None
    folder: str = DEFAULT_FOLDER
    #: dotted path of a storage class of Django's, as in ``STORAGES``
    backend: str | None = None
    #: its keyword arguments; not in the repr, since they may hold secrets
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    #: bytes of one attachment above which it is put into the store
    above: int = DEFAULT_ABOVE


def read(given: Mapping[str, Any]) -> tuple[BlobSettings, list[tuple[str, str]]]:
    """Read settings, whose keys are known; answers also what is wrong: a key, and what was expected there."""
    wrong: list[tuple[str, str]] = []
    folder = given.get("folder", DEFAULT_FOLDER)
    if not isinstance(folder, str) or not folder.strip():
        wrong.append(("folder", "the path of a folder"))
    backend = given.get("BACKEND")
    if backend is not None and not (isinstance(backend, str) and _is_dotted(backend)):
        wrong.append(("BACKEND", "the dotted path of a class like django.core.files.storage.FileSystemStorage"))
    if backend is not None and "folder" in given:
        wrong.append(("folder", "no folder beside BACKEND"))
    options = given.get("OPTIONS")
    if options is not None and not (isinstance(options, Mapping) and all(isinstance(name, str) for name in options)):
        wrong.append(("OPTIONS", "a mapping of keyword arguments"))
    elif options and backend is None:
        wrong.append(("OPTIONS", "no OPTIONS without BACKEND"))
    above = given.get("above", DEFAULT_ABOVE)
    if isinstance(above, bool) or not isinstance(above, int) or above < LEAST_ABOVE:
        wrong.append(("above", f"a whole number of bytes >= {LEAST_ABOVE}"))
    if wrong:
        return BlobSettings(), wrong
    return BlobSettings(folder=folder, backend=backend, options=MappingProxyType(dict(options or {})), above=above), []


def _is_dotted(path: str) -> bool:
    parts = path.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def open_store(settings: BlobSettings) -> Store:
    """Make the store. Raises ConfigurationError for a class that cannot be imported or does not take its OPTIONS."""
    if settings.backend is None:
        from mail_service.blobs.folder import FolderStore  # noqa: PLC0415 - one of the two is needed

        return FolderStore(settings.folder)
    from mail_service.blobs.storage import open_storage  # noqa: PLC0415 - it brings Django

    return open_storage(settings.backend, settings.options)
