"""One attempt at a job: claim, inputs, child, outputs, end. The pipeline itself runs in the child."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.artifacts.tables import Artifact
from app.core.errors import Internal, Problem
from app.core.ids import new_id
from app.core.metrics import NO_CODE
from app.core.queue import CAUSE_HEADER
from app.core.settings import Settings
from app.datasets.tables import Dataset
from app.jobs import checkpoints, leases, turns
from app.jobs.states import ENDED, JobStatus
from app.jobs.tables import Job, JobCheckpoint
from app.models.tables import Model
from app.storage.references import lock_object
from app.storage.store import Blob
from app.storage.watched import Each
from worker import attempt, inputs
from worker.carrier import carrier_for
from worker.heartbeat import Heartbeat
from worker.messages import RestartMessage
from worker.problems import is_disk_full, why_lost
from worker.reporting import JobReporter
from worker.runtime import Runtime
from worker.sandbox import PROJECT
from worker.scratch import scratch_folder, sweep
from worker.supervisor import Ending

LAST_WORDS: Final = 2_000  # characters
CARRIED_SHARE: Final = 0.3  # of the grace at a stop, at most, for carrying the last checkpoint
CARRIED_SECONDS: Final = 60.0  # where nobody waits: a child is lost, the worker goes on

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Claimed:
    """A job under our lease with what it works on."""

    job: Job
    model: Model
    dataset: Dataset | None
    lease: leases.Lease
    parts: Sequence[JobCheckpoint]  # what an earlier attempt left
    following: str | None  # another job that waits: whoever takes one rings for the next


@dataclass(frozen=True)
class Output:
    """A file of the child's that lies in the store, but has no row yet."""

    entry: dict[str, Any]
    blob: Blob
    path: Path


def run_job(runtime: Runtime, rung_id: str) -> None:
    """One attempt at the job whose turn it is. The message names one that was waiting when it was sent; which
    one is next, the rows tell."""
    lease = runtime.new_lease()
    claimed = attempt.in_transaction(runtime, lambda session: _claim(runtime, session, lease))
    if claimed is None:
        log.info("job.not_claimed", job_id=rung_id)
        return
    job_id = claimed.job.id
    if claimed.following is not None:
        runtime.doorbell.ring("worker.run_job", claimed.following)
    runtime.waker.wake(job_id)
    sweep(runtime.scratch_root)  # of a worker on this machine that was killed
    attempt.say_started(runtime, "job", claimed.job)
    ids: dict[str, Any] = {"job_id": job_id, "attempt": claimed.job.attempt}
    if job_id != rung_id:
        ids[CAUSE_HEADER] = None  # the message's request is another job's
    with (
        structlog.contextvars.bound_contextvars(**ids),
        attempt.beating(runtime, Job, job_id, lease) as heartbeat,
    ):
        try:
            _attempt(runtime, claimed, heartbeat)
        except attempt.Halted as halted:
            _end(runtime, claimed, heartbeat, halted.ending, [])
        except Exception as error:
            log.exception("job.attempt_failed")
            _end(runtime, claimed, heartbeat, Ending("lost", reason=why_lost(error)), [])


def _claim(runtime: Runtime, session: Session, lease: leases.Lease) -> Claimed | None:
    now = runtime.clock.now()
    job_id = turns.next_job(session, now)
    job = None if job_id is None else leases.claim_job(session, job_id, lease, now)
    if job is None:
        return None
    turns.take(session, job, now)
    model = session.scalars(select(Model).where(Model.id == job.model_id)).one()
    dataset = session.get(Dataset, job.dataset_id) if job.dataset_id is not None else None
    parts = checkpoints.of_job(session, job.id)
    return Claimed(job, model, dataset, lease, parts, turns.ring_for_next(session, now))


def _attempt(runtime: Runtime, claimed: Claimed, heartbeat: Heartbeat) -> None:
    settings, job = runtime.settings, claimed.job
    owner = claimed.lease.owner
    with scratch_folder(runtime.scratch_root, job.id) as folder:
        carrier = carrier_for(runtime, folder, job.id, owner)
        reporter = JobReporter(runtime, job.id, owner, job.warnings, carrier)
        each = attempt.halting(runtime, heartbeat)
        cached = inputs.fetch(runtime, claimed.model, claimed.dataset, folder, each)
        policy = inputs.policy(runtime)
        task: dict[str, Any] = {"task": "run_job", "options": job.options}
        task |= inputs.describe(runtime, claimed.model, claimed.dataset)
        task |= {"resume": _fetch_parts(runtime, claimed, folder, reporter, each)}
        ending = attempt.run_child(
            runtime, folder, task, policy, heartbeat, reporter, settings.job_seconds, policy.file_bytes
        )
        if ending.kind == "result":
            reporter.finish_stage()
        reporter.write_last(_tells_no_more(runtime, heartbeat))
        carrier.finish(_carrying(settings, ending))
        if not cached:
            inputs.keep_sized(runtime, claimed.model, claimed.dataset, folder)
        outputs: list[Output] = []
        if ending.kind == "result":
            storing = attempt.storing(runtime, heartbeat)
            ending, outputs = _store_outputs(runtime, folder, ending, storing)
        _end(runtime, claimed, heartbeat, ending, outputs)


def _tells_no_more(runtime: Runtime, heartbeat: Heartbeat) -> Callable[[], bool]:
    """When the rest of a child's words may be dropped: the job is another's, or the worker must stop."""
    must_stop = attempt.until_stopped(runtime)
    return lambda: heartbeat.lost.is_set() or must_stop()


