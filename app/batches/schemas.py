"""Batches as the contract shows them."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.batches.states import BatchStatus
from app.batches.tables import Batch
from app.core.schemas import Moment, Name, Shown, Storable

OnError = Literal["abort", "skip"]
ON_ERROR = "abort: one line that is not valid, and none is started. skip: the others are."


class BatchCreate(BaseModel):
    """The JSON body of ``POST /v1/batches``: a list of jobs, or a grid."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    jobs: list[Any] | None = Field(None, description="Bodies as POST /v1/jobs takes them.")
    models: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="Networks; each is tried with every combination of the grid's values."
    )
    grid: Annotated[dict[str, Any], Storable] = Field(
        {}, description='Places in the job\'s body and values: {"compression.target.macs": [0.3, 0.5]}.'
    )
    base: Annotated[dict[str, Any], Storable] = Field(
        {}, description="What all jobs of the grid share: a job's body without `model`."
    )
    name: Name | None = None
    on_error: OnError | None = Field(None, description=ON_ERROR + " Left out: abort.")

    @model_validator(mode="after")
    def one_way(self) -> Self:
        if (self.jobs is None) == (self.models is None):
            raise ValueError("give either `jobs` or `models`")
        if self.jobs is not None and (self.grid or self.base):
            raise ValueError("`grid` and `base` go with `models`, not with `jobs`")
        return self


class Counts(Shown):
    """Jobs by status; those being cancelled still run. Deleted jobs are in `total` alone."""

    total: int
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    invalid: int


class LineError(Shown):
    """Why a line did not become a job."""

    line: int = Field(description="From 1: of the file, of `jobs`, or of the grid's combinations.")
    code: str
    detail: str
    pointer: str | None = Field(None, description="JSON pointer into the body, or into the line of a file.")


class BatchOut(Shown):
    id: str
    object: Literal["batch"] = "batch"
    name: str | None
    status: BatchStatus
    on_error: OnError
    counts: Counts
    errors: list[LineError] = Field(description="Of invalid lines, the first hundred.")
    created_at: Moment
    finished_at: Moment | None


def show_batch(batch: Batch, by_status: dict[str, int]) -> BatchOut:
    counts = {status: by_status.get(status, 0) for status in ("queued", "succeeded", "failed", "cancelled")}
    running = by_status.get("running", 0) + by_status.get("cancelling", 0)
    return BatchOut.model_validate(
        {
            "id": batch.id,
            "name": batch.name,
            "status": batch.status,
            "on_error": batch.on_error,
            "counts": counts | {"total": batch.total, "invalid": batch.invalid, "running": running},
            "errors": batch.errors,
            "created_at": batch.created_at,
            "finished_at": batch.finished_at,
        }
    )
