"""Uploaded data sets."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base
from app.core.leases import Leased


class Dataset(Leased, Base):
    __tablename__ = "datasets"
    __table_args__ = (Index("ix_datasets_owner_id_id", "owner_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str]
    name: Mapped[str]
    format: Mapped[str]  # npz | images (zip or tar of class folders) | parquet
    status: Mapped[str] = mapped_column(index=True)  # inspecting | ready | rejected
    error: Mapped[dict[str, Any] | None]
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(index=True)
    requested_classes: Mapped[dict[str, Any] | None]  # {"folder name": index}, as given
    # Written by the inspector:
    canonical_sha256: Mapped[str | None] = mapped_column(index=True)
    canonical_bytes: Mapped[int | None]
    examples: Mapped[dict[str, Any] | None]  # {"train": n, "test": n}
    classes: Mapped[int | None]
    image: Mapped[list[int] | None]  # [H, W, C]; null where sizes are mixed
    labelled: Mapped[bool | None]
    details: Mapped[dict[str, Any] | None]  # class names, size range, kind (uint8 | float32 | encoded) …
    created_at: Mapped[datetime]