def _fetch_parts(
    runtime: Runtime, claimed: Claimed, folder: Path, reporter: JobReporter, each: Each
) -> dict[str, Any] | None:
    """Put what an earlier attempt left into the folder; None when there is nothing, or it is damaged."""
    if not claimed.parts:
        return None
    files = {part.part: f"kept-{part.part}" for part in claimed.parts}
    try:
        for part in claimed.parts:
            _fetch_part(runtime, part, folder / files[part.part], each)
    except Exception as error:  # whatever a storage raises: the job can be done without
        if is_disk_full(error):
            raise  # no fault of the checkpoint's, and the next attempt will want it
        log.warning("checkpoint.not_fetched", job=claimed.job.id, error=str(error).partition("\n")[0])
        reason = "What an earlier attempt left could not be read."
        reporter.take(RestartMessage(type="restart", reason=reason))
        return None
    return {"files": files, "stage": claimed.parts[0].stage}


def _fetch_part(runtime: Runtime, part: JobCheckpoint, path: Path, each: Each) -> None:
    runtime.store.download_at(part.key, path, each)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != part.sha256:
        raise Internal(f"{part.key} has the hash {found}, not {part.sha256}.")


def _carrying(settings: Settings, ending: Ending) -> float:
    """How long to wait for the last checkpoint: not at all where no other attempt will want it."""
    waits = {"stopped": CARRIED_SHARE * settings.grace_seconds, "lost": CARRIED_SECONDS}
    return waits.get(ending.kind, 0.0)


def _store_outputs(runtime: Runtime, folder: Path, ending: Ending, each: Each) -> tuple[Ending, list[Output]]:
    """Put the files that the result names into the store; a result with no such files is a problem."""
    result = ending.document or {}
    try:
        entries = [*result.get("exports", []), *result.pop("attachments", [])]
        outputs = []
        for entry in entries:
            path = attempt.output(folder, entry["file"])
            outputs.append(Output(entry, runtime.store.put_file(path, each), path))
    except (KeyError, TypeError, Problem) as error:
        log.warning("job.bad_result", error=str(error)[:2000])
        return Ending("problem", Internal("The job's child named files that are not there.").document()), []
    return ending, outputs


def _end(
    runtime: Runtime, claimed: Claimed, heartbeat: Heartbeat, ending: Ending, outputs: list[Output]
) -> None:
    """Write how the attempt ended, by compare-and-set, as long as the lease is ours."""
    runtime.telemetry.work.attempt_ended("job", ending.kind, heartbeat.seconds())
    if ending.kind == "lease_lost":
        log.warning("job.lease_lost")
        return
    status = attempt.in_transaction(
        runtime,
        lambda session: _write_end(runtime, session, claimed, ending, outputs),
        attempt.until_stopped(runtime),
    )
    code = attempt.code_of(ending) if status == JobStatus.FAILED else NO_CODE
    log.info("job.ended", ending=ending.kind, status=status, reason=ending.reason, code=code)
    if status in ENDED:
        runtime.telemetry.work.jobs_ended.labels(status, code).inc()
        checkpoints.tidy(runtime.sessions, runtime.store, claimed.job.id)
    runtime.waker.wake(claimed.job.id)
    if ending.kind == "stopped" and status == JobStatus.QUEUED:
        runtime.doorbell.ring("worker.run_job", claimed.job.id)


def _write_end(
    runtime: Runtime, session: Session, claimed: Claimed, ending: Ending, outputs: list[Output]
) -> JobStatus | None:
    job_id, owner, now = claimed.job.id, claimed.lease.owner, runtime.clock.now()
    document = ending.document or {}
    if ending.kind == "stopped":
        return leases.hand_back_job(session, job_id, owner, now)
    if ending.kind == "lost":
        words = _last_words(ending.stderr)
        return leases.lose_job(session, job_id, owner, runtime.retries, ending.reason, now, words)
    if ending.kind == "problem" and leases.fail_job(session, job_id, owner, document, now):
        return JobStatus.FAILED
    if ending.kind == "result":
        artifacts = _artifacts(claimed, outputs, now)
        if leases.succeed_job(session, job_id, owner, document, now):
            _keep_objects(runtime, session, outputs)
            session.add_all(artifacts)
            return JobStatus.SUCCEEDED
    return JobStatus.CANCELLED if leases.cancel_job(session, job_id, owner, now) else None


def _last_words(stderr: str) -> str:
    """The end of what a lost child wrote, for the job's owner: without the places of this machine."""
    for place, name in ((sys.prefix, "python"), (str(PROJECT), ".")):
        stderr = stderr.replace(place, name)
    return stderr[-LAST_WORDS:].strip()


def _artifacts(claimed: Claimed, outputs: list[Output], now: datetime) -> list[Artifact]:
    """Rows for what lies in the store; the result's exports get their ids, hashes and sizes."""
    artifacts = []
    for entry, blob in ((output.entry, output.blob) for output in outputs):
        artifact = Artifact(
            id=new_id("artifact", now),
            owner_id=claimed.job.owner_id,
            job_id=claimed.job.id,
            format=entry["format"],
            name=entry["name"],
            bytes=blob.bytes,
            sha256=blob.sha256,
            media_type=entry["media_type"],
            created_at=now,
        )
        entry.pop("file", None)
        entry.update(artifact=artifact.id, sha256=blob.sha256, bytes=blob.bytes)
        artifacts.append(artifact)
    return artifacts


def _keep_objects(runtime: Runtime, session: Session, outputs: list[Output]) -> None:
    """Hold the objects until the rows that name them are there; all workers take the locks in one order."""
    for output in sorted(outputs, key=lambda output: output.blob.sha256):
        lock_object(session, output.blob.sha256)
        if not runtime.store.exists(output.blob.sha256):  # deleted with its last row since we stored it
            runtime.store.put_file(output.path)
