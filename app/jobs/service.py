"""What can be done with jobs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.artifacts.tables import Artifact
from app.core.errors import InvalidState, known
from app.core.ids import new_id
from app.core.metrics import NO_CODE
from app.core.security import Caller
from app.core.unit import Services, Unit
from app.datasets import service as datasets
from app.datasets.tables import Dataset
from app.jobs import checkpoints, checks, events, from_scratch, repository
from app.jobs.endings import append_done
from app.jobs.options import JobCreate, JobOptions
from app.jobs.states import ENDED, JobStatus
from app.jobs.tables import Job
from app.keys import quotas
from app.models import service as models
from app.models.tables import Model
from app.storage.references import release_objects

log = structlog.get_logger()


def create(unit: Unit, caller: Caller, request: JobCreate) -> Job:
    """A queued job with its options frozen and its first event; its worker is rung for after commit."""
    from_scratch.check_kind(request)
    model = models.get_ready(unit, caller, request.model)
    dataset = None if request.dataset is None else datasets.get_ready(unit, caller, request.dataset)
    options = accepted(request, model, dataset)
    quotas.require_jobs(unit.session, caller, 1, unit.now)
    job = draft(new_id("job", unit.now), caller.owner_id, request, options, unit.now)
    unit.session.add(job)
    unit.ring("worker.run_job", job)  # writes into the row, so before it is written itself
    unit.session.flush()
    log.info("job.created", job_id=job.id, kind=job.kind, model_id=model.id, dataset_id=job.dataset_id)
    unit.session.add(events.first(job.id, unit.now))
    unit.session.flush()
    return job


def accepted(request: JobCreate, model: Model, dataset: Dataset | None) -> JobOptions:
    """The options frozen, if a job on these can do what is asked. Raises ValidationFailed."""
    checks.check_data(request, dataset)
    checks.check_outputs(request, model)
    checks.check_layers(request.compression, model)
    return checks.frozen_options(request, dataset)


def draft(
    job_id: str, owner_id: str, request: JobCreate, options: JobOptions, now: datetime, **batch: Any
) -> Job:
    """The row of a new job, not yet in the database."""
    return Job(
        id=job_id,
        owner_id=owner_id,
        kind=request.kind,
        name=request.name,
        model_id=request.model,
        dataset_id=request.dataset,
        options=options.model_dump(mode="json"),
        annotations=request.metadata,
        status=JobStatus.QUEUED,
        attempt=0,
        progress={"fraction": 0.0},
        warnings=[],
        created_at=now,
        **batch,
    )


def get(unit: Unit, caller: Caller, job_id: str) -> Job:
    return known(repository.find(unit.session, caller.owner_id, job_id), "job", job_id)


def cancel(unit: Unit, services: Services, caller: Caller, job_id: str) -> Job:
    """Stop a job: at once while it waits, else by its worker, which sees the status within seconds."""
    job = get(unit, caller, job_id)
    if repository.cancel_queued(unit.session, job.id, unit.now):
        append_done(unit.session, job.id, JobStatus.CANCELLED, None, unit.now)
        ended = services.metrics.work.jobs_ended.labels(JobStatus.CANCELLED, NO_CODE)
        unit.after_commit(ended.inc)
        checkpoints.drop(unit.session, job.id)  # of an attempt before it waited again
        unit.after_commit(lambda: checkpoints.tidy(services.sessions, services.store, job.id))
    elif not repository.ask_to_cancel(unit.session, job.id):
        unit.session.refresh(job)
        if job.status not in (JobStatus.CANCELLING, JobStatus.CANCELLED):
            raise InvalidState(f"The job {job.id} is {job.status}; there is nothing left to cancel.")
        return job
    unit.session.refresh(job)
    unit.after_commit(lambda: services.publisher.wake(job.id))
    return job


def delete(unit: Unit, services: Services, caller: Caller, job_id: str) -> None:
    """Delete an ended job with its events, metrics and artifacts; objects nobody else needs follow."""
    job = known(repository.find_to_delete(unit.session, caller.owner_id, job_id), "job", job_id)
    if job.status not in ENDED:
        raise InvalidState(
            f"The job {job.id} is {job.status}; only an ended job can be deleted.", hint="Cancel it first."
        )
    hashes = remove(unit.session, job)
    unit.after_commit(lambda: checkpoints.tidy(services.sessions, services.store, job.id))
    unit.after_commit(lambda: release_objects(services.sessions, services.store, hashes))


def remove(session: Session, job: Job) -> Sequence[str]:
    """Delete the job's row and all that the database keeps with it; the objects that its files lie in."""
    hashes = session.scalars(select(Artifact.sha256).where(Artifact.job_id == job.id)).all()
    session.delete(job)
    return hashes
