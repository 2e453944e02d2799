"""Where the processes of one host put their numbers together. Neither eventlet nor prometheus_client is needed here."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

#: prometheus_client's own name for it; it has to be set before prometheus_client is imported
FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"


def web_address(config: Mapping[str, Any]) -> str | None:
    """nameko's ``WEB_SERVER_ADDRESS``; None where it is not set, and nobody can ask for the numbers."""
    address = config.get("WEB_SERVER_ADDRESS")
    return None if address is None else str(address)


@contextmanager
def shared_folder(config: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """
    The environment of processes that count together. The folder is gone afterwards, unless somebody else chose it.
    """
    if web_address(config) is None or os.environ.get(FOLDER):
        yield dict(os.environ)
        return
    folder = tempfile.mkdtemp(prefix="mail_service-metrics-")
    # what tidies up temporary files leaves a locked folder alone (tmpfiles.d(5): "aging algorithm")
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_SH)
    try:
        yield {**os.environ, FOLDER: folder}
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)
