"""Children and workers that die, stop or run out: the job is done once, or says why not."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest

from app.core.settings import Settings
from app.embedded.processes import Worker
from app.jobs.states import JobStatus
from tests.faults.conftest import Bench, child_of
from tests.support.processes import alive, wait_until
from worker.jobs import run_job
from worker.runtime import Runtime

StartWorker = Callable[..., Worker]
LONG = 1_000  # epochs: minutes
STAGES = ["calibrate", "decompose", "finetune", "evaluate", "export", "verify"]


def test_a_job_whose_message_was_lost_runs_to_its_end_all_the_same(
    bench: Bench, worker_process: StartWorker
) -> None:
    worker_process("jobs")
    job_id = bench.start(epochs=1, ring=False)
    job = bench.wait(job_id, "succeeded")
    assert job.result is not None
    assert job.result["compressed"]["macs"] <= 0.6 * job.result["original"]["macs"]
    assert job.result["original"]["accuracy"] == 1.0  # the labels are its own answers
    assert job.result["exports"][0]["accuracy"] == job.result["compressed"]["accuracy"]
    assert (bench.count(job_id, "done"), bench.artifacts(job_id)) == (1, 1)
    assert bench.count(job_id, "stage") == len(STAGES)


def test_a_child_killed_once_is_tried_again_and_the_job_succeeds(
    bench: Bench, worker_process: StartWorker
) -> None:
    worker = worker_process("jobs")
    job_id = bench.start(epochs=1)
    bench.wait_for_stage(job_id, "calibrate")
    child_of(worker).kill()
    job = bench.wait(job_id, "succeeded")
    assert job.attempt == 2
    assert (bench.count(job_id, "done"), bench.artifacts(job_id)) == (1, 1)


def test_a_job_whose_child_is_killed_three_times_fails_with_worker_lost_and_the_worker_goes_on(
    bench: Bench, worker_process: StartWorker
) -> None:
    worker = worker_process("jobs")
    job_id = bench.start(epochs=LONG)
    for attempt in (1, 2, 3):
        wait_until(lambda n=attempt: bench.job(job_id).attempt == n, 30)
        child_of(worker).kill()
    job = bench.wait(job_id, "failed")
    assert job.error is not None
    assert (job.error["code"], job.attempt) == ("worker_lost", 3)
    assert bench.count(job_id, "done") == 1
    bench.wait_for_stage(bench.start(), "calibrate")


def test_cancelling_stops_a_running_fine_tune_within_five_seconds(
    bench: Bench, worker_process: StartWorker
) -> None:
    worker = worker_process("jobs")
    job_id = bench.start(epochs=LONG)
    bench.wait_for_stage(job_id, "finetune")
    bench.cancel(job_id)
    bench.wait(job_id, "cancelled", seconds=5)
    assert (bench.count(job_id, "done"), bench.artifacts(job_id)) == (1, 0)
    assert worker.process is not None
    assert worker.process.poll() is None


# The real child, but for a pause where a stage begins: some take a few milliseconds.
HELD_CHILD = """
import sys, time
from worker import child

make = child._reporter

def held(descriptor):
    report = make(descriptor)
    def tell(message):
        report(message)
        if message["type"] == "stage" and message["stage"] == {stage!r}:
            time.sleep(60)
    return tell

