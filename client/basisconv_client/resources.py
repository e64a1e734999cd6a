"""What the service shows, typed. What a newer server adds is kept as an attribute of that name."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Json = dict[str, Any]
Status = str  # a newer server may know more of them than this client

ENDED = frozenset({"succeeded", "failed", "cancelled"})


class Resource(BaseModel):
    """One JSON object of the service."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def json_object(self) -> Json:
        """The object as plain JSON values."""
        return self.model_dump(mode="json")


class Input(Resource):
    """How pixels become the network's input."""

    shape: list[int] | None = None
    scale: float | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    layout: str | None = None
    resize: int | None = None
    crop: int | None = None
    interpolation: str | None = None


class Summary(Resource):
    macs: int
    params: int
    layers: int
    compressible: int
    outputs: list[int] = []


class Model(Resource):
    """An uploaded network."""

    id: str
    name: str
    format: str
    status: Status
    bytes: int
    sha256: str
    architecture: str | None = None
    error: Json | None = None
    input: Input | None = None
    summary: Summary | None = None
    details: Json | None = None
    created_at: datetime


class Layer(Resource):
    """A convolution or linear layer of a network."""

    name: str
    kind: str
    in_channels: int
    out_channels: int
    kernel_size: list[int]
    macs: int
    params: int
    max_rank: int
    break_even_rank: int | None = None
    compressible: bool
    reason: str | None = None


class Examples(Resource):
    train: int
    test: int


class Dataset(Resource):
    """Uploaded images."""

    id: str
    name: str
    status: Status
    bytes: int
    sha256: str
    error: Json | None = None
    examples: Examples | None = None
    classes: int | None = None
    image: list[int] | None = None
    labelled: bool | None = None
    details: Json | None = None
    created_at: datetime


class Figures(Resource):
    """One network, measured."""

    accuracy: float | None = None
    agreement: float | None = None
    macs: int
    params: int
    learnable_params: int | None = None
    bytes: int | None = None
    latency_ms: dict[str, float | None] | None = None


class LayerResult(Resource):
    name: str
    form: str | None = None
    rank: int | None = None
    replaced: bool
    reason: str | None = None
    error: float | None = None


class Result(Resource):
    """What came of a job."""

    original: Figures
    truncated: Figures | None = None
    compressed: Figures
    target_met: bool
    device: str
    seconds: dict[str, float] = {}
    layers: list[LayerResult] = []
    exports: list[Json] = []


class Warned(Resource):
    code: str
    detail: str


class Progress(Resource):
    fraction: float = 0.0
    epoch: int | None = None
    eta_seconds: float | None = None


class Job(Resource):
    id: str
    kind: str
    name: str | None = None
    model: str
    dataset: str | None = None
    status: Status
    stage: str | None = None
    progress: Progress = Progress()
    attempt: int = 0
    error: Json | None = None
    warnings: list[Warned] = []
    batch: str | None = None
    result: Result | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class Event(Resource):
    """One event of a job, in order of `seq`."""

    id: str
    seq: int
    type: str
    stage: str | None = None
    message: str = ""
    data: Json = {}


class Point(Resource):
    """One measured value of a series."""

    step: int
    value: float


class Artifact(Resource):
    """A file that a job made."""

    id: str
    job: str
    format: str
    name: str
    bytes: int
    sha256: str
    media_type: str = "application/octet-stream"


class PlannedLayer(Resource):
    name: str
    form: str
    rank: int | None = None
    replaced: bool
    reason: str | None = None
    macs: int
    macs_before: int


class Plan(Resource):
    """What a job would choose, and what to expect of it."""

    id: str
    model: str
    dataset: str | None = None
    status: Status
    error: Json | None = None
    feasible: bool | None = None
    achievable: float | None = None
    limits: dict[str, float] | None = None
    original: Json | None = None
    predicted: Json | None = None
    layers: list[PlannedLayer] = []
    ranks: Json | None = None
    warnings: list[Warned] = []


class Upload(Resource):
    """A resumable upload that has not become anything yet."""

    id: str
    filename: str
    kind: Literal["model", "dataset"] | None = None
    length: int
    received: int


class Batch(Resource):
    """Many jobs as one."""

    id: str
    name: str | None = None
    status: Status
    counts: dict[str, int] = Field(default_factory=dict)
    errors: list[Json] = []
    created_at: datetime | None = None

    @property
    def ended(self) -> bool:
        return self.status not in ("running", "cancelling")

    @property
    def went_well(self) -> bool:
        """Every line became a job, and every job succeeded."""
        return self.counts.get("succeeded", 0) == self.counts.get("total", 0)
