"""A worker's own disk forgets what was deleted."""

from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from app.datasets.tables import Dataset
from tests.worker.rows import add_dataset
from worker.cache import DiskCache
from worker.housekeeping import tidy
from worker.runtime import Runtime

KEPT, DELETED = "a" * 64, "b" * 64


def _copies(runtime: Runtime, source: Path) -> DiskCache:
    source.write_bytes(b"decoded")
    cache = DiskCache(runtime.cache_root, runtime.settings.cache_bytes)
    for name in (KEPT, f"{KEPT}-0123", DELETED, f"{DELETED}-0123"):
        cache.keep(name, source)
    return cache


def test_copies_of_a_deleted_data_set_go_and_others_stay(
    runtime: Runtime, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    add_dataset(sessions, KEPT)
    deleted = add_dataset(sessions, DELETED)
    cache = _copies(runtime, tmp_path / "source")
    tidy(runtime)
    assert cache.hashes() == {KEPT, DELETED}
    with sessions.begin() as session:
        session.delete(session.get_one(Dataset, deleted))
    tidy(runtime)
    assert cache.hashes() == {KEPT}


def test_scratch_of_a_killed_worker_goes(runtime: Runtime) -> None:
    (runtime.scratch_root / "job_x-left").mkdir(parents=True)
    tidy(runtime)
    assert list(runtime.scratch_root.iterdir()) == []
