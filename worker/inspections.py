"""Inspection of an upload: claim, child, canonical form into the store, ready or rejected."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import structlog
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.core.errors import Internal, MalformedDataset, MalformedModel, Problem
from app.core.metrics import NO_CODE
from app.core.queue import TaskName
from app.datasets.tables import Dataset
from app.jobs import leases
from app.models.tables import Model
from app.plans.tables import Plan
from app.storage.references import lock_object
from app.storage.watched import Each
from worker import attempt
from worker.heartbeat import Heartbeat
from worker.problems import DISK_WAS_FULL, has_no_room, why_lost
from worker.reporting import SilentReporter
from worker.runtime import Runtime
from worker.sandbox import Policy
from worker.scratch import scratch_folder
from worker.supervisor import Ending

UPLOAD: Final = "upload"
CANONICAL: Final = "canonical"
DATASET_BYTES: Final = 64_000_000_000  # a canonical data set; as much as an archive may unpack to

log = structlog.get_logger(__name__)


class Inspected(BaseModel):
    """What an inspector answers, as far as the database relies on it."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    canonical: str
    details: dict[str, Any] = {}


class InspectedModel(Inspected):
    input: dict[str, Any]
    summary: dict[str, Any]
    layers: Annotated[list[dict[str, Any]], Field(max_length=100_000)]


class InspectedDataset(Inspected):
    examples: dict[str, int]
    classes: int | None
    image: list[int] | None
    labelled: bool


@dataclass(frozen=True)
class Canonical:
    """The safe form, which lies in the store, and what is known of it."""

    path: Path
    sha256: str
    columns: dict[str, Any]


class Inspection(Protocol):
    """The two kinds of inspection."""

    table: leases.Short
    task: TaskName
    answer: type[Inspected]
    malformed: type[Problem]

    def describe(self, row: Any, runtime: Runtime, /) -> dict[str, Any]: ...

    def disk_bytes(self, runtime: Runtime, /) -> int:
        """The most that looking at an upload writes."""
        ...


class _ModelInspection:
    table: leases.Short = Model
    task: TaskName = "worker.inspect_model"
    answer: type[Inspected] = InspectedModel
    malformed: type[Problem] = MalformedModel

    def describe(self, row: Model, runtime: Runtime, /) -> dict[str, Any]:
        return {
            "task": "inspect_model",
            "format": row.format,
            "input": row.requested_input,
            "architecture": row.architecture,
            "max_macs": runtime.settings.max_model_macs,
            "max_values": runtime.settings.max_model_values,
        }

    def disk_bytes(self, runtime: Runtime, /) -> int:
        return 4 * runtime.settings.max_model_bytes + 100_000_000  # upload, canonical form, and room


class _DatasetInspection:
    table: leases.Short = Dataset
    task: TaskName = "worker.inspect_dataset"
    answer: type[Inspected] = InspectedDataset
    malformed: type[Problem] = MalformedDataset

    def describe(self, row: Dataset, runtime: Runtime, /) -> dict[str, Any]:
        return {
            "task": "inspect_dataset",
            "format": row.format,
            "classes": row.requested_classes,
            "max_images": runtime.settings.max_dataset_images,
            "max_image_pixels": runtime.settings.max_image_pixels,
        }

    def disk_bytes(self, runtime: Runtime, /) -> int:
        # upload, the same unpacked, and the canonical form
        return runtime.settings.max_dataset_bytes + 2 * DATASET_BYTES


def inspect_model(runtime: Runtime, model_id: str) -> None:
    _inspect(runtime, model_id, _ModelInspection())


def inspect_dataset(runtime: Runtime, dataset_id: str) -> None:
    _inspect(runtime, dataset_id, _DatasetInspection())


def _inspect(runtime: Runtime, resource_id: str, kind: Inspection) -> None:
    lease = runtime.new_lease()
    row = attempt.in_transaction(
        runtime,
        lambda s: leases.claim_short(s, kind.table, resource_id, lease, runtime.clock.now()),
    )
    if row is None or isinstance(row, Plan):
        log.info("inspection.not_claimed", resource_id=resource_id)
        return
    work = _name(kind)
    attempt.say_started(runtime, work, row)
    ids = structlog.contextvars.bound_contextvars(**{f"{work}_id": resource_id}, attempt=row.attempt)
    with ids, attempt.beating(runtime, kind.table, resource_id, lease) as heartbeat:
        try:
            _attempt(runtime, row, kind, lease.owner, heartbeat)
        except attempt.Halted as halted:
            _end(runtime, row, kind, lease.owner, heartbeat, halted.ending)
        except Exception as error:
            log.exception("inspection.attempt_failed")
            _end(runtime, row, kind, lease.owner, heartbeat, Ending("lost", reason=why_lost(error)))


