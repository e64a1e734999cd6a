"""Uploads that may come in several requests: how far each is, and where its pieces lie."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base


class Resumable(Base):
    __tablename__ = "uploads"
    __table_args__ = (Index("ix_uploads_owner_id_id", "owner_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str]
    kind: Mapped[str | None]  # model | dataset, where the client said what it will become
    filename: Mapped[str]
    metadata_header: Mapped[str]  # Upload-Metadata as it came
    length: Mapped[int]
    received: Mapped[int] = mapped_column(default=0, server_default="0")
    expected_sha256: Mapped[str | None]  # of the whole file, where the client gave it
    sha256: Mapped[str | None]  # measured, where one process saw all bytes pass
    writer: Mapped[str | None]  # token of the one request that may write
    writer_until: Mapped[datetime | None]  # silent for longer, and another request may take over
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class UploadPiece(Base):
    __tablename__ = "upload_pieces"

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True)
    start: Mapped[int] = mapped_column(primary_key=True)
    bytes: Mapped[int]
    key: Mapped[str]  # of its object in the store
