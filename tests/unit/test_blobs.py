"""Large attachments: out of the message into a store, and back again as they were."""

from __future__ import annotations

import os
import time
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mail_service import blobs
from mail_service.blobs import BlobMissing, BlobSettings, Store, StoreAway
from mail_service.blobs.folder import MARK, FolderStore
from mail_service.enclosing import FITS, emptied, filled
from mail_service.envelope import Envelope, seal
from mail_service.errors import ConfigurationError, InvalidMessage
from mail_service.message import digest, validate
from mail_service.message.references import has_any, owner_of, references, require_own, without_references
from tests.support.messages import a_message, in_base64

OWNER = owner_of("order-17")
KEY = f"{OWNER}/{'0' * 32}"
LARGE = os.urandom(200_000)


def a_storage(folder: Path) -> Store:
    options = {"location": str(folder)}
    return blobs.open_store(BlobSettings(backend="django.core.files.storage.FileSystemStorage", options=options))


@pytest.fixture(params=["folder", "storage"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return FolderStore(str(tmp_path / "blobs")) if request.param == "folder" else a_storage(tmp_path / "blobs")


def test_a_store_gives_back_what_was_put(store: Store) -> None:
    store.put(KEY, LARGE)

    assert store.get(KEY) == LARGE
    assert [owner for owner, _ in store.owners()] == [OWNER]
    assert next(store.owners())[1] == pytest.approx(time.time(), abs=60)


def test_a_blob_that_is_gone_is_missing(store: Store) -> None:
    store.put(KEY, b"x")
    store.delete(KEY)
    store.delete(KEY)

    with pytest.raises(BlobMissing):
        store.get(KEY)
    assert not [owner for owner, _ in store.owners() if owner == OWNER]


def test_all_blobs_of_a_mail_go_together_and_others_stay(store: Store) -> None:
    other = f"{owner_of('other')}/{'0' * 32}"
    for key in (KEY, f"{OWNER}/{'1' * 32}", other):
        store.put(key, b"x")

    store.delete_all(OWNER)

    assert [owner for owner, _ in store.owners()] == [owner_of("other")]
    assert store.get(other) == b"x"


def test_without_the_folder_nothing_is_said_about_single_blobs(tmp_path: Path) -> None:
    """As when a network disk is not mounted: its mail has to wait, not fail."""
    with pytest.raises(StoreAway):
        FolderStore(str(tmp_path / "nowhere")).get(KEY)


def test_a_folder_that_cannot_be_written_is_away(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreAway) as raised:
        FolderStore(str(tmp_path / "file")).put(KEY, b"x")

    assert str(tmp_path) not in str(raised.value)


def test_who_may_use_the_folder_may_use_what_is_in_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)
    FolderStore(str(tmp_path)).put(KEY, b"x")

    assert [(tmp_path / path).stat().st_mode & 0o7777 for path in (OWNER, KEY)] == [0o2770, 0o660]


def test_an_unfinished_file_is_no_blob(tmp_path: Path) -> None:
    store = FolderStore(str(tmp_path))
    store.put(KEY, b"x")

    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted([MARK, OWNER, "0" * 32])


def test_a_storage_that_cannot_be_made_is_a_mistake_in_the_configuration() -> None:
    for backend in ("no.such.Storage", "django.core.files.storage.FileSystemStorage"):
        with pytest.raises(ConfigurationError, match="BACKEND"):
            blobs.open_store(BlobSettings(backend=backend, options={"nonsense": 1}))


def attached(*contents: bytes, **more: Any) -> dict[str, Any]:
    files = [
        {"filename": f"{number}.pdf", "content": in_base64(content), "mimetype": "application/pdf"}
        for number, content in enumerate(contents)
    ]
    return a_message(attachments=files, **more)


def without_large(message: dict[str, Any], store: dict[str, bytes], *, above: int = 100_000) -> Any:
    return emptied(message, validate(message), mail_id="order-17", above=above, put=store.__setitem__)


def complete(message: Any, store: dict[str, bytes]) -> dict[str, Any]:
    def get(key: str) -> bytes:
        if key not in store:
            raise BlobMissing
        return store[key]

    return filled(validate(message, takes_references=True), get)


def test_a_large_attachment_leaves_the_message_and_a_small_one_stays() -> None:
    store: dict[str, bytes] = {}

    message = without_large(attached(LARGE, b"small"), store)

    assert list(store.values()) == [LARGE]
    assert message["attachments"][0]["content"] == references(message)[0].to_json()
    assert b64decode(message["attachments"][1]["content"]) == b"small"
    require_own(message, "order-17")


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(attached(LARGE, b"small"), id="attachment"),
        pytest.param(
            a_message(attachments=[{"mime": in_base64(b"Content-Type: image/png\n\n" + b"A" * 200_000)}]), id="part"
        ),
        pytest.param(a_message(mime=in_base64(b"Subject: s\n\n" + b"A\n" * 100_000)), id="whole message"),
        pytest.param(
            a_message(attachments=[{"filename": "a.txt", "content": in_base64(b"text\n" * 50_000)}]), id="text"
        ),
        pytest.param(
            a_message(attachments=[{"filename": "a.txt", "content": in_base64(LARGE), "mimetype": "text/plain"}]),
            id="text that is none",
        ),
    ],
)
def test_a_message_comes_back_as_it_was(message: dict[str, Any]) -> None:
    store: dict[str, bytes] = {}

    carried = without_large(message, store)

    assert store
    assert has_any(carried)
    assert complete(carried, store) == validate(message)


