"""Data sets as the contract shows them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, RootModel

from app.core.schemas import Moment, Name, ProblemDocument, Shown
from app.datasets.tables import Dataset
from app.uploads.body import FromUpload

ClassIndex = Annotated[int, Field(ge=0, lt=1_000_000)]
FolderName = Annotated[str, Field(min_length=1, max_length=255)]


class ClassMap(RootModel[Annotated[dict[FolderName, ClassIndex], Field(max_length=100_000)]]):
    """The form field `classes`: which output each class folder, or class name of a table, stands for."""


class DatasetWishes(BaseModel):
    """What an uploader may say of a data set beside its file."""

    name: Name | None = None
    classes: ClassMap | None = Field(
        None,
        description='{"folder or class name": index}; left out: as the table says, else in sorted order.',
    )


class DatasetFromUpload(FromUpload, DatasetWishes):
    """A resumable upload as a data set."""


class ExampleCounts(Shown):
    train: int
    test: int


class DatasetOut(Shown):
    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    format: str
    bytes: int
    sha256: str
    status: Literal["inspecting", "ready", "rejected"]
    error: ProblemDocument | None
    examples: ExampleCounts | None
    classes: int | None
    image: list[int] | None = Field(description="H, W, C; null where sizes are mixed.")
    labelled: bool | None
    details: dict[str, Any] | None
    created_at: Moment


def show_dataset(dataset: Dataset) -> DatasetOut:
    return DatasetOut.model_validate(dataset, from_attributes=True)
