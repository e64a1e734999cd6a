"""A disk without room: jobs wait for it to be freed, and nothing half-written is seen."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from app.core.settings import Settings
from app.embedded.processes import Worker
from app.jobs.states import ENDED
from tests.conftest import make_settings
from tests.faults.conftest import Bench
from tests.faults.rig.table import Row, Table
from tests.support.processes import wait_until
from worker.problems import has_no_room

StartWorker = Callable[..., Worker]
BYTES = 64_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of its own that can be filled."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={BYTES}", "tmpfs", str(place)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def settings(
    engine: object, broker_url: str, database_url: str, tmp_path: Path, small_disk: Path
) -> Settings:
    """Objects and scratch on the small disk; patient, for the disk is freed after a while only."""
    return make_settings(database_url, broker_url, small_disk / "var", retry_seconds=3)


def fill(junk: Path) -> None:
    """Take all the room that there is."""
    for size in (1_000_000, 4096):
        with suppress(OSError), junk.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(size))


def keep_full_until(junk: Path, condition: Callable[[], object]) -> None:
    """What others free meanwhile is taken again."""

    def look() -> object:
        fill(junk)
        return condition()

    wait_until(look, 240)


def test_a_full_disk_is_told_from_one_with_room(small_disk: Path) -> None:
    assert not has_no_room(small_disk)
    fill(small_disk / "junk")
    assert has_no_room(small_disk)


@pytest.mark.slow
def test_a_job_outlives_a_disk_that_is_full_for_a_while(
    bench: Bench, worker_process: StartWorker, small_disk: Path, faults_table: Table, settings: Settings
) -> None:
    worker_process("jobs")
    job_id = bench.start(epochs=100, batch_size=16)
    bench.wait_for_step(job_id, 1, 240)
    began = time.monotonic()
    junk = small_disk / "junk"
    keep_full_until(junk, lambda: bench.has_message(job_id, "Attempt 1 of 3 was lost"))
    junk.unlink()
    job = bench.wait(job_id, "succeeded", 240)
    assert (job.attempt, bench.count(job_id, "done")) == (2, 1)
    assert set(bench.hashes(job_id)) == {"net-compressed.onnx"}
    assert not list((settings.var_dir / "objects").rglob("*#*"))
    faults_table.rows.append(
        Row("", "disk full in fine-tuning, then freed", "succeeded", 2, time.monotonic() - began)
    )


def test_a_job_on_a_disk_that_stays_full_ends_and_says_so(
    bench: Bench, worker_process: StartWorker, small_disk: Path, faults_table: Table
) -> None:
    worker_process("jobs")
    job_id = bench.start(epochs=100, batch_size=16)
    bench.wait_for_step(job_id, 1, 240)
    began = time.monotonic()
    keep_full_until(small_disk / "junk", lambda: bench.job(job_id).status in ENDED)
    job = bench.wait(job_id, "failed")
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert job.error["detail"].endswith("the disk of its machine was full")
    assert bench.count(job_id, "done") == 1
    assert bench.artifacts(job_id) == 0
    faults_table.rows.append(
        Row("", "disk full for good", "failed: worker_lost", 3, time.monotonic() - began)
    )
