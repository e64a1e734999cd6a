"""What can be done with batches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from pydantic import ValidationError
from sqlalchemy import delete as sql_delete
from sqlalchemy import select, update

from app.artifacts.tables import Artifact
from app.batches import closing, repository
from app.batches.reading import Line, Wanted
from app.batches.states import OPEN, BatchStatus
from app.batches.tables import Batch
from app.core.errors import InvalidState, Problem, ValidationFailed, known
from app.core.ids import is_id, new_id, new_ids
from app.core.metrics import NO_CODE
from app.core.problems import pointer, validation_problem
from app.core.security import Caller
from app.core.unit import Services, Unit
from app.datasets import repository as datasets
from app.datasets import service as dataset_service
from app.datasets.tables import Dataset
from app.jobs import endings, events, from_scratch
from app.jobs import repository as job_repository
from app.jobs import service as jobs
from app.jobs.options import JobCreate, JobOptions
from app.jobs.states import JobStatus
from app.jobs.tables import Job
from app.keys import quotas
from app.models import repository as models
from app.models import service as model_service
from app.models.tables import Model
from app.storage.references import release_objects

# A worker that takes a job rings for the next one, so a few rings wake them all, and thousands of jobs leave
# the broker in peace.
RUNG: Final = 16
ERRORS: Final = 100  # kept and told
RELEASED: Final = 200  # objects deleted while somebody waits for it; more are left to the janitor

log = structlog.get_logger()


Ready = tuple[Line, JobCreate, JobOptions]  # the options frozen


@dataclass(frozen=True)
class Inputs:
    """The networks and data sets that the lines name, kept from being deleted until the batch stands."""

    models: Mapping[str, Model]
    datasets: Mapping[str, Dataset]


@dataclass(frozen=True)
class Sorted:
    """The lines that can become jobs, and why the others cannot."""

    jobs: list[Ready]
    errors: list[dict[str, Any]]


def create(unit: Unit, caller: Caller, wanted: Wanted) -> Batch:
    """All jobs at once, or none: every line is looked at before the first one is written."""
    found = _sort(unit, caller, wanted.lines)
    total = len(found.jobs) + len(found.errors)
    if not total:
        raise ValidationFailed("The batch has no jobs.")
    if found.errors and (wanted.on_error == "abort" or not found.jobs):
        raise _refusal(found.errors, total)
    quotas.require_jobs(unit.session, caller, len(found.jobs), unit.now)
    batch = Batch(
        id=new_id("batch", unit.now),
        owner_id=caller.owner_id,
        name=wanted.name,
        on_error=wanted.on_error,
        status=BatchStatus.RUNNING,
        total=total,
        invalid=len(found.errors),
        errors=found.errors[:ERRORS],
        created_at=unit.now,
    )
    unit.session.add(batch)
    unit.session.flush()
    _add_jobs(unit, batch, found.jobs)
    log.info("batch.created", batch_id=batch.id, jobs=len(found.jobs), invalid=batch.invalid)
    return batch


def _add_jobs(unit: Unit, batch: Batch, wanted: Sequence[Ready]) -> None:
    owner_id, now = batch.owner_id, unit.now
    ids = new_ids("job", now, len(wanted))
    rows = [
        jobs.draft(job_id, owner_id, request, options, now, batch_id=batch.id, batch_line=line.number)
        for job_id, (line, request, options) in zip(ids, wanted, strict=True)
    ]
    unit.session.add_all(rows)
    unit.session.flush()
    unit.session.add_all([events.first(job.id, unit.now) for job in rows])
    unit.session.flush()
    for job in rows[:RUNG]:
        unit.ring("worker.run_job", job)


def _sort(unit: Unit, caller: Caller, lines: Iterable[Line]) -> Sorted:
    errors: list[dict[str, Any]] = []
    requests: list[tuple[Line, JobCreate]] = []
    for line in lines:
        try:
            requests.append((line, _request(line)))
        except Problem as problem:
            errors.append(_told(line, problem))
    inputs = _inputs(unit, caller, [request for _, request in requests])
    found = []
    for line, request in requests:
        try:
            found.append((line, request, _options(request, inputs)))
        except Problem as problem:
            errors.append(_told(line, problem))
    return Sorted(found, sorted(errors, key=lambda error: int(error["line"])))


def _request(line: Line) -> JobCreate:
    if line.unreadable is not None:
        raise line.unreadable
    try:
        return JobCreate.model_validate(line.body)
    except ValidationError as error:
        raise validation_problem(error.errors(), ("body",)) from error


def _inputs(unit: Unit, caller: Caller, requests: Sequence[JobCreate]) -> Inputs:
    """Two queries, however many lines there are."""
    model_ids = {request.model for request in requests if is_id(request.model, "model")}
    dataset_ids = {r.dataset for r in requests if r.dataset is not None and is_id(r.dataset, "dataset")}
    return Inputs(
        {row.id: row for row in models.find_many_to_use(unit.session, caller.owner_id, model_ids)},
        {row.id: row for row in datasets.find_many_to_use(unit.session, caller.owner_id, dataset_ids)},
    )


def _options(request: JobCreate, inputs: Inputs) -> JobOptions:
    from_scratch.check_kind(request)
    model = model_service.usable(inputs.models.get(request.model), request.model)
    dataset = None
    if request.dataset is not None:
        dataset = dataset_service.usable(inputs.datasets.get(request.dataset), request.dataset)
    return jobs.accepted(request, model, dataset)


def _told(line: Line, problem: Problem) -> dict[str, Any]:
    """The problem as one of the batch's errors, with its place in what was sent."""
    first: Mapping[str, Any] = next(iter(problem.extra.get("errors", [])), {})
    own = str(first.get("pointer", "#")).removeprefix("#")
    detail = f"{problem.detail} ({line.words})" if line.words else problem.detail
    # What was sent may hold characters that cannot be stored.
    detail = detail.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    return {
        "line": line.number,
        "code": problem.code,
        "detail": detail,
        "pointer": pointer(*line.place) + own,
    }


