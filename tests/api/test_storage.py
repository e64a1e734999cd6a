"""The store keeps bytes by their hash, on disk and in memory alike."""

import hashlib
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from app.storage.store import CHUNK_BYTES, ObjectStore, Staged, memory_store, open_store


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "objects").as_uri()) if request.param == "disk" else memory_store()


async def _chunks(*pieces: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if error is not None:
        raise error


def _stage(store: ObjectStore, *pieces: bytes) -> Staged:
    async def run() -> Staged:
        return await store.stage(_chunks(*pieces))

    return anyio.run(run)


def _content(store: ObjectStore, sha256: str, size: int) -> bytes:
    return b"".join(store.read(sha256, 0, size))


@pytest.mark.parametrize("pieces", [(), (b"",), (b"one",), (b"x" * 700_000,) * 20])
def test_a_stream_lies_at_its_hash_after_it_is_kept(store: ObjectStore, pieces: tuple[bytes, ...]) -> None:
    whole = b"".join(pieces)
    staged = _stage(store, *pieces)
    assert staged.sha256 == hashlib.sha256(whole).hexdigest()
    assert staged.bytes == len(whole)
    assert not store.exists(staged.sha256)
    store.keep(staged)
    assert store.exists(staged.sha256)
    assert _content(store, staged.sha256, len(whole)) == whole


def test_a_stream_that_breaks_leaves_nothing(store: ObjectStore) -> None:
    async def run() -> None:
        await store.stage(_chunks(b"x" * 20_000_000, error=ConnectionError("gone")))

    with pytest.raises(ConnectionError):
        anyio.run(run)
    assert store.clear_staging(datetime.now(UTC) + timedelta(days=1)) == 0


def test_discarded_bytes_are_gone_and_kept_ones_stay(store: ObjectStore) -> None:
    staged = _stage(store, b"data")
    store.discard(staged)
    assert store.clear_staging(datetime.now(UTC) + timedelta(days=1)) == 0
    kept = _stage(store, b"data")
    store.keep(kept)
    store.discard(kept)  # nothing is left to discard
    assert _content(store, kept.sha256, 4) == b"data"


def test_equal_bytes_are_stored_once(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"same")
    first, second = store.put_file(path), store.put_bytes(b"same")
    assert first == second


def test_ranges_are_read_across_chunks(store: ObjectStore) -> None:
    data = bytes(range(256)) * (CHUNK_BYTES // 128)
    blob = store.put_bytes(data)
    start, end = CHUNK_BYTES - 3, CHUNK_BYTES + 5
    assert b"".join(store.read(blob.sha256, start, end)) == data[start:end]
    assert b"".join(store.read(blob.sha256, 7, 7)) == b""


def test_an_object_comes_down_to_a_file(store: ObjectStore, tmp_path: Path) -> None:
    blob = store.put_bytes(b"z" * 3_000_000)
    store.download_to(blob.sha256, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"z" * 3_000_000


def test_what_is_not_there_is_file_not_found(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.download_to("0" * 64, tmp_path / "copy")
    store.delete("0" * 64)  # deleting it is no error
    assert not store.exists("0" * 64)


@pytest.mark.parametrize("address", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "/.."])
def test_only_hashes_are_addresses(store: ObjectStore, address: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        store.exists(address)


def test_only_stale_leftovers_are_swept(store: ObjectStore) -> None:
    _stage(store, b"half")
    assert store.clear_staging(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert store.clear_staging(datetime.now(UTC) + timedelta(hours=1)) == 1


def test_on_disk_nobody_else_can_read(tmp_path: Path) -> None:
    store = open_store((tmp_path / "objects").as_uri())
    store.put_bytes(b"secret")
    store.keep(_stage(store, b"another"))
    for path in (tmp_path / "objects", *(tmp_path / "objects").rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_folder_that_cannot_be_written_fails_the_check(tmp_path: Path) -> None:
    store = open_store((tmp_path / "objects").as_uri())
    store.check()
    (tmp_path / "objects" / "staging").rmdir()
    (tmp_path / "objects" / "staging").write_text("a file where the folder was")
    with pytest.raises(Exception, match="staging"):
        store.check()
