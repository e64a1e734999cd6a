"""Rows as the worker would leave them, and files that pass the first look."""

import io
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from sqlalchemy import select

from app.artifacts.tables import Artifact
from app.batches.tables import Batch
from app.core.ids import new_id
from app.core.unit import Services
from app.datasets.tables import Dataset
from app.jobs.tables import Job, JobMetric
from app.keys.tables import ApiKey
from app.models.tables import Model
from app.plans.tables import Plan
from app.uploads.tables import Resumable
from app.webhooks.tables import Webhook

LAYERS: list[dict[str, Any]] = [
    {
        "name": name,
        "kind": "conv2d",
        "in_channels": 16,
        "out_channels": 16,
        "kernel_size": [3, 3],
        "stride": [1, 1],
        "groups": 1,
        "output_size": [32, 32],
        "macs": 2359296,
        "params": 2304,
        "max_rank": 16,
        "break_even_rank": 14,
        "compressible": True,
        "reason": None,
    }
    for name in ("conv1", "layer1.0.conv1", "layer1.0.conv2")
]
INPUT = {
    "shape": [3, 32, 32],
    "scale": 255,
    "mean": [0, 0, 0],
    "std": [1, 1, 1],
    "layout": "NCHW",
    "resize": None,
    "crop": None,
    "interpolation": "bilinear",
}
SUMMARY = {"macs": 40551040, "params": 269722, "layers": 3, "compressible": 3, "outputs": [10]}
FIGURES = {
    "accuracy": 0.9173,
    "agreement": 1.0,
    "macs": 40551040,
    "params": 269722,
    "learnable_params": 269722,
    "bytes": 1096000,
    "latency_ms": {"batch_1": 1.5, "batch_32": 30.0},
    "latency_spread_ms": {"batch_1": 0.1, "batch_32": 1.5},
}
UNTIMED = {"latency_ms": None, "latency_spread_ms": None}
RESULT = {
    "original": FIGURES,
    "truncated": FIGURES | {"accuracy": 0.5, "agreement": 0.52, "bytes": None} | UNTIMED,
    "compressed": FIGURES | {"accuracy": 0.91, "agreement": 0.97, "macs": 20000000},
    "target_met": True,
    "device": "cpu",
    "latency_device": "cpu",
    "latency_repeats": {"batch_1": 100, "batch_32": 25},
    "versions": {"torch": "2.13.0"},
    "seconds": {"decompose": 1.5},
    "peak_bytes": {"decompose": 400_000_000},
    "peak_device_bytes": None,
    "search": None,
    "tuning": None,
    "synthetic": None,
    "layers": [
        {
            "name": "conv1",
            "form": None,
            "rank": None,
            "replaced": False,
            "reason": "never_cheaper",
            "error": None,
        },
        {
            "name": "layer1.0.conv1",
            "form": "basis",
            "rank": 8,
            "replaced": True,
            "reason": None,
            "error": 0.03,
        },
    ],
    "exports": [
        {
            "format": "onnx",
            "artifact": "artifact_x",
            "sha256": "0" * 64,
            "bytes": 10,
            "max_abs_diff": 1e-6,
            "accuracy": 0.91,
            "agreement": 0.97,
        }
    ],
}