def _refusal(errors: Sequence[dict[str, Any]], total: int) -> ValidationFailed:
    first = errors[0]
    hint = 'Correct them, or send the batch with `on_error` "skip" to run the others.'
    if len(errors) == total:
        hint = "Correct them; each is told in `errors`."
    which = "The only job" if total == 1 else f"{len(errors):,} of {total:,} jobs"
    verb = "is" if len(errors) == 1 else "are"
    return ValidationFailed(
        f"{which} {verb} not valid, and none was started. Line {first['line']}: {first['detail']}",
        hint=hint,
        errors=list(errors[:ERRORS]),
        invalid=len(errors),
        total=total,
    )


def get(unit: Unit, caller: Caller, batch_id: str) -> Batch:
    return known(repository.find(unit.session, caller.owner_id, batch_id), "batch", batch_id)


def cancel(unit: Unit, services: Services, caller: Caller, batch_id: str) -> Batch:
    """Cancel what waits at once, and ask the workers of what runs to stop; again is no error."""
    batch = get(unit, caller, batch_id)
    quotas.lock_owner(unit.session, caller.owner_id)  # of two cancellations the second finds nothing to do
    moved = job_repository.stop_batch(unit.session, batch.id, unit.now)
    cancelled = [job_id for job_id, status in moved if status == JobStatus.CANCELLED]
    endings.cancelled_waiting(unit.session, cancelled, unit.now)
    unit.session.execute(
        update(Batch)
        .where(Batch.id == batch.id, Batch.status == BatchStatus.RUNNING)
        .values(status=BatchStatus.CANCELLING)
    )
    closing.close_if_over(unit.session, batch.id, unit.now)
    unit.session.refresh(batch)
    if batch.status == BatchStatus.COMPLETED:
        raise InvalidState(f"The batch {batch.id} is completed; there is nothing left to cancel.")
    ended = services.metrics.work.jobs_ended.labels(JobStatus.CANCELLED, NO_CODE)
    unit.after_commit(lambda: ended.inc(len(cancelled)))
    for job_id, status in moved:
        if status == JobStatus.CANCELLING:  # whoever watches one that waited looks again in seconds anyway
            unit.after_commit(lambda job_id=job_id: services.publisher.wake(job_id))  # type: ignore[misc]
    log.info("batch.cancelled", batch_id=batch.id, jobs=len(moved))
    return batch


def delete(unit: Unit, services: Services, caller: Caller, batch_id: str) -> None:
    """Delete an ended batch with its jobs and all that they made."""
    batch = get(unit, caller, batch_id)
    if batch.status in OPEN:
        raise InvalidState(
            f"The batch {batch.id} is {batch.status}; only an ended one can be deleted.",
            hint="Cancel it first.",
        )
    ids = unit.session.scalars(
        select(Job.id).where(Job.batch_id == batch.id).order_by(Job.id).with_for_update()
    ).all()
    of_batch = select(Job.id).where(Job.batch_id == batch.id)
    hashes = unit.session.scalars(
        select(Artifact.sha256).where(Artifact.job_id.in_(of_batch)).distinct()
    ).all()
    unit.session.execute(sql_delete(Job).where(Job.batch_id == batch.id))
    unit.session.delete(batch)
    log.info("batch.deleted", batch_id=batch.id, jobs=len(ids))
    unit.after_commit(lambda: release_objects(services.sessions, services.store, hashes[:RELEASED]))
