"""Blobs that nobody needs any more, and those that only look like it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mail_service.blobs import BlobSettings
from mail_service.blobs.folder import FolderStore
from mail_service.ledger.database import Database
from mail_service.ledger.ledger import Ledger
from mail_service.message.references import owner_of
from mail_service.settings import Content
from mail_service.storeroom import ORPHAN_S, Storeroom

from .building import a_change, a_mail, in_status


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(str(tmp_path / "blobs"))


def put(store: FolderStore, folder: Path, mail_id: str, *, age_s: float = ORPHAN_S + 60) -> None:
    owner = owner_of(mail_id)
    store.put(f"{owner}/{'0' * 32}", b"x")
    moment = time.time() - age_s
    os.utime(folder / "blobs" / owner, (moment, moment))


def left(store: FolderStore) -> set[str]:
    return {owner for owner, _ in store.owners()}


def test_only_what_no_mail_can_need_is_deleted(
    database: Database, ledger: Ledger, store: FolderStore, tmp_path: Path
) -> None:
    ids = ["queued", "failed", "sent", "unknown", "young"]
    for mail_id in ids:
        put(store, tmp_path, mail_id, age_s=60 if mail_id == "young" else ORPHAN_S + 60)
    ledger.accept(a_mail(id="queued"))
    for status in ("failed", "sent"):
        ledger.record(a_change(in_status(status, id=status)))

    room = Storeroom(BlobSettings(folder=str(tmp_path / "blobs")))
    count = room.collect(database, are_queues_empty=lambda: True)

    assert count == 2
    assert left(store) == {owner_of(mail_id) for mail_id in ("queued", "failed", "young")}


def test_nothing_is_deleted_while_mail_waits_that_no_worker_has_seen(
    database: Database, store: FolderStore, tmp_path: Path
) -> None:
    put(store, tmp_path, "in a queue")

    room = Storeroom(BlobSettings(folder=str(tmp_path / "blobs")))

    assert room.collect(database, are_queues_empty=lambda: False) == 0
    assert left(store) == {owner_of("in a queue")}


def test_what_cannot_be_replayed_needs_no_blobs(
    database: Database, ledger: Ledger, store: FolderStore, tmp_path: Path
) -> None:
    """Retention has redacted or dropped what the entry said."""
    put(store, tmp_path, "failed")
    ledger.record(a_change(in_status("failed", id="failed")))

    room = Storeroom(BlobSettings(folder=str(tmp_path / "blobs")), keeps=lambda _mailer, _tenant: "redact")

    assert room.collect(database, are_queues_empty=lambda: True) == 1


@pytest.mark.parametrize(
    ("status", "keeps", "is_gone"),
    [("sent", "keep", True), ("failed", "keep", False), ("failed", "drop", True), ("deferred", "drop", False)],
)
def test_blobs_go_with_the_last_use_of_their_mail(
    store: FolderStore, tmp_path: Path, status: str, keeps: Content, is_gone: bool
) -> None:
    key = f"{owner_of('mail')}/{'0' * 32}"
    store.put(key, b"x")
    message = {"mime": {"blob": key, "size": 1, "sha256": "0" * 64}}

    room = Storeroom(BlobSettings(folder=str(tmp_path / "blobs")), keeps=lambda _mailer, _tenant: keeps)
    room.ended(in_status(status), message)

    assert bool(left(store)) is not is_gone


def test_large_mails_take_turns() -> None:
    room = Storeroom(None, monotonic=lambda: 0.0)
    large = {"attachments": [{"content": {"blob": f"{'0' * 32}/{'0' * 32}", "size": 40_000_000, "sha256": "0" * 64}}]}

    with room.room_for(large) as first:
        waits = []
        for _ in range(3):
            with room.room_for(large) as wait_ms:
                waits.append(wait_ms)
        with room.room_for({}) as small:
            pass
    with room.room_for(large) as again:
        pass

    assert first == small == again == 0
    assert waits == [1000, 1100, 1200]