def _attempt(
    runtime: Runtime, row: Model | Dataset, kind: Inspection, owner: str, heartbeat: Heartbeat
) -> None:
    settings = runtime.settings
    policy = Policy(
        address_bytes=settings.inspection_bytes,
        data_bytes=runtime.memory_bytes,
        file_bytes=kind.disk_bytes(runtime),
        cpu_seconds=int(settings.inspection_seconds * runtime.threads) + 60,
        uid=runtime.uid,
        readable=runtime.readable,
    )
    reporter = SilentReporter()
    with scratch_folder(runtime.scratch_root, row.id) as folder:
        runtime.store.download_to(row.sha256, folder / UPLOAD, attempt.halting(runtime, heartbeat))
        task = kind.describe(row, runtime) | {"file": UPLOAD, "canonical": CANONICAL}
        ending = attempt.run_child(
            runtime,
            folder,
            task,
            policy,
            heartbeat,
            reporter,
            settings.inspection_seconds,
            kind.disk_bytes(runtime),
        )
        canonical = None
        if ending.kind == "lost" and ending.crashed and has_no_room(folder):
            ending = replace(ending, reason=DISK_WAS_FULL)  # a mapped file that cannot grow ends in SIGBUS
        elif ending.kind == "lost" and ending.crashed:
            ending = Ending("problem", _crash(kind, ending.reason, reporter.step).document())
        if ending.kind == "result":
            storing = attempt.storing(runtime, heartbeat)
            ending, canonical = _accept(runtime, folder, kind, ending, storing)
        _end(runtime, row, kind, owner, heartbeat, ending, canonical)


def _crash(kind: Inspection, reason: str, step: str) -> Problem:
    """What makes its reader crash once does so again: another attempt would only take longer."""
    where = f" at the step “{step}”" if step else ""
    return kind.malformed(
        f"The file brings its reader down{where}: {reason}.",
        hint="It is damaged, or made to do that. Make it again from its source and compare the checksums.",
    )


def _accept(
    runtime: Runtime, folder: Path, kind: Inspection, ending: Ending, each: Each
) -> tuple[Ending, Canonical | None]:
    """Check the answer and store the canonical form; it and the columns to write, or a problem."""
    try:
        answer = kind.answer.model_validate(ending.document)
        path = attempt.output(folder, answer.canonical)
        blob = runtime.store.put_file(path, each)
    except (ValueError, Problem) as error:
        log.warning("inspection.bad_answer", error=str(error)[:2000])
        problem = Internal("The inspector gave an answer that cannot be used.").document()
        return Ending("problem", problem), None
    stored = {"canonical_sha256": blob.sha256, "canonical_bytes": blob.bytes}
    return ending, Canonical(path, blob.sha256, stored | answer.model_dump(exclude={"canonical"}))


def _end(
    runtime: Runtime,
    row: Model | Dataset,
    kind: Inspection,
    owner: str,
    heartbeat: Heartbeat,
    ending: Ending,
    canonical: Canonical | None = None,
) -> None:
    def write(session: Session) -> object:
        now = runtime.clock.now()
        match ending.kind:
            case "result" if canonical is not None:
                lock_object(session, canonical.sha256)
                if not runtime.store.exists(canonical.sha256):  # deleted with its last row since we stored it
                    runtime.store.put_file(canonical.path)
                columns = canonical.columns | {"status": "ready", "error": None}
                return leases.finish_short(session, kind.table, row.id, owner, columns)
            case "problem":
                error = attempt.as_inspection_problem(ending.document or {})
                columns = {"status": "rejected", "error": error}
                return leases.finish_short(session, kind.table, row.id, owner, columns)
            case "stopped":
                return leases.hand_back_short(session, kind.table, row.id, owner)
            case "lost":
                return leases.lose_short(
                    session, kind.table, row.id, owner, runtime.retries, ending.reason, now
                )
            case _:
                return None  # deleted, or somebody else's: nothing of ours to say

    outcome = attempt.in_transaction(runtime, write, attempt.until_stopped(runtime))
    log.info("inspection.ended", ending=ending.kind, outcome=str(outcome), code=attempt.code_of(ending))
    _count(runtime, kind, ending, outcome, heartbeat.seconds())
    if ending.kind == "stopped" and outcome:
        runtime.doorbell.ring(kind.task, row.id)


def _name(kind: Inspection) -> str:
    """`model` or `dataset`: as ids and figures name it."""
    return kind.table.__tablename__.removesuffix("s")


def _count(runtime: Runtime, kind: Inspection, ending: Ending, outcome: object, seconds: float) -> None:
    work = runtime.telemetry.work
    work.attempt_ended(_name(kind), ending.kind, seconds)
    rejected = (ending.kind == "problem" and outcome) or outcome == "rejected"
    if rejected:
        work.inspections_ended.labels(_name(kind), "rejected", attempt.code_of(ending)).inc()
    elif ending.kind == "result" and outcome:
        work.inspections_ended.labels(_name(kind), "ready", NO_CODE).inc()
