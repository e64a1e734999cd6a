"""Scratch folders and the data-set cache: private, bounded, and swept when nobody uses them."""

import fcntl
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from worker.cache import DiskCache, sized_name
from worker.scratch import make_root, scratch_folder, sweep


def test_a_scratch_folder_is_private_and_goes_with_its_attempt(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "scratch", "job_1") as folder:
        (folder / "file").write_text("x")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list((tmp_path / "scratch").iterdir()) == []


def test_sweeping_takes_what_was_left_behind_and_spares_what_is_in_use(tmp_path: Path) -> None:
    root = tmp_path / "scratch"
    with scratch_folder(root, "job_1") as folder:
        (root / "job_0-left").mkdir()
        sweep(root)
        assert list(root.iterdir()) == [folder]


def _file(path: Path, size: int) -> Path:
    path.write_bytes(bytes(size))
    return path


def test_a_kept_file_is_lent_without_a_copy_and_cannot_be_written_through_its_mode(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 1_000)
    cache.keep("a", _file(tmp_path / "source", 10))
    assert cache.lend("a", tmp_path / "lent")
    assert (tmp_path / "lent").stat().st_ino == (tmp_path / "cache" / "a").stat().st_ino
    assert stat.S_IMODE((tmp_path / "lent").stat().st_mode) == 0o444
    assert not cache.lend("b", tmp_path / "other")


def test_over_its_limit_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 100)
    for age, name in ((3, "old"), (2, "middle")):
        cache.keep(name, _file(tmp_path / name, 40))
        os.utime(tmp_path / "cache" / name, (1_000 - age, 1_000 - age))
    assert cache.lend("old", tmp_path / "lent")  # used just now
    cache.keep("new", _file(tmp_path / "new", 40))
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"old", "new"}


def test_a_file_over_the_whole_limit_is_not_kept(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 100)
    cache.keep("large", _file(tmp_path / "large", 101))
    assert not cache.lend("large", tmp_path / "lent")


def test_a_decoded_data_set_is_named_by_its_pixels_alone() -> None:
    spec = {"shape": [3, 32, 32], "resize": None, "crop": None, "interpolation": "bilinear", "mean": [0.5]}
    assert sized_name("a", spec) == sized_name("a", spec | {"mean": [0.1]})
    assert sized_name("a", spec) != sized_name("a", spec | {"shape": [3, 64, 64]})


def test_copies_of_what_was_deleted_go_and_so_do_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DiskCache(tmp_path / "cache", 1_000)
    for name in ("aa", "aa-sized", "bb", "bb-sized"):
        cache.keep(name, _file(tmp_path / name, 10))
    _file(tmp_path / "cache" / ".part-x", 5)
    assert cache.hashes() == {"aa", "bb"}
    cache.drop({"aa"})
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"bb", "bb-sized", ".part-x"}
    monkeypatch.setattr("worker.cache.PART_SECONDS", -1)  # later
    cache.drop(set())
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"bb", "bb-sized"}


def test_workers_that_share_a_cache_do_not_mind_each_others_evictions(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 50)

    def fill(path: Path) -> None:
        _file(path, 20)

    cache.fetch("first", tmp_path / "lent", fill)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: _use(cache, tmp_path, number), range(4)))
    assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= 50 + 3 * 20


def _use(cache: DiskCache, folder: Path, number: int) -> None:
    for turn in range(60):
        lent = folder / f"lent-{number}-{turn}"
        cache.fetch(f"file-{turn % 7}", lent, lambda path: path.write_bytes(bytes(20)) and None)
        assert lent.stat().st_size == 20


def test_no_folder_is_made_while_somebody_looks_for_abandoned_ones(tmp_path: Path) -> None:
    """Between its making and its lock it would look abandoned."""
    root = tmp_path / "scratch"
    make_root(root)
    looking = os.open(root, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_EX)

    def make() -> bool:
        with scratch_folder(root, "job_1") as folder:
            return folder.is_dir()

    with ThreadPoolExecutor(2) as pool:
        making, sweeping = pool.submit(make), pool.submit(sweep, root)
        time.sleep(0.3)
        assert list(root.iterdir()) == []
        assert not making.done()
        assert not sweeping.done()
        os.close(looking)
        assert making.result(10)
        sweeping.result(10)
