"""Plans as the contract shows them."""

from typing import Any, Literal

from pydantic import Field, model_validator

from app.core.schemas import Moment, ProblemDocument, Shown, storable
from app.jobs.options import Compression, LayerRank, Options
from app.jobs.schemas import Measured, Warned
from app.plans.tables import Plan


class PlanCreate(Options):
    """The body of ``POST /v1/plans``."""

    model: str = Field(description="The network, `model_…`; it must be ready.")
    dataset: str | None = Field(None, description="The images, `dataset_…`, that it is measured on.")
    compression: Compression

    @model_validator(mode="before")
    @classmethod
    def can_be_stored(cls, body: Any) -> Any:
        return storable(body)


class PlanProgress(Measured):
    fraction: float = 0.0
    message: str = ""


class Size(Measured):
    macs: int
    params: int


class Predicted(Size):
    """The smaller network. Macs and params are exact; the rest is expected, before any fine-tuning.

    Expected of images such as those that were measured on; null where nothing was measured
    (basis `weights`) or the network scores no classes.
    """

    error: float | None = Field(
        None, description="Square of what the outputs will be off by, as a share of the outputs' own square."
    )
    agreement: float | None = Field(None, description="Share of images with the same top-1 as the original.")
    accuracy_drop: float | None = Field(
        None, description="Accuracy that will be lost, 0.01 is one point; null without labels."
    )


class CurvePoint(Measured):
    """One thing that a layer could become."""

    form: str
    rank: int | None
    macs: int
    params: int
    harm: float


class PlannedLayer(Measured):
    name: str
    kind: str
    form: str = Field(description="`dense`: the layer stays.")
    rank: int | None
    max_rank: int | None = Field(description="Of this form, or of the paper's while the layer stays.")
    replaced: bool
    reason: str | None
    macs: int
    params: int
    macs_before: int
    params_before: int
    harm: float = Field(
        description="What this layer alone adds to the outputs' squared error, as a share of their square; "
        "with basis `weights` the share of its filters' energy that is lost."
    )
    sensitivity: list[CurvePoint] | None = Field(
        None,
        description="Its least harm at about 20 sizes, the smallest first, the layer itself last; null in "
        "lists and for layers that cannot become cheaper.",
    )


class Achievable(Measured):
    """The smallest shares that the layers left open allow."""

    macs: float
    params: float


class PlanOut(Shown):
    id: str
    object: Literal["plan"] = "plan"
    model: str
    dataset: str | None
    compression: Compression
    status: Literal["queued", "ready", "failed"]
    progress: PlanProgress
    error: ProblemDocument | None
    feasible: bool | None = Field(description="False: no network meets the target; the smallest is shown.")
    achievable: float | None = Field(
        description="The smallest share of the target's own quantity; null for targets that are no budget."
    )
    limits: Achievable | None
    original: Size | None
    predicted: Predicted | None
    layers: list[PlannedLayer]
    ranks: dict[str, LayerRank] | None = Field(
        description="The plan as a job's `target.ranks`: sent so, also edited, the job makes just that."
    )
    warnings: list[Warned]
    created_at: Moment
    finished_at: Moment | None


def show_plan(plan: Plan, *, curves: bool = True) -> PlanOut:
    found = plan.result or {}
    layers = found.get("layers", [])
    if not curves:
        layers = [layer | {"sensitivity": None} for layer in layers]
    return PlanOut.model_validate(
        {
            "id": plan.id,
            "model": plan.model_id,
            "dataset": plan.dataset_id,
            "compression": plan.compression,
            "status": plan.status,
            "progress": plan.progress,
            "error": plan.error,
            "feasible": found.get("feasible"),
            "achievable": found.get("achievable"),
            "limits": found.get("limits"),
            "original": found.get("original"),
            "predicted": found.get("predicted"),
            "layers": layers,
            "ranks": found.get("ranks"),
            "warnings": found.get("warnings", []),
            "created_at": plan.created_at,
            "finished_at": plan.finished_at,
        }
    )


def show_row(plan: Plan) -> PlanOut:
    """For lists, which would be long with every layer's curve."""
    return show_plan(plan, curves=False)
