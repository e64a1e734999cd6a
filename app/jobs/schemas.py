"""Jobs, events and metrics as the contract shows them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.core.schemas import Moment, ProblemDocument, Shown
from app.jobs.options import Compression, ExportFormat, JobOptions, Limits, Training
from app.jobs.states import JobStatus, Stage
from app.jobs.tables import Job, JobEvent

EventKind = Literal["stage", "progress", "metric", "warning", "error", "done"]


class Measured(BaseModel):
    """What the worker reports; it may say more than is listed here."""

    model_config = ConfigDict(extra="allow")


class Progress(Measured):
    fraction: float = 0.0
    epoch: int | None = None
    eta_seconds: float | None = None


class Warned(Measured):
    code: str
    detail: str


class Figures(Measured):
    """One network, measured. Accuracies are null without labels; agreement is with the original.

    `params` are all that the network computes with; `learnable_params` what learns beside a frozen basis: of
    kind train, all that the safetensors file holds.
    """

    accuracy: float | None = None
    agreement: float | None = None
    macs: int
    params: int
    learnable_params: int | None = None
    bytes: int | None = None
    latency_ms: dict[str, float | None] | None = Field(
        None, description="Median by batch size; null at sizes that the file does not take."
    )
    latency_spread_ms: dict[str, float | None] | None = Field(
        None, description="Half the range of the middle 50 % of the same measurements."
    )


class LayerResult(Measured):
    name: str
    form: str | None = None
    rank: int | None = None
    replaced: bool
    reason: str | None = None
    error: float | None = None


class ExportResult(Measured):
    format: str
    artifact: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    max_abs_diff: float | None = None
    accuracy: float | None = None
    agreement: float | None = None


class TryResult(Measured):
    """One network that was fitted on the way to a target on accuracy."""

    share: float = Field(description="Of the operations, at most, that it was allowed.")
    macs: int
    loss: float = Field(description="Foretold loss of accuracy, by train images held back from calibration.")
    passed: bool


class SearchResult(Measured):
    """How the size was found where the target is a loss of accuracy; `share` is null if nothing passed."""

    allowed: float
    held_back_images: int
    tries: list[TryResult]
    share: float | None
    expected_loss: float | None


class Tuning(Measured):
    """What fine-tuning chose on train images that it held back; losses are the objective's on them."""

    held_back_images: int
    epochs: int = Field(description="Epochs that were run.")
    kept_epoch: int | None = Field(description="Whose network was kept; 0: the untuned one.")
    stopped: Literal["accuracy_drop", "patience"] | None = Field(description="Why before the last epoch.")
    learning_rate: float | None = Field(description="The peak.")
    batch_norm: Literal["keep", "follow"]
    batch_norm_reestimated: bool
    loss_before: float | None
    loss_kept: float | None


class SyntheticImages(Measured):
    """What a job without a data set was measured on instead: images made from the network itself."""

    calibration_images: int
    batch_norms: int = Field(description="Whose statistics the images were fitted to; 0: plain noise.")
    held_back_images: int
    expected_agreement: float | None = Field(
        None,
        description="Share of equal top-1 with the original on the images held back; not an accuracy.",
    )
    expected_agreement_db: dict[str, float] | None = None


class JobResult(Measured):
    original: Figures = Field(description="The network as it was uploaded; kind train uses no weight of it.")
    truncated: Figures | None = Field(
        None, description="Right after decomposition, before any tuning; of kind train, the untrained start."
    )
    compressed: Figures
    target_met: bool
    device: str
    latency_device: str | None = Field(
        None,
        description="Where the networks were timed: `cpu` or `cuda`. Results of earlier versions, all timed "
        "on the CPU, do not say.",
    )
    latency_repeats: dict[str, int] | None = Field(
        None, description="How often each network was timed, by batch size, the two in turns."
    )
    versions: dict[str, str] | None = Field(None, description="Of the worker's Python and libraries.")
    seconds: dict[str, float]
    peak_bytes: dict[str, int] | None = Field(
        None, description="The most memory of the machine that each stage held at once."
    )
    peak_device_bytes: dict[str, int] | None = Field(
        None, description="The same of the GPU's memory, where the job computed on one."
    )
    search: SearchResult | None = None
    tuning: Tuning | None = None
    synthetic: SyntheticImages | None = Field(
        None, description="Not null: no images were given, and these stood in for them."
    )
    layers: list[LayerResult]
    exports: list[ExportResult]


class JobOut(Shown):
    id: str
    object: Literal["job"] = "job"
    kind: Literal["compress", "train"]
    name: str | None
    model: str
    dataset: str | None
    compression: Compression
    training: Training
    limits: Limits
    exports: list[ExportFormat]
    metadata: dict[str, Any]
    status: JobStatus
    stage: Stage | None
    progress: Progress
    attempt: int
    error: ProblemDocument | None
    warnings: list[Warned]
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    batch: str | None
    result: JobResult | None


class EventOut(Shown):
    id: str
    seq: int
    type: EventKind
    stage: str | None
    message: str
    data: dict[str, Any]
    created_at: Moment


class MetricPoint(Shown):
    step: int
    value: float
    at: Moment


def show_job(job: Job) -> JobOut:
    options = JobOptions.model_validate(job.options)
    return JobOut.model_validate(
        {
            "id": job.id,
            "name": job.name,
            "model": job.model_id,
            "dataset": job.dataset_id,
            **{name: getattr(options, name) for name in JobOptions.model_fields},  # checked just now
            "metadata": job.annotations,
            "status": job.status,
            "stage": job.stage,
            "progress": job.progress,
            "attempt": job.attempt,
            "error": job.error,
            "warnings": job.warnings,
            "created_at": job.created_at,
            "started_at": job.started_at,
            "finished_at": job.finished_at,
            "batch": job.batch_id,
            "result": job.result,
        }
    )


def show_event(event: JobEvent) -> EventOut:
    return EventOut.model_validate(event, from_attributes=True)
