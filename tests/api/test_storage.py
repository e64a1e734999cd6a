"""The store keeps bytes by their hash: one contract for a folder, a real S3-compatible server and memory."""

import hashlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import obstore
import pytest

from app.core.ids import new_id
from app.storage.pieces import Piece
from app.storage.store import CHUNK_BYTES, ObjectStore, Staged, memory_store, open_store


@pytest.fixture(params=["disk", "s3", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    match request.param:
        case "disk":
            return open_store((tmp_path / "objects").as_uri())
        case "s3":
            return open_store(request.getfixturevalue("s3_url"))
        case _:
            return memory_store()


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


# Takes in a stream and is gone in the middle of it, as a web process that is killed.
KILLED = """
import anyio, os, sys
from app.storage.store import open_store

async def chunks():
    for _ in range(20):
        yield b"x" * 1_000_000
    os.kill(os.getpid(), 9)

anyio.run(open_store(sys.argv[1]).stage, chunks())
"""


def test_what_a_killed_process_left_half_written_is_seen_by_nobody_and_swept(tmp_path: Path) -> None:
    url = (tmp_path / "objects").as_uri()
    assert subprocess.run([sys.executable, "-c", KILLED, url], check=False).returncode == -signal.SIGKILL
    left = [path for path in (tmp_path / "objects").rglob("*") if path.is_file()]
    assert len(left) == 1
    store = open_store(url)
    assert store.clear_staging(datetime.now(UTC) - timedelta(days=1)) == 0  # it may still be coming
    assert store.clear_staging(datetime.now(UTC) + timedelta(days=1)) == 1
    assert not left[0].exists()


def test_discarded_bytes_are_gone_and_kept_ones_stay(store: ObjectStore) -> None:
    staged = _stage(store, b"data")
    store.discard(staged)
    assert store.clear_staging(datetime.now(UTC) + timedelta(days=1)) == 0
    kept = _stage(store, b"data")
    store.keep(kept)
    store.discard(kept)  # nothing is left to discard
    assert _content(store, kept.sha256, 4) == b"data"


def test_what_lies_under_a_name_of_its_own_is_listed_read_and_deleted(
    store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "part").write_bytes(os.urandom(9_000_000))  # more than one block
    with (tmp_path / "part").open("rb") as source:
        store.put_at("checkpoints/job_1/network", source)
    assert store.keys_under("checkpoints/job_1/") == ["checkpoints/job_1/network"]
    assert store.keys_under("checkpoints/job_2/") == []
    assert store.keys_under("checkpoints/", datetime.now(UTC) - timedelta(hours=1)) == []
    store.download_at("checkpoints/job_1/network", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "part").read_bytes()
    for _ in range(2):  # what is gone already is no error
        store.delete_at("checkpoints/job_1/network")
    assert store.keys_under("checkpoints/") == []


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


def test_all_that_lies_at_an_address_is_listed_and_nothing_else(store: ObjectStore) -> None:
    before = datetime.now(UTC) - timedelta(minutes=5)
    blobs = [store.put_bytes(bytes([number]) * number) for number in range(20)]
    _stage(store, b"on its way")
    listed = [found for page in store.objects() for found in page]
    assert sorted((found.sha256, found.bytes) for found in listed) == sorted(
        (blob.sha256, blob.bytes) for blob in blobs
    )
    for found in listed:
        assert before < found.written_at < datetime.now(UTC) + timedelta(minutes=5)
        assert store.written_at(found.sha256) == found.written_at
    assert store.written_at("0" * 64) is None


@pytest.mark.parametrize("address", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "/.."])
def test_only_hashes_are_addresses(store: ObjectStore, address: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        store.exists(address)


def test_equal_bytes_put_at_the_same_time_are_one_whole_object(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 40_000)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with ThreadPoolExecutor(4) as pool:
        blobs = [pool.submit(store.put_file, path) for _ in range(4)]
        assert {blob.result().sha256 for blob in blobs} == {sha256}
    assert _content(store, sha256, 10_240_000) == path.read_bytes()


def test_half_an_object_is_never_seen(store: ObjectStore) -> None:
    """While a stream comes in, nothing of it can be read, listed or taken for an object."""
    pieces = [bytes([number]) * 3_000_000 for number in range(6)]
    sha256 = hashlib.sha256(b"".join(pieces)).hexdigest()
    seen = []

    async def slowly() -> AsyncIterator[bytes]:
        for piece in pieces:
            seen.append(await anyio.to_thread.run_sync(store.exists, sha256))
            yield piece

    async def run() -> Staged:
        return await store.stage(slowly())

    staged = anyio.run(run)
    seen.append(store.exists(sha256))
    assert not any(seen)
    store.keep(staged)
    assert _content(store, sha256, 18_000_000) == b"".join(pieces)


def test_a_range_outside_the_object_is_an_error(store: ObjectStore) -> None:
    blob = store.put_bytes(b"0123456789")
    with pytest.raises(Exception, match=r"."):
        list(store.read(blob.sha256, 20, 30))


PIECED = [b"a" * 3_000_000, b"b" * 5, b"c" * 9_000_000]


def _pieces(store: ObjectStore, upload: str, blocks: list[bytes]) -> list[Piece]:
    """An upload as one request after another leaves it, each with pieces of its own."""
    found: list[Piece] = []
    for block in blocks:
        start = sum(piece.bytes for piece in found)
        found.append(store.pieces.write(store.pieces.begin(upload, start), [block[:5], block[5:]]))
    return found


def _upload_id() -> str:
    return new_id("upload", datetime.now(UTC))


@pytest.mark.parametrize("blocks", [PIECED, PIECED[:1], [b"x"]])
def test_pieces_become_one_object_and_stay_until_they_are_deleted(
    store: ObjectStore, blocks: list[bytes]
) -> None:
    upload, whole = _upload_id(), b"".join(blocks)
    pieces = _pieces(store, upload, blocks)
    assert store.pieces.digest(pieces) == hashlib.sha256(whole).hexdigest()
    assert store.pieces.head(pieces, 3_000_007) == whole[:3_000_007]
    staged = store.pieces.gather(pieces, None)
    assert (staged.sha256, staged.bytes) == (hashlib.sha256(whole).hexdigest(), len(whole))
    store.keep(staged)
    assert _content(store, staged.sha256, len(whole)) == whole
    assert store.pieces.uploads() == {upload}
    store.pieces.delete(upload)
    assert store.pieces.uploads() == set()
    assert _content(store, staged.sha256, len(whole)) == whole


def test_an_upload_that_rested_for_long_is_young_again_once_it_is_gathered(store: ObjectStore) -> None:
    pieces = _pieces(store, _upload_id(), [b"old"])
    if store._root is not None:
        os.utime(store._root / pieces[0].key, (0, 0))
    before = datetime.now(UTC) - timedelta(minutes=1)
    staged = store.pieces.gather(pieces, None)
    assert store.clear_staging(before) == 0
    store.keep(staged)


def test_what_a_piece_holds_beyond_what_counts_is_left_out(store: ObjectStore) -> None:
    """A request that lost its turn may have written more than was written down."""
    upload = _upload_id()
    first, second = _pieces(store, upload, [b"0123456789", b"abc"])
    counted = [replace(first, bytes=4), replace(second, start=4)]
    staged = store.pieces.gather(counted, None)
    assert staged.sha256 == hashlib.sha256(b"0123abc").hexdigest()
    alone = store.pieces.gather(counted[:1], None)
    assert (alone.sha256, alone.bytes) == (hashlib.sha256(b"0123").hexdigest(), 4)


def test_two_requests_for_the_same_bytes_write_to_different_pieces(store: ObjectStore) -> None:
    upload = _upload_id()
    first, second = store.pieces.begin(upload, 0), store.pieces.begin(upload, 0)
    assert first.key != second.key
    first, second = store.pieces.write(first, [b"mine"]), store.pieces.write(second, [b"else"])
    assert store.pieces.head([first], 9) == b"mine"


def test_a_piece_grows_in_a_folder_and_not_in_s3(store: ObjectStore) -> None:
    upload = _upload_id()
    piece = store.pieces.write(store.pieces.begin(upload, 0), [b"one"])
    if store.pieces.grow:
        grown = store.pieces.write(piece, [b"two"])
        again = store.pieces.write(piece, [b"TWO"])  # the same place once more: the last one counts
        assert (grown.bytes, store.pieces.head([again], 9)) == (6, b"oneTWO")
    else:
        with pytest.raises(ValueError, match="grow"):
            store.pieces.write(piece, [b"two"])


def test_what_is_no_upload_is_not_listed_among_them(store: ObjectStore) -> None:
    obstore.put(store._backend, "uploads/notes/todo.txt", b"somebody else's")
    assert store.pieces.uploads() == set()


def test_deleting_pieces_that_are_not_there_is_no_error(store: ObjectStore) -> None:
    store.pieces.delete(_upload_id())
    with pytest.raises(ValueError, match="upload"):
        store.pieces.delete("upload_../../objects")


def test_only_stale_leftovers_are_swept(store: ObjectStore) -> None:
    _stage(store, b"half")
    assert store.clear_staging(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert store.clear_staging(datetime.now(UTC) + timedelta(hours=1)) == 1


def test_on_disk_nobody_else_can_read(tmp_path: Path) -> None:
    store = open_store((tmp_path / "objects").as_uri())
    store.put_bytes(b"secret")
    store.keep(_stage(store, b"another"))
    store.keep(store.pieces.gather(_pieces(store, _upload_id(), [b"a", b"b"]), None))
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
