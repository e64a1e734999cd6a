"""Artifacts as the contract shows them."""

from typing import Literal

from app.artifacts.tables import Artifact
from app.core.schemas import Moment, Shown


class ArtifactOut(Shown):
    id: str
    object: Literal["artifact"] = "artifact"
    job: str
    format: str
    name: str
    bytes: int
    sha256: str
    media_type: str
    created_at: Moment


def show_artifact(artifact: Artifact) -> ArtifactOut:
    names = ("id", "format", "name", "bytes", "sha256", "media_type", "created_at")
    return ArtifactOut.model_validate(
        {name: getattr(artifact, name) for name in names} | {"job": artifact.job_id}
    )
