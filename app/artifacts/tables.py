"""Files that a job made. The row is written after its object, so a visible artifact always has its bytes."""

from datetime import datetime

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base


class Artifact(Base):
    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("job_id", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str] = mapped_column(index=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    format: Mapped[str]  # onnx | pt2 | safetensors | recipe | report
    name: Mapped[str]  # the file's name for the user
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(index=True)
    media_type: Mapped[str]
    created_at: Mapped[datetime]
