"""Resumable uploads as JSON shows them. tus clients read the headers instead."""

from typing import Literal

from pydantic import Field

from app.core.schemas import Moment, Shown
from app.uploads.tables import Resumable


class UploadOut(Shown):
    id: str
    object: Literal["upload"] = "upload"
    filename: str
    kind: Literal["model", "dataset"] | None = Field(description="What it will become, where that was said.")
    length: int = Field(description="Of the whole file, in bytes.")
    received: int = Field(description="Bytes that have come: the next PATCH begins here.")
    created_at: Moment
    expires_at: Moment = Field(description="Deleted then, unless it goes on or is used before.")


def show_upload(row: Resumable) -> UploadOut:
    return UploadOut.model_validate(row, from_attributes=True)
