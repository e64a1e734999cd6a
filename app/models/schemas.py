"""Uploaded networks as the contract shows them, and what an uploader may say of the input."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.core.schemas import Moment, Name, ProblemDocument, Shown
from app.models.tables import Model
from app.uploads.body import FromUpload

Side = Annotated[int, Field(ge=1, le=65_536)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class InputRequest(BaseModel):
    """The form field `input`: how pixels become the network's input. What is left out comes from the file."""

    model_config = ConfigDict(extra="forbid")

    shape: Annotated[list[Side], Field(min_length=3, max_length=3, description="C, H, W")] | None = None
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="Pixels are divided by it first; left out: 255."
    )
    mean: Annotated[list[Finite], Field(min_length=1, max_length=65_536)] | None = Field(
        None, description="Taken off each channel then; left out: 0."
    )
    std: (
        Annotated[
            list[Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(min_length=1, max_length=65_536)
        ]
        | None
    ) = Field(None, description="Each channel is divided by it at last; left out: 1.")
    layout: Literal["NCHW", "NHWC"] | None = Field(
        None,
        description="Order of the axes in the file; left out, the file tells. Never of `shape`.",
    )
    resize: Side | None = Field(None, description="Length of the shorter side before the crop.")
    crop: Side | None = Field(None, description="Side of the centre crop.")
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = Field(
        None, description="How images are resized; left out: bilinear."
    )

    @model_validator(mode="after")
    def one_value_per_channel(self) -> Self:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if self.shape and values and len(values) != self.shape[0]:
                raise ValueError(
                    f"`{name}` has {len(values)} values for {self.shape[0]} channels (shape {self.shape})"
                )
        if self.mean and self.std and len(self.mean) != len(self.std):
            raise ValueError(f"`mean` has {len(self.mean)} values and `std` {len(self.std)}")
        return self


class ModelWishes(BaseModel):
    """What an uploader may say of a network beside its file."""

    name: Name | None = None
    input: InputRequest = Field(
        InputRequest(), description="How pixels become the input: shape, scale, mean, std, resize …"
    )
    architecture: Name | None = Field(
        None, description="For a file of weights alone: one of GET /v1/architectures."
    )


class ModelFromUpload(FromUpload, ModelWishes):
    """A resumable upload as a network."""


class ModelInput(Shown):
    shape: list[int]
    scale: float
    mean: list[float]
    std: list[float]
    layout: str
    resize: int | None
    crop: int | None
    interpolation: str


class ModelSummary(Shown):
    macs: int
    params: int
    layers: int
    compressible: int
    outputs: list[int]


LayerKind = Literal[
    "conv2d", "linear", "conv1d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"
]


class LayerOut(Shown):
    """One convolution or linear layer; its name is what `layers` and `ranks` of a job speak of."""

    model_config = ConfigDict(extra="allow")

    name: str
    kind: LayerKind
    in_channels: int
    out_channels: int
    kernel_size: list[int]
    stride: list[int]
    groups: int
    output_size: list[int]
    macs: int
    params: int
    max_rank: int
    break_even_rank: int | None
    compressible: bool
    reason: str | None


class ModelOut(Shown):
    id: str
    object: Literal["model"] = "model"
    name: str
    format: str
    architecture: str | None
    bytes: int
    sha256: str
    status: Literal["inspecting", "ready", "rejected"]
    error: ProblemDocument | None
    input: ModelInput | None = Field(description="Complete once the network is ready.")
    summary: ModelSummary | None
    details: dict[str, Any] | None = Field(description="Batch size in the file, input name, opset …")
    created_at: Moment


def show_model(model: Model) -> ModelOut:
    return ModelOut.model_validate(model, from_attributes=True)