def test_a_mail_is_the_same_one_with_its_attachments_and_without() -> None:
    message = attached(LARGE)
    carried = [without_large(message, {}) for _ in range(2)]

    digests = {digest(validate(each, takes_references=True)) for each in carried} | {digest(validate(message))}

    assert len(digests) == 1
    assert digest(validate(attached(LARGE + b"x"))) not in digests


def test_copies_of_one_mail_do_not_share_their_blobs() -> None:
    """Else the end of one would delete what the other needs."""
    store: dict[str, bytes] = {}

    without_large(attached(LARGE), store)
    without_large(attached(LARGE), store)

    assert len(store) == 2


def test_many_attachments_that_are_not_large_fit_into_a_queue_all_the_same() -> None:
    store: dict[str, bytes] = {}
    message = attached(*[os.urandom(900_000)] * 20)

    carried = without_large(message, store, above=1_000_000)

    assert 0 < len(store) < 20
    assert len(seal(carried, {"id": "order-17"}, door="submit").body()) < FITS + 10_000


def test_content_that_is_not_in_the_store_names_its_place() -> None:
    with pytest.raises(BlobMissing, match=r"attachments\[0\]\.content \(200,000 bytes\)"):
        complete(without_large(attached(LARGE), {}), {})


def test_content_that_was_changed_in_the_store_is_not_sent() -> None:
    store: dict[str, bytes] = {}
    carried = without_large(attached(LARGE), store)
    store |= {key: content[:-1] + b"?" for key, content in store.items()}

    with pytest.raises(BlobMissing, match="damaged"):
        complete(carried, store)


def test_another_mails_blob_cannot_be_referred_to() -> None:
    with pytest.raises(InvalidMessage, match="another mail"):
        require_own(without_large(attached(LARGE), {}), "order-18")


def test_what_lies_in_the_store_counts_as_part_of_the_message() -> None:
    carried = without_large(attached(LARGE), {})

    with pytest.raises(InvalidMessage, match="max_size"):
        validate(carried, takes_references=True, max_size=250_000)
    validate(carried, takes_references=True, max_size=300_000)


def a_reference(**changes: Any) -> dict[str, Any]:
    return {"blob": KEY, "size": 5, "sha256": sha256(b"hello").hexdigest()} | changes


@pytest.mark.parametrize(
    "reference",
    [
        {},
        a_reference(blob="../../etc/passwd"),
        a_reference(blob=f"{KEY}\n"),
        a_reference(size=-1),
        a_reference(size=True),
        a_reference(sha256="0"),
        a_reference(more=1),
    ],
)
def test_a_reference_of_another_form_is_refused(reference: dict[str, Any]) -> None:
    message = a_message(attachments=[{"filename": "a.pdf", "content": reference}])

    with pytest.raises(InvalidMessage, match=r"attachments\[0\]\.content"):
        validate(message, takes_references=True)


def test_a_reference_is_no_content_where_there_is_no_store() -> None:
    with pytest.raises(InvalidMessage, match="string in base64"):
        validate(a_message(attachments=[{"filename": "a.pdf", "content": a_reference()}]))


def test_an_alternative_cannot_lie_in_the_store() -> None:
    alternative = {"content": a_reference(), "mimetype": "text/html"}

    with pytest.raises(InvalidMessage, match="alternatives"):
        validate(a_message(alternatives=[alternative]), takes_references=True)


def test_only_mail_with_blobs_travels_in_the_newer_format() -> None:
    """Others are read by processes of the version before, which run beside ours during an upgrade."""
    plain = seal(a_message(), {"id": "order-17"}, door="submit").body()
    large = seal(without_large(attached(LARGE), {}), {"id": "order-17"}, door="submit").body()

    assert b'"v":1' in plain
    assert b'"v":2' in large
    assert Envelope.parse(large).id == "order-17"


def test_a_report_is_made_without_what_lies_in_the_store() -> None:
    carried = without_large(attached(LARGE, b"small"), {})

    plain = without_references(carried)

    assert [item["filename"] for item in plain["attachments"]] == ["1.pdf"]
    assert has_any(carried)
    validate(plain)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"folder": ""}, "folder"),
        ({"folder": "x", "BACKEND": "a.B"}, "folder"),
        ({"BACKEND": "B"}, "BACKEND"),
        ({"OPTIONS": {"a": 1}}, "OPTIONS"),
        ({"above": 10}, "above"),
        ({"above": True}, "above"),
    ],
)
def test_wrong_settings_are_named(given: dict[str, Any], key: str) -> None:
    assert [name for name, _ in blobs.read(given)[1]] == [key]
