"""Blobs in a storage of Django's, such as django-storages' S3."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured, SuspiciousOperation
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.utils.module_loading import import_string

from mail_service.blobs import BlobMissing, StoreAway
from mail_service.errors import ConfigurationError

#: in front of each name: the storage may be that of other files, too
PREFIX: Final = "mail_service_blobs"
_OWNER: Final = re.compile(r"[0-9a-f]{32}")


def open_storage(path: str, options: Mapping[str, object]) -> StorageStore:
    """Make a storage of the class *path*. Raises ConfigurationError."""
    if not django_settings.configured:
        # a program without Django; the storage has its OPTIONS
        django_settings.configure(USE_I18N=False, USE_TZ=True, TIME_ZONE="UTC")
    try:
        return StorageStore(import_string(path)(**options))
    except (ImportError, TypeError, ValueError, ImproperlyConfigured) as error:
        raise ConfigurationError(f"blobs: BACKEND {path} cannot be used: {type(error).__name__}: {error}") from error


class StorageStore:
    """See ``Store``."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.blocks = isinstance(storage, FileSystemStorage)

    def put(self, key: str, content: bytes) -> None:
        """See ``Store.put``; how durable it is, the storage decides."""
        name = f"{PREFIX}/{key}"
        with _trouble():
            saved = self._storage.save(name, ContentFile(content))
            if saved != name:
                self._storage.delete(saved)
                raise StoreAway("the storage keeps files under other names than asked for")

    def get(self, key: str) -> bytes:
        """See ``Store.get``."""
        name = f"{PREFIX}/{key}"
        with _trouble():
            try:
                with self._storage.open(name, "rb") as file:
                    return bytes(file.read())
            except FileNotFoundError:
                raise BlobMissing from None

    def delete(self, key: str) -> None:
        """See ``Store.delete``."""
        with _trouble():
            self._storage.delete(f"{PREFIX}/{key}")

    def owners(self) -> Iterator[tuple[str, float]]:
        """See ``Store.owners``."""
        with _trouble():
            for owner in self._listed("")[0]:
                if _OWNER.fullmatch(owner) and (names := self._listed(owner)[1]):
                    yield owner, max(self._modified(f"{PREFIX}/{owner}/{name}") for name in names)

    def delete_all(self, owner: str) -> None:
        """See ``Store.delete_all``."""
        with _trouble():
            for name in self._listed(owner)[1]:
                self._storage.delete(f"{PREFIX}/{owner}/{name}")
            # a folder stays empty where there are folders; where there are none, nothing happens
            self._storage.delete(f"{PREFIX}/{owner}")

    def _listed(self, folder: str) -> tuple[list[str], list[str]]:
        try:
            folders, files = self._storage.listdir(f"{PREFIX}/{folder}".rstrip("/"))
        except FileNotFoundError:
            return [], []
        return list(folders), list(files)

    def _modified(self, name: str) -> float:
        return float(self._storage.get_modified_time(name).timestamp())


@contextmanager
def _trouble() -> Iterator[None]:
    try:
        yield
    except (BlobMissing, StoreAway):
        raise
    except SuspiciousOperation as error:
        raise StoreAway(f"the storage of blobs: {type(error).__name__}") from error
    except Exception as error:
        raise StoreAway(f"the storage of blobs: {type(error).__name__}") from error
