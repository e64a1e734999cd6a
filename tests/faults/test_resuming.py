"""Work that was done stays done: an interrupted fine-tune goes on from its checkpoint, to the same bits."""

import os
import signal
import time
from collections.abc import Callable

import pytest
from sqlalchemy import select

from app.core.settings import Settings
from app.embedded.processes import Worker
from app.jobs.tables import JobEvent
from tests.faults.conftest import Bench, child_of
from tests.support.processes import alive, wait_until

StartWorker = Callable[..., Worker]
EPOCHS, BATCH = 20, 16
PER_EPOCH = 8  # 128 images
SECONDS = 180


def start(bench: Bench) -> str:
    return bench.start(epochs=EPOCHS, batch_size=BATCH)


Ended = tuple[dict[str, str], dict[tuple[str, int], float]]
_WHOLE: list[Ended] = []  # the same for every test here: equal jobs end at equal bits


def uninterrupted(bench: Bench) -> Ended:
    """The files and curves of a job that nothing happened to; a worker must be there."""
    if not _WHOLE:
        job_id = start(bench)
        bench.wait(job_id, "succeeded", SECONDS)
        _WHOLE.append((bench.hashes(job_id), bench.metrics(job_id)))
    return _WHOLE[0]


def messages(bench: Bench, job_id: str, kind: str) -> list[str]:
    with bench.sessions() as session:
        found = select(JobEvent.message).where(JobEvent.job_id == job_id, JobEvent.type == kind)
        return list(session.scalars(found.order_by(JobEvent.seq)))


def kill_child(worker: Worker) -> None:
    child_of(worker).kill()


def kill_worker(worker: Worker) -> None:
    assert worker.process is not None
    worker.process.kill()


def stop_worker(worker: Worker) -> None:
    assert worker.process is not None
    worker.process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("interrupt", "attempts"),
    [
        pytest.param(kill_child, 2, marks=pytest.mark.slow),
        pytest.param(kill_worker, 2, marks=pytest.mark.slow),
        (stop_worker, 1),
    ],
    ids=["child", "worker", "stop"],
)
def test_an_interrupted_fine_tune_ends_at_the_same_bits_as_one_that_was_not(
    bench: Bench,
    worker_process: StartWorker,
    settings: Settings,
    interrupt: Callable[[Worker], None],
    attempts: int,
) -> None:
    first = worker_process("jobs")
    whole = uninterrupted(bench)
    job_id = start(bench)
    bench.wait_for_step(job_id, 2 * PER_EPOCH, SECONDS)
    interrupt(first)
    if interrupt is not kill_child:
        worker_process("jobs")
    job = bench.wait(job_id, "succeeded", SECONDS)
    assert (bench.hashes(job_id), bench.metrics(job_id)) == whole
    assert (job.attempt, bench.count(job_id, "done")) == (attempts, 1)
    assert len({warning["code"] for warning in job.warnings}) == len(job.warnings)  # none twice
    assert messages(bench, job_id, "stage").count("calibrate") == 1  # done before, and not again
    started = [text for text in messages(bench, job_id, "progress") if text.startswith("Attempt")]
    assert "step" in started[-1]
    assert (bench.parts(job_id), bench.kept_objects()) == ({}, [])
    scratch = settings.var_dir / "scratch"
    wait_until(lambda: not [path for path in scratch.iterdir() if path.is_dir()], 10)


@pytest.mark.slow
def test_rolling_deploys_cost_no_step_and_no_attempt(
    bench: Bench, worker_process: StartWorker, settings: Settings
) -> None:
    worker = worker_process("jobs")
    job_id = bench.start(epochs=200, batch_size=BATCH)
    reached = 0
    for _ in range(3):
        reached = bench.wait_for_step(job_id, reached + 1, SECONDS).step
        newer = worker_process("jobs")
        began = time.monotonic()
        stop_worker(worker)
        assert worker.process is not None
        worker.process.wait(settings.grace_seconds + 5)
        assert time.monotonic() - began < settings.grace_seconds + 5
        assert bench.parts(job_id)["training"].step >= reached
        worker = newer
    job = bench.wait(job_id, "succeeded", SECONDS)
    assert (job.attempt, bench.count(job_id, "done")) == (1, 1)


def test_a_worker_told_to_stop_keeps_the_very_last_step(
    bench: Bench, worker_process: StartWorker, settings: Settings
) -> None:
    worker = worker_process("jobs")
    job_id = start(bench)
    bench.wait_for_step(job_id, 1, SECONDS)
    child = child_of(worker)
    stop_worker(worker)
    wait_until(lambda: bench.job(job_id).status == "queued", settings.grace_seconds)
    assert not alive(child.pid)
    said = [step for name, step in bench.metrics(job_id) if name == "train_loss"]
    assert bench.parts(job_id)["training"].step >= max(said)
    assert (bench.job(job_id).attempt, len(bench.kept_objects())) == (0, 2)


def test_a_stop_that_reaches_the_child_first_is_no_lost_attempt(
    bench: Bench, worker_process: StartWorker
) -> None:
    """As where a machine sends SIGTERM to every process at once."""
    worker = worker_process("jobs")
    job_id = start(bench)
    bench.wait_for_step(job_id, 1, SECONDS)
    os.kill(child_of(worker).pid, signal.SIGTERM)
    stop_worker(worker)
    wait_until(lambda: bench.job(job_id).status == "queued", 20)
    assert bench.job(job_id).attempt == 0


def test_a_job_that_used_up_its_attempts_keeps_its_checkpoint_and_its_childrens_last_words(
    bench: Bench, worker_process: StartWorker
) -> None:
    worker = worker_process("jobs")
    job_id = bench.start(epochs=1_000, batch_size=BATCH)
    for attempt in (1, 2, 3):
        wait_until(lambda n=attempt: bench.job(job_id).attempt == n, 60)
        bench.wait_for_step(job_id, attempt, SECONDS)
        kill_child(worker)
    job = bench.wait(job_id, "failed", SECONDS)
    assert job.error is not None
    assert (job.error["code"], job.attempt) == ("worker_lost", 3)
    lost = [text for text in messages(bench, job_id, "warning") if "was lost" in text]
    assert [text.split(" was")[0] for text in lost] == [f"Attempt {n} of 3" for n in (1, 2, 3)]
    assert set(bench.parts(job_id)) == {"network", "training"}
    assert len(bench.kept_objects()) == 2
