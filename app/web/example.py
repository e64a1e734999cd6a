"""The bundled example as two ordinary uploads: what one click on the first page sends."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from app.core.errors import NotFound
from app.core.security import Caller
from app.core.unit import Services, Unit, transaction
from app.datasets import service as datasets
from app.datasets.tables import Dataset
from app.models import service as models
from app.models.schemas import InputRequest
from app.models.tables import Model
from app.storage.store import Staged
from app.uploads.multipart import HEAD_BYTES, Upload

FOLDER: Final = Path(__file__).resolve().parents[2] / "examples"
NETWORK: Final = FOLDER / "digits_cnn.onnx"
IMAGES: Final = FOLDER / "digits.npz"
NAME: Final = "Handwritten digits"
INPUT: Final = InputRequest(scale=255, mean=[0.3054], std=[0.376])  # as examples/make_digits.py trained it
# A shift of one pixel is a different digit at 8x8, so nothing is augmented.
OPTIONS: Final[dict[str, Any]] = {
    "kind": "compress",
    "name": NAME,
    "compression": {"target": {"macs": 0.5}, "basis": "activations"},
    "training": {"epochs": 5, "update": "all", "objective": "distill", "augment": "none"},
}


@dataclass(frozen=True)
class Example:
    """What the click has put here, perhaps still being inspected, and the job that it asks for."""

    model: str
    dataset: str
    job: dict[str, Any]


def available() -> bool:
    """Whether this installation brings the files; a wheel without the repository does not."""
    return NETWORK.is_file() and IMAGES.is_file()


async def send(services: Services, caller: Caller) -> Example:
    """Upload both files unless this owner has them already."""
    if not available():
        raise NotFound("This installation does not bring the example.", hint="Run it from the repository.")
    model = await run_in_threadpool(_existing, services, caller, Model, NETWORK)
    if model is None:
        model = await _upload(services, caller, NETWORK, _add_model)
    dataset = await run_in_threadpool(_existing, services, caller, Dataset, IMAGES)
    if dataset is None:
        dataset = await _upload(services, caller, IMAGES, _add_dataset)
    return Example(model, dataset, OPTIONS | {"model": model, "dataset": dataset})


@cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _existing(
    services: Services, caller: Caller, table: type[Model] | type[Dataset], path: Path
) -> str | None:
    """This owner's own copy from an earlier click."""
    statement = (
        select(table.id)
        .where(table.owner_id == caller.owner_id, table.sha256 == _sha256(path), table.name == path.stem)
        .where(table.status.in_(("inspecting", "ready")))
        .order_by(table.id.desc())
    )
    with services.sessions() as session:
        return session.scalars(statement).first()


async def _upload(services: Services, caller: Caller, path: Path, add: Any) -> str:
    data = path.read_bytes()  # under 500 kB

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    staged: Staged = await services.store.stage(chunks())
    upload = Upload(staged=staged, filename=path.name, head=data[:HEAD_BYTES], fields={})
    try:
        return await run_in_threadpool(_add, services, caller, upload, add)
    finally:
        await run_in_threadpool(services.store.discard, staged)  # nothing is left to discard once it was kept


def _add(services: Services, caller: Caller, upload: Upload, add: Any) -> str:
    with transaction(services) as unit:
        resource_id: str = add(unit, services, caller, upload)
    return resource_id


def _add_model(unit: Unit, services: Services, caller: Caller, upload: Upload) -> str:
    name = Path(upload.filename).stem
    model = models.create(
        unit, services.store, caller, upload, name=name, requested_input=INPUT, architecture=None
    )
    return model.id


def _add_dataset(unit: Unit, services: Services, caller: Caller, upload: Upload) -> str:
    name = Path(upload.filename).stem
    return datasets.create(unit, services.store, caller, upload, name=name, requested_classes=None).id
