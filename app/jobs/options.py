"""One model of what a job is asked to do, for the API, the command line and the worker.

Field names and meanings are the REST contract's. Unknown fields are refused with their place.
"""

import json
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from app.core.schemas import Name, storable

METADATA_BYTES: Final = 16_000

Fraction = Annotated[float, Field(gt=0, le=1)]
Rank = Annotated[int, Field(ge=1)]
PairForm = Literal["basis", "kx1_1xk", "1xk_kx1"]
ExportFormat = Literal["onnx", "pt2", "safetensors"]
TargetKind = Literal[
    "macs", "params", "latency", "accuracy_drop", "energy", "rank_fraction", "expansion", "ranks"
]
MOST_EXPANSION: Final = 16


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LayerForm(Options):
    """What one layer shall become, where a rank alone does not say it."""

    form: PairForm | Literal["dense"] = Field(
        "basis", description="dense: the layer stays whole, but is refitted as the layers under a budget are."
    )
    rank: Rank | None = None

    @model_validator(mode="after")
    def rank_of_a_pair(self) -> "LayerForm":
        if (self.rank is None) != (self.form == "dense"):
            raise ValueError("every form needs a `rank`, except `dense`, which has none")
        return self


def _number_as_rank(value: Any) -> Any:
    """A bare number is a rank of the paper's form."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError(f"a rank is at least 1, not {value}")
        return {"rank": value}
    return value


def _rank_as_number(asked: LayerForm) -> int | dict[str, Any]:
    return asked.rank if asked.form == "basis" and asked.rank else asked.model_dump()


LayerRank = Annotated[
    LayerForm,
    BeforeValidator(_number_as_rank, json_schema_input_type=Rank | LayerForm),
    PlainSerializer(_rank_as_number, return_type=int | dict[str, Any]),
]


class Target(Options):
    """Exactly one wish: how small, how fast, how accurate, or which ranks."""

    macs: Fraction | None = Field(
        None, description="At most this share of the network's multiply-accumulates."
    )
    params: Fraction | None = Field(
        None, description="At most this share of the network's stored parameters."
    )
    latency: Fraction | None = Field(
        None,
        description="At most this share of the network's measured time on the worker, on its CPU unless "
        "`BASISCONV_LATENCY_DEVICE` is `cuda`: ONNX in ONNX Runtime, .pt2 in torch, one image at once (or "
        "the batch size baked into the file).",
    )
    accuracy_drop: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="Lose at most this much accuracy; 0.01 is one point."
    )
    energy: Fraction | None = Field(None, description="The paper's threshold t: energy kept in every layer.")
    rank_fraction: Fraction | None = Field(None, description="This share of every layer's full rank.")
    expansion: Annotated[float, Field(gt=0, le=MOST_EXPANSION)] | None = Field(
        None,
        description="Kind train: this many fixed filters per output channel; above full rank they come in "
        "several orthogonal blocks.",
    )
    ranks: dict[str, LayerRank] | None = Field(
        None,
        description="The rank of each named layer, in the paper's form unless it names another; others stay.",
    )

    @model_validator(mode="after")
    def exactly_one(self) -> "Target":
        given = self.model_fields_set & {n for n in type(self).model_fields if getattr(self, n) is not None}
        if len(given) != 1:
            said = ", ".join(sorted(given)) or "none"
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}; got {said}")
        return self

    @property
    def kind(self) -> TargetKind:
        kinds: tuple[TargetKind, ...] = get_args(TargetKind)
        return next(kind for kind in kinds if getattr(self, kind) is not None)

    @property
    def value(self) -> float | dict[str, LayerForm]:
        value: float | dict[str, LayerForm] = getattr(self, self.kind)
        return value


class LayerFilter(Options):
    """fnmatch patterns over layer names; exclude wins."""

    include: list[str] = Field(
        ["*"], min_length=1, max_length=1000, description="Only layers that match one of these."
    )
    exclude: list[str] = Field([], max_length=1000, description="Not the layers that match one of these.")


class Compression(Options):
    basis: Literal["activations", "weights", "random"] | None = Field(
        None,
        description="Where the basis comes from; left out: random for kind train, else activations. Without "
        "a data set these are measured on images made from the network's own batch-norm statistics. weights: "
        "the paper. random: fixed orthogonal filters, kept as a seed.",
    )
    target: Target
    forms: Literal["basis", "auto"] | None = Field(
        None, description="basis: always kxk then 1x1. auto: the cheapest two-convolution form per layer."
    )
    layers: LayerFilter = LayerFilter()
    rank_multiple: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="Only ranks that are multiples of this, as some processors like them."
    )


class Training(Options):
    epochs: Annotated[int, Field(ge=0, le=1000)] = Field(
        0, description="Passes over the train images; 0: no training."
    )
    update: Literal["mixing", "all"] = Field(
        "all",
        description="mixing: the basis stays frozen, as in the paper (always so for kind train). all: the "
        "basis learns too.",
    )
    objective: Literal["labels", "distill", "both"] = Field(
        "distill", description="Kind train learns from labels always."
    )
    batch_size: Annotated[int, Field(ge=1, le=4096)] = Field(128, description="Images in a step.")
    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = Field(
        None,
        description="Peak learning rate; left out: chosen by short trials on held-back images. In kind "
        "compress it is AdamW's for weights of root mean square 0.1, larger and smaller ones in proportion.",
    )
    augment: Literal["flip_crop", "none"] = Field(
        "flip_crop",
        description="flip_crop: images mirrored and cropped at random, in kind compress from the second "
        "epoch on; there the objective distill also pastes boxes of one image into another, which the "
        "original answers too, and with labels the original is asked about both sides of each image. none: "
        "for images whose mirror image means something else.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        0, description="Of everything random in the training."
    )
    patience: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None,
        description="End the training after so many epochs in a row that brought nothing better on images "
        "held back from it; left out: go on to the last.",
    )


class Limits(Options):
    accuracy_drop: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="Judged on the test images at the end; training ends early once images held back from "
        "it say that no more is lost.",
    )
    learnable_params: Fraction | None = Field(
        None,
        description="At most this share of the network's parameters may be left to learn. Kind train keeps "
        "to it beside a target of macs or params; otherwise it is judged at the end.",
    )


class JobOptions(Options):
    """What is frozen in the job's row and handed to the worker."""

    kind: Literal["compress", "train"] = Field(
        "compress",
        description="train: the network's structure is trained from scratch with fixed random filters; its "
        "weights are not used. Needs labelled images and at least one epoch.",
    )
    compression: Compression
    training: Training = Training()
    limits: Limits = Limits()
    exports: list[ExportFormat] = Field(
        ["onnx", "pt2", "safetensors"], min_length=1, max_length=3, description="Files to make."
    )

    @field_validator("exports")
    @classmethod
    def no_repeats(cls, exports: list[ExportFormat]) -> list[ExportFormat]:
        if len(set(exports)) != len(exports):
            raise ValueError("names a format twice")
        return exports


class JobCreate(JobOptions):
    """The body of ``POST /v1/jobs``."""

    model: str = Field(description="The network, `model_…`; it must be ready.")
    dataset: str | None = Field(
        None, description="The images, `dataset_…`; left out, what needs none is possible."
    )
    name: Name | None = None
    metadata: dict[str, Any] = Field({}, description="Yours; given back as it was, at most 16 kB of JSON.")

    @model_validator(mode="before")
    @classmethod
    def can_be_stored(cls, body: Any) -> Any:
        return storable(body)

    @field_validator("metadata")
    @classmethod
    def is_small(cls, metadata: dict[str, Any]) -> dict[str, Any]:
        size = len(json.dumps(metadata, ensure_ascii=False).encode())
        if size > METADATA_BYTES:
            raise ValueError(f"has {size:,} bytes of JSON; at most {METADATA_BYTES:,} are kept")
        return metadata

    def options(self) -> JobOptions:
        return JobOptions.model_validate(self.model_dump(include=set(JobOptions.model_fields)))