child._reporter = held
child.main(sys.argv[1])
"""


@pytest.mark.parametrize("stage", STAGES)
def test_cancelling_works_in_every_stage_within_five_seconds(
    bench: Bench, settings: Settings, tmp_path: Path, stage: str
) -> None:
    script = tmp_path / "held.py"
    script.write_text(HELD_CHILD.format(stage=stage))
    runtime = replace(Runtime.build(settings, Event()), command=(sys.executable, str(script)))
    job_id = bench.start(epochs=1)
    asked: list[float] = []

    def cancel() -> None:
        bench.wait_for_stage(job_id, stage)
        asked.append(time.monotonic())
        bench.cancel(job_id)

    canceller = Thread(target=cancel)
    canceller.start()
    run_job(runtime, job_id)
    canceller.join()
    assert time.monotonic() - asked[0] < 5
    assert bench.job(job_id).status == JobStatus.CANCELLED
    assert (bench.job(job_id).stage, bench.count(job_id, "done")) == (stage, 1)
    assert bench.artifacts(job_id) == 0


def test_a_worker_told_to_stop_hands_its_job_back_and_the_next_worker_finishes_it(
    bench: Bench, worker_process: StartWorker, settings: Settings
) -> None:
    first = worker_process("jobs")
    job_id = bench.start(epochs=2)
    bench.wait_for_stage(job_id, "calibrate")
    child = child_of(first)
    assert first.process is not None
    first.process.send_signal(signal.SIGTERM)
    first.process.wait(settings.grace_seconds)
    assert not alive(child.pid)
    assert (bench.job(job_id).status, bench.job(job_id).attempt) == ("queued", 0)
    worker_process("jobs")
    job = bench.wait(job_id, "succeeded")
    assert (job.attempt, bench.count(job_id, "done")) == (1, 1)


@pytest.mark.parametrize(("asked", "status"), [("stop", "queued"), ("cancel", "cancelled")])
def test_a_long_download_of_a_jobs_inputs_is_broken_off_when_the_worker_stops_or_the_job_is_cancelled(
    bench: Bench, settings: Settings, monkeypatch: pytest.MonkeyPatch, asked: str, status: str
) -> None:
    stopping, began, ended = Event(), Event(), Event()

    def drip(*_: object) -> Iterator[bytes]:
        for _ in range(3_000):
            began.set()
            time.sleep(0.01)
            yield b"x"
        ended.set()

    runtime = Runtime.build(settings, stopping)
    monkeypatch.setattr(runtime.store, "_ranges", drip)
    job_id = bench.start()

    def ask() -> None:
        began.wait()
        if asked == "stop":
            stopping.set()
        else:
            bench.cancel(job_id)

    asker = Thread(target=ask)
    asker.start()
    run_job(runtime, job_id)
    asker.join()
    assert not ended.is_set()
    job = bench.job(job_id)
    assert (job.status, job.stage, job.attempt) == (status, None, 0 if asked == "stop" else 1)
    assert not [path for path in runtime.scratch_root.iterdir() if path.is_dir()]


def test_a_worker_killed_outright_takes_its_child_along_and_its_job_is_done_once_by_another(
    bench: Bench, worker_process: StartWorker
) -> None:
    first = worker_process("jobs")
    job_id = bench.start(epochs=1)
    bench.wait_for_stage(job_id, "calibrate")
    child = child_of(first)
    assert first.process is not None
    first.process.kill()
    wait_until(lambda: not alive(child.pid), 5)
    worker_process("jobs")
    job = bench.wait(job_id, "succeeded")
    assert (job.attempt, bench.count(job_id, "done"), bench.artifacts(job_id)) == (2, 1, 1)


def test_a_cancel_whose_worker_was_killed_is_carried_out_by_the_reaper(
    bench: Bench, worker_process: StartWorker
) -> None:
    worker = worker_process("jobs")
    job_id = bench.start(epochs=LONG)
    bench.wait_for_stage(job_id, "calibrate")
    assert worker.process is not None
    os.kill(worker.process.pid, signal.SIGSTOP)  # it can't react any more
    bench.cancel(job_id)
    worker.process.kill()
    bench.wait(job_id, "cancelled", seconds=10)
    assert bench.count(job_id, "done") == 1


def test_a_worker_that_slept_through_its_lease_leaves_the_job_to_its_successor(
    bench: Bench, worker_process: StartWorker
) -> None:
    sleeper = worker_process("jobs")
    job_id = bench.start(epochs=1)
    bench.wait_for_stage(job_id, "calibrate")
    assert sleeper.process is not None
    os.kill(sleeper.process.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: bench.job(job_id).lease_owner is None, 15)
        worker_process("jobs")
        job = bench.wait(job_id, "succeeded")
    finally:
        os.kill(sleeper.process.pid, signal.SIGCONT)
    assert (job.attempt, bench.count(job_id, "done"), bench.artifacts(job_id)) == (2, 1, 1)


def test_past_the_time_limit_the_job_fails_and_the_worker_goes_on(
    bench: Bench, worker_process: StartWorker, settings: Settings
) -> None:
    worker_process("jobs", settings.model_copy(update={"job_seconds": 6}))
    job_id = bench.start(epochs=LONG)
    job = bench.wait(job_id, "failed")
    assert job.error is not None
    assert job.error["code"] == "time_limit"
    following = bench.start()
    wait_until(lambda: bench.job(following).attempt == 1, 30)


def test_running_out_of_memory_fails_the_job_at_once_and_the_worker_goes_on(
    bench: Bench, worker_process: StartWorker, settings: Settings
) -> None:
    worker_process("jobs", settings.model_copy(update={"job_bytes": 1_000_000_000}))
    job_id = bench.start(model_id=bench.add_model(side=512))  # one batch's responses take 1.6 GB
    job = bench.wait(job_id, "failed")
    assert job.error is not None
    assert (job.error["code"], job.attempt) == ("out_of_memory", 1)
    bench.wait(bench.start(), "succeeded")


def test_a_message_that_comes_again_does_nothing_twice(bench: Bench, worker_process: StartWorker) -> None:
    job_id = bench.start()
    for _ in range(5):
        bench.ring(job_id)
    worker_process("jobs")
    worker_process("jobs")
    job = bench.wait(job_id, "succeeded")
    other = bench.wait(bench.start(), "succeeded")  # by now every message before it was taken
    assert (job.attempt, other.attempt) == (1, 1)
    assert (bench.count(job_id, "done"), bench.artifacts(job_id)) == (1, 1)
