"""Uploaded networks."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base
from app.core.leases import Leased


class Model(Leased, Base):
    __tablename__ = "models"
    __table_args__ = (Index("ix_models_owner_id_id", "owner_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str]
    name: Mapped[str]
    format: Mapped[str]  # onnx | pt2 | huggingface | weights
    architecture: Mapped[str | None]
    status: Mapped[str] = mapped_column(index=True)  # inspecting | ready | rejected
    error: Mapped[dict[str, Any] | None]  # a problem document
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(index=True)  # of the uploaded file = its object's address
    requested_input: Mapped[dict[str, Any]]  # what the uploader said of the input, as given
    # Written by the inspector:
    canonical_sha256: Mapped[str | None] = mapped_column(
        index=True
    )  # the safe form that everything later reads
    canonical_bytes: Mapped[int | None]
    input: Mapped[dict[str, Any] | None]  # api.md's Model.input, complete
    summary: Mapped[dict[str, Any] | None]  # macs, params, layers, compressible, outputs
    layers: Mapped[list[dict[str, Any]] | None]  # api.md's Layer, in the order of execution
    details: Mapped[dict[str, Any] | None]  # batch (null = any, else the baked-in size), input name, opset …
    created_at: Mapped[datetime]
