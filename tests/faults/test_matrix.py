"""Whatever is killed in whatever stage: each job ends once, in the right state, with the same files.

The rows of the table in benchmarks/results/faults.md. A few run by default, all with `make test-faults`.
"""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.faults.rig.checks import Ground, check_ended_once
from tests.faults.rig.rig import Rig
from tests.faults.rig.table import STAGES, Row, Table

Kill = Callable[[Rig, str], None]


def kill_child(rig: Rig, stage: str) -> None:
    rig.child_of(rig.quick if stage == "inspect" else rig.jobs).kill()


def kill_worker(rig: Rig, stage: str) -> None:
    rig.kill(rig.quick if stage == "inspect" else rig.jobs)


def stop_worker(rig: Rig, stage: str) -> None:
    """As every deploy does."""
    worker = rig.quick if stage == "inspect" else rig.jobs
    assert worker.process is not None
    worker.process.send_signal(signal.SIGTERM)


def kill_web(rig: Rig, stage: str) -> None:
    rig.kill(rig.web)


def kill_valkey(rig: Rig, stage: str) -> None:
    rig.kill(rig.valkey)


def wipe_valkey(rig: Rig, stage: str) -> None:
    rig.wipe_valkey()


def kill_postgres(rig: Rig, stage: str) -> None:
    rig.kill_postgres()


@dataclass(frozen=True)
class Fault:
    name: str
    kill: Kill
    attempts: int = 1  # that the job has afterwards: what is not the worker's costs none


FAULTS = [
    Fault("child", kill_child, 2),
    Fault("worker", kill_worker, 2),
    Fault("worker, SIGTERM", stop_worker),
    Fault("web", kill_web),
    Fault("valkey", kill_valkey),
    Fault("valkey, data wiped", wipe_valkey),
    Fault("postgres", kill_postgres),
]
# One of each in a stage of its own, the killed worker's in test_lost_workers.py; the others are left to
# `make test-faults`.
BY_DEFAULT = {
    ("child", "inspect"),
    ("worker, SIGTERM", "calibrate"),
    ("web", "verify"),
    ("valkey, data wiped", "decompose"),
    ("postgres", "export"),
}


def cells(stages: tuple[str, ...]) -> list[Any]:
    return [
        pytest.param(
            fault,
            stage,
            id=f"{fault.name}-{stage}",
            marks=() if (fault.name, stage) in BY_DEFAULT else pytest.mark.slow,
        )
        for fault in FAULTS
        for stage in stages
    ]


@pytest.mark.parametrize(("fault", "stage"), cells(("inspect",)))
def test_an_upload_is_inspected_once_whatever_is_killed_meanwhile(
    ground: Ground, faults_table: Table, fault: Fault, stage: str
) -> None:
    rig = ground.rig
    with rig.held("inspect"):
        model = rig.upload_model()
        rig.child_of(rig.quick)
        began = time.monotonic()
        fault.kill(rig, stage)
    found = rig.wait_ready("models", model)
    same = {name: value for name, value in ground.canonical.items() if name not in ("id", "created_at")}
    assert {name: found[name] for name in same} == same
    seconds = time.monotonic() - began
    rig.wait(lambda: not rig.scratch(), what="empty scratch folders")
    assert [path.name for path in rig.stored()] == ground.stored  # equal files are stored once
    rig.client.delete(f"/v1/models/{model}").raise_for_status()
    faults_table.rows.append(Row(stage, fault.name, "ready", fault.attempts, seconds))


@pytest.mark.parametrize(("fault", "stage"), cells(STAGES[1:]))
def test_a_job_ends_once_with_the_same_files_whatever_is_killed_meanwhile(
    ground: Ground, faults_table: Table, fault: Fault, stage: str
) -> None:
    rig = ground.rig
    with rig.held(stage):
        job_id = ground.submit()
        follower = rig.follow(job_id)
        rig.wait(lambda: follower.has_seen(type="stage", stage=stage), what=f"the stage {stage}")
        if stage == "finetune":
            rig.wait(lambda: rig.is_kept(job_id, "training"), what="a checkpoint of the training")
        began = time.monotonic()
        fault.kill(rig, stage)
    rig.wait(lambda: follower.is_done, what="the end of the job")
    seconds = time.monotonic() - began
    rig.wait_all_up()
    check_ended_once(ground, job_id, follower, fault.attempts)
    faults_table.rows.append(Row(stage, fault.name, "succeeded", fault.attempts, seconds))
