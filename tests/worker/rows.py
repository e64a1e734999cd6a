"""Rows that a worker test needs, written as the web process writes them."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from app.core.ids import new_id
from app.datasets.tables import Dataset
from app.jobs.states import JobStatus
from app.jobs.tables import Job
from app.models.tables import Model
from app.plans.tables import Plan

OWNER = "owner_00000000000000000000000000"
INPUT = {"shape": [3, 16, 16], "scale": 255, "mean": [0.0] * 3, "std": [1.0] * 3, "layout": "NCHW"}


def now() -> datetime:
    return datetime.now(UTC)


def add_model(sessions: sessionmaker[Session], sha256: str, **columns: Any) -> str:
    """A model whose upload is an object of the store; ready and its own canonical form unless told."""
    values: dict[str, Any] = {
        "id": new_id("model", now()),
        "owner_id": OWNER,
        "name": "net",
        "format": "onnx",
        "status": "ready",
        "bytes": 100,
        "sha256": sha256,
        "requested_input": {},
        "canonical_sha256": sha256,
        "input": INPUT,
        "summary": {},
        "layers": [],
        "details": {},
        "created_at": now(),
    }
    return _add(sessions, Model(**values | columns))


def add_dataset(sessions: sessionmaker[Session], sha256: str, **columns: Any) -> str:
    values: dict[str, Any] = {
        "id": new_id("dataset", now()),
        "owner_id": OWNER,
        "name": "images",
        "format": "npz",
        "status": "ready",
        "bytes": 100,
        "sha256": sha256,
        "canonical_sha256": sha256,
        "labelled": True,
        "created_at": now(),
    }
    return _add(sessions, Dataset(**values | columns))


def add_job(sessions: sessionmaker[Session], model_id: str, **columns: Any) -> str:
    values: dict[str, Any] = {
        "id": new_id("job", now()),
        "owner_id": OWNER,
        "kind": "compress",
        "model_id": model_id,
        "options": {"compression": {"target": {"macs": 0.5}}},
        "annotations": {},
        "status": JobStatus.QUEUED,
        "progress": {},
        "warnings": [],
        "created_at": now(),
    }
    return _add(sessions, Job(**values | columns))


def add_plan(sessions: sessionmaker[Session], model_id: str, **columns: Any) -> str:
    values: dict[str, Any] = {
        "id": new_id("plan", now()),
        "owner_id": OWNER,
        "model_id": model_id,
        "compression": {"target": {"macs": 0.5}, "basis": "activations", "forms": "auto"},
        "status": "queued",
        "progress": {},
        "created_at": now(),
    }
    return _add(sessions, Plan(**values | columns))


def _add(sessions: sessionmaker[Session], row: Model | Dataset | Job | Plan) -> str:
    with sessions.begin() as session:
        session.add(row)
    return row.id
