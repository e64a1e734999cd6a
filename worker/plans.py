"""One attempt at a plan: claim, what was measured before or what to measure, child, ready or failed."""

import hashlib
import json
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

import structlog
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.core.errors import Internal, Problem
from app.core.metrics import NO_CODE
from app.datasets.tables import Dataset
from app.jobs import leases
from app.jobs.options import Compression
from app.models.tables import Model
from app.plans import repository
from app.plans.schemas import Achievable, PlannedLayer, Predicted, Size
from app.plans.tables import Measurement, Plan
from app.storage.references import lock_object, release_objects
from app.storage.store import Blob
from app.storage.watched import Each
from worker import attempt, inputs
from worker.heartbeat import Heartbeat
from worker.messages import ProgressMessage, Said
from worker.numbers import FORMAT
from worker.problems import why_lost
from worker.runtime import Runtime
from worker.scratch import scratch_folder
from worker.supervisor import Ending

MEASUREMENT: Final = "measurement"
FLUSH_SECONDS: Final = 0.5  # between two writes of progress

log = structlog.get_logger(__name__)


class PlanAnswer(BaseModel):
    """What a child may answer as a plan; the page and the contract show nothing else of it."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    feasible: bool
    achievable: float | None
    limits: Achievable
    original: Size
    predicted: Predicted
    layers: Annotated[list[PlannedLayer], Field(max_length=100_000)]
    ranks: dict[str, Any]
    warnings: Annotated[list[dict[str, str]], Field(max_length=1_000)]


@dataclass(frozen=True)
class Claimed:
    """A plan under our lease with what it is about, and where its network's measurement lies, if it does."""

    plan: Plan
    model: Model
    dataset: Dataset | None
    key: str
    measurement: Measurement | None


@dataclass(frozen=True)
class Made:
    """A plan to be written, and the measurement that was made on the way."""

    result: dict[str, Any]
    measurement: Blob | None


def make_plan(runtime: Runtime, plan_id: str) -> None:
    lease = runtime.new_lease()
    claimed = attempt.in_transaction(runtime, lambda session: _claim(runtime, session, plan_id, lease))
    if claimed is None:
        log.info("plan.not_claimed", resource_id=plan_id)
        return
    attempt.say_started(runtime, "plan", claimed.plan)
    ids = structlog.contextvars.bound_contextvars(plan_id=plan_id, attempt=claimed.plan.attempt)
    with ids, attempt.beating(runtime, Plan, plan_id, lease) as heartbeat:
        try:
            _attempt(runtime, claimed, lease.owner, heartbeat)
        except attempt.Halted as halted:
            _end(runtime, claimed, lease.owner, heartbeat, halted.ending)
        except Exception as error:
            log.exception("plan.attempt_failed")
            _end(runtime, claimed, lease.owner, heartbeat, Ending("lost", reason=why_lost(error)))


def _claim(runtime: Runtime, session: Session, plan_id: str, lease: leases.Lease) -> Claimed | None:
    plan = leases.claim_short(session, Plan, plan_id, lease, runtime.clock.now())
    if not isinstance(plan, Plan):
        return None
    model = session.scalars(select(Model).where(Model.id == plan.model_id)).one()
    dataset = session.get(Dataset, plan.dataset_id) if plan.dataset_id is not None else None
    key = measurement_key(model, dataset, str(plan.compression["basis"]))
    return Claimed(plan, model, dataset, key, repository.measurement(session, model.id, key))