def onnx_bytes(fill: float = 0.5) -> bytes:
    """A network of one convolution, with weights that make its bytes its own."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 3, 3, 3], [fill] * 108)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])],
        [weight],
    )
    return bytes(helper.make_model(graph).SerializeToString())


def npz_bytes() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.zeros((4, 8, 8, 3), np.uint8), y=np.arange(4))
    return file.getvalue()


def zip_bytes(names: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return file.getvalue()


def owner_of(services: Services) -> str:
    """The id of the owner whose key `make run` would have made."""
    with services.sessions() as session:
        return session.scalars(select(ApiKey.owner_id).where(ApiKey.scopes.contains(["admin"]))).first() or ""


def add_model(services: Services, owner_id: str | None = None, **changed: Any) -> str:
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": new_id("model", now),
        "owner_id": owner_id or owner_of(services),
        "name": "resnet20",
        "format": "onnx",
        "status": "ready",
        "bytes": 10,
        "sha256": "a" * 64,
        "requested_input": {},
        "input": INPUT,
        "summary": SUMMARY,
        "layers": LAYERS,
        "details": {"batch": None},
        "attempt": 1,
        "created_at": now,
    }
    return _add(services, Model(**values | changed))


def add_dataset(services: Services, owner_id: str | None = None, **changed: Any) -> str:
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": new_id("dataset", now),
        "owner_id": owner_id or owner_of(services),
        "name": "cifar10",
        "format": "npz",
        "status": "ready",
        "bytes": 10,
        "sha256": "b" * 64,
        "examples": {"train": 80, "test": 20},
        "classes": 10,
        "image": [32, 32, 3],
        "labelled": True,
        "attempt": 1,
        "created_at": now,
    }
    return _add(services, Dataset(**values | changed))


def add_upload(services: Services, **changed: Any) -> str:
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": new_id("upload", now),
        "owner_id": owner_of(services),
        "filename": "net.onnx",
        "metadata_header": "",
        "length": 1000,
        "received": 0,
        "created_at": now,
        "expires_at": now + timedelta(days=1),
    }
    return _add(services, Resumable(**values | changed))


def add_job(services: Services, model: str, owner_id: str | None = None, **changed: Any) -> str:
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": new_id("job", now),
        "owner_id": owner_id or owner_of(services),
        "kind": "compress",
        "model_id": model,
        "options": {"compression": {"target": {"macs": 0.5}, "basis": "weights", "forms": "basis"}},
        "annotations": {},
        "status": "running",
        "attempt": 1,
        "progress": {"fraction": 0.4},
        "warnings": [],
        "created_at": now,
    }
    return _add(services, Job(**values | changed))


def add_batch(services: Services, owner_id: str | None = None, **changed: Any) -> str:
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": new_id("batch", now),
        "owner_id": owner_id or owner_of(services),
        "name": None,
        "on_error": "abort",
        "status": "completed",
        "total": 1,
        "invalid": 0,
        "errors": [],
        "created_at": now,
        "finished_at": now,
    }
    return _add(services, Batch(**values | changed))


POINTS = (("train_loss", 2, 0.5), ("train_loss", 1, 0.9), ("accuracy", 1, 0.8))


def add_metrics(services: Services, job: str) -> None:
    """What a short training measured: name, step and value of each."""
    with services.sessions.begin() as session:
        for name, step, value in POINTS:
            session.add(JobMetric(job_id=job, name=name, step=step, value=value, at=datetime.now(UTC)))


def add_webhook(services: Services, owner_id: str | None = None, **changed: Any) -> str:
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": new_id("webhook", now),
        "owner_id": owner_id or owner_of(services),
        "url": "https://example.com/hook",
        "events": ["job.succeeded"],
        "created_at": now,
    }
    return _add(services, Webhook(**values | changed))


def add_plan(services: Services, model: str, owner_id: str | None = None, **changed: Any) -> str:
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": new_id("plan", now),
        "owner_id": owner_id or owner_of(services),
        "model_id": model,
        "compression": {"target": {"macs": 0.5}, "basis": "activations", "forms": "auto"},
        "status": "queued",
        "progress": {},
        "created_at": now,
    }
    return _add(services, Plan(**values | changed))


def add_artifact(services: Services, job: str, data: bytes, **changed: Any) -> str:
    blob = services.store.put_bytes(data)
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": new_id("artifact", now),
        "owner_id": owner_of(services),
        "job_id": job,
        "format": "onnx",
        "name": "resnet20.onnx",
        "bytes": blob.bytes,
        "sha256": blob.sha256,
        "media_type": "application/octet-stream",
        "created_at": now,
    }
    return _add(services, Artifact(**values | changed))


def _add(services: Services, row: Any) -> str:
    with services.sessions.begin() as session:
        session.add(row)
        session.flush()
        return str(row.id)
