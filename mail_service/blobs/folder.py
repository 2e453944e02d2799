"""Blobs as files: a folder for each mail, in a folder that whoever hands in mail shares with the service."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from mail_service.blobs import BlobMissing, StoreAway

#: Made with the first blob. Where it is missing, so is the disk: nothing can be said about single blobs.
MARK: Final = ".mail_service_blobs"
_OWNER: Final = re.compile(r"[0-9a-f]{32}")


class FolderStore:
    """See ``Store``."""

    blocks = True

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder).absolute()

    def put(self, key: str, content: bytes) -> None:
        """See ``Store.put``: on the disk when it returns."""
        path = self._folder / key
        unfinished = path.with_suffix(".new")
        with _trouble():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self._folder / MARK).touch(exist_ok=True)
            path.parent.mkdir(exist_ok=True)
            # who may read and delete what others wrote is said by the folder's own mode
            mode = stat.S_IMODE(self._folder.stat().st_mode)
            with suppress(PermissionError):
                path.parent.chmod(mode)
            with unfinished.open("xb") as file:
                os.fchmod(file.fileno(), mode & 0o666)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
            for folder in (path.parent, self._folder):
                _sync(folder)

    def get(self, key: str) -> bytes:
        """See ``Store.get``."""
        with _trouble():
            try:
                return (self._folder / key).read_bytes()
            except FileNotFoundError:
                if (self._folder / MARK).exists():
                    raise BlobMissing from None
                raise

    def delete(self, key: str) -> None:
        """See ``Store.delete``."""
        path = self._folder / key
        with _trouble():
            path.unlink(missing_ok=True)
            # that of a mail with others is not empty
            with suppress(OSError):
                path.parent.rmdir()

    def owners(self) -> Iterator[tuple[str, float]]:
        """See ``Store.owners``."""
        with _trouble(), suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                # one may be deleted meanwhile
                with suppress(FileNotFoundError):
                    if _OWNER.fullmatch(path.name):
                        # a folder's time is that of its newest file
                        yield path.name, path.stat().st_mtime

    def delete_all(self, owner: str) -> None:
        """See ``Store.delete_all``."""
        with _trouble():
            shutil.rmtree(self._folder / owner, ignore_errors=True)


@contextmanager
def _trouble() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # without the path, which is not for those who hand in mail
        raise StoreAway(f"the folder of blobs: {error.strerror or type(error).__name__}") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