def measurement_key(model: Model, dataset: Dataset | None, basis: str) -> str:
    """A hash of all that the numbers depend on: no target, for which they are good whatever it is."""
    parts = {
        "format": FORMAT,
        "version": version("basisconv"),
        "model": inputs.canonical(model),
        "input": model.input,
        "dataset": None if dataset is None or basis == "weights" else inputs.canonical(dataset),
        "basis": basis,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _attempt(runtime: Runtime, claimed: Claimed, owner: str, heartbeat: Heartbeat) -> None:
    policy, seconds = inputs.policy(runtime), runtime.settings.plan_seconds
    with scratch_folder(runtime.scratch_root, claimed.plan.id) as folder:
        task, cached = _prepare(runtime, claimed, folder, attempt.halting(runtime, heartbeat))
        reporter = PlanReporter(runtime, claimed.plan.id, owner)
        ending = attempt.run_child(
            runtime, folder, task, policy, heartbeat, reporter, seconds, policy.file_bytes
        )
        made = None
        if ending.kind == "result":
            ending, made = _accept(runtime, folder, ending, attempt.storing(runtime, heartbeat))
        if not cached and claimed.measurement is None:
            inputs.keep_sized(runtime, claimed.model, claimed.dataset, folder)
        _end(runtime, claimed, owner, heartbeat, ending, made)


def _prepare(runtime: Runtime, claimed: Claimed, folder: Path, each: Each) -> tuple[dict[str, Any], bool]:
    """The task, its inputs in the folder, and whether the decoded data set was among them."""
    compression = Compression.model_validate(claimed.plan.compression)
    task: dict[str, Any] = {
        "task": "plan",
        "compression": compression.model_dump(mode="json"),
        "open": open_layers(compression, claimed.model),
        "measurement": None,
    }
    if claimed.measurement is not None:
        runtime.store.download_to(claimed.measurement.sha256, folder / MEASUREMENT, each)
        return task | {"measurement": MEASUREMENT}, False
    by_weights = compression.basis == "weights"
    dataset = None if by_weights else claimed.dataset
    cached = inputs.fetch(runtime, claimed.model, dataset, folder, each)
    return task | inputs.describe(runtime, claimed.model, dataset), cached


def open_layers(compression: Compression, model: Model) -> list[str]:
    """Names of the layers that the request lets change."""

    def matches(name: str, patterns: list[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    names = [str(layer["name"]) for layer in model.layers or []]
    layers = compression.layers
    return [name for name in names if matches(name, layers.include) and not matches(name, layers.exclude)]


def _accept(runtime: Runtime, folder: Path, ending: Ending, each: Each) -> tuple[Ending, Made | None]:
    """Check the answer and store the measurement; what is to be written, or a problem."""
    document = ending.document or {}
    try:
        answer = PlanAnswer.model_validate(document["plan"])
        name = document["measurement"]
        blob = None if name is None else runtime.store.put_file(attempt.output(folder, name), each)
    except (ValueError, KeyError, Problem) as error:
        log.warning("plan.bad_answer", error=str(error)[:2000])
        problem = Internal("The plan's child gave an answer that cannot be used.").document()
        return Ending("problem", problem), None
    return ending, Made(answer.model_dump(mode="json"), blob)


def _end(
    runtime: Runtime,
    claimed: Claimed,
    owner: str,
    heartbeat: Heartbeat,
    ending: Ending,
    made: Made | None = None,
) -> None:
    """Write how the attempt ended, as long as the lease is ours; a measurement nobody names is let go."""
    outcome = attempt.in_transaction(
        runtime,
        lambda session: _write_end(runtime, session, claimed, owner, ending, made),
        attempt.until_stopped(runtime),
    )
    log.info("plan.ended", ending=ending.kind, outcome=str(outcome), code=attempt.code_of(ending))
    _count(runtime, ending, outcome, heartbeat.seconds())
    if made is not None and made.measurement is not None and not outcome:
        release_objects(runtime.sessions, runtime.store, [made.measurement.sha256])
    if ending.kind == "stopped" and outcome:
        runtime.doorbell.ring("worker.plan", claimed.plan.id)


def _count(runtime: Runtime, ending: Ending, outcome: object, seconds: float) -> None:
    work = runtime.telemetry.work
    work.attempt_ended("plan", ending.kind, seconds)
    if (ending.kind == "problem" and outcome) or outcome == "failed":
        work.short_ended("plan", "failed", attempt.code_of(ending))
    elif ending.kind == "result" and outcome:
        work.short_ended("plan", "ready", NO_CODE)


def _write_end(
    runtime: Runtime, session: Session, claimed: Claimed, owner: str, ending: Ending, made: Made | None
) -> object:
    plan_id, now = claimed.plan.id, runtime.clock.now()
    over = {"finished_at": now, "progress": {}}
    if ending.kind == "result" and made is not None:
        _hold_inputs(session, claimed)
        values = over | {"status": "ready", "result": made.result, "error": None}
        finished = leases.finish_short(session, Plan, plan_id, owner, values)
        if finished and made.measurement is not None:
            _keep(runtime, session, claimed, made.measurement)
        return finished
    if ending.kind == "problem":
        values = over | {"status": "failed", "error": ending.document or {}}
        return leases.finish_short(session, Plan, plan_id, owner, values)
    if ending.kind == "stopped":
        return leases.hand_back_short(session, Plan, plan_id, owner)
    if ending.kind == "lost":
        return leases.lose_short(session, Plan, plan_id, owner, runtime.retries, ending.reason, now)
    return None  # deleted, or somebody else's: nothing of ours to say


def _hold_inputs(session: Session, claimed: Claimed) -> None:
    """Before the plan's row, in the order of a deletion's locks: or each would wait for the other."""
    for table, row_id in ((Model, claimed.plan.model_id), (Dataset, claimed.plan.dataset_id)):
        held = select(table.id).where(table.id == row_id)
        session.execute(held.with_for_update(read=True, key_share=True))


def _keep(runtime: Runtime, session: Session, claimed: Claimed, blob: Blob) -> None:
    lock_object(session, blob.sha256)
    if runtime.store.exists(blob.sha256):  # else let go with another's row since we stored it: measured anew
        dataset_id = claimed.plan.dataset_id
        repository.keep_measurement(
            session, claimed.model.id, claimed.key, dataset_id, blob, runtime.clock.now()
        )


class PlanReporter:
    """Progress of one attempt, for who waits for the first plan of a network."""

    def __init__(self, runtime: Runtime, plan_id: str, owner: str) -> None:
        self._runtime = runtime
        self._ours = (Plan.id == plan_id) & (Plan.lease_owner == owner)
        self._said: ProgressMessage | None = None
        self._written = -FLUSH_SECONDS

    def take(self, said: Said) -> None:
        if isinstance(said, ProgressMessage):
            self._said = said

    def flush(self) -> None:
        if self._said is None or time.monotonic() - self._written < FLUSH_SECONDS:
            return
        self._written = time.monotonic()
        progress = self._said.model_dump(include={"fraction", "message"})
        try:
            with self._runtime.sessions.begin() as session:
                session.execute(update(Plan).where(self._ours).values(progress=progress))
        except SQLAlchemyError as error:
            log.warning("report.delayed", error=type(error).__name__)
            return
        self._said = None
