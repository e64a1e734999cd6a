"""One of everything that belongs to an owner, and the whole database as a value to compare.

`MAKERS` makes what an address's path parameter names. A new kind of resource needs a line there; the tests of
ownership then try its every route with another owner's key.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.core.db import Base
from app.core.unit import Services
from app.keys.tables import ApiKey
from tests.api.conftest import _client
from tests.api.seeds import (
    RESULT,
    add_artifact,
    add_batch,
    add_dataset,
    add_job,
    add_model,
    add_plan,
    add_webhook,
    npz_bytes,
    onnx_bytes,
)


@dataclass
class World:
    """An owner's things, made when they are first asked for."""

    services: Services
    client: TestClient
    owner_id: str
    secret: str
    mark: str  # in every name, so that a leak shows wherever it is
    made: dict[str, str] = field(default_factory=dict)

    def id_of(self, parameter: str) -> str:
        if parameter not in self.made:
            self.made[parameter] = MAKERS[parameter](self)
        return self.made[parameter]

    def build(self) -> None:
        for parameter in MAKERS:
            self.id_of(parameter)


def _model(world: World) -> str:
    blob = world.services.store.put_bytes(f"network of {world.mark}".encode())
    return add_model(world.services, world.owner_id, name=f"network of {world.mark}", sha256=blob.sha256)


def _dataset(world: World) -> str:
    blob = world.services.store.put_bytes(f"images of {world.mark}".encode())
    return add_dataset(world.services, world.owner_id, name=f"images of {world.mark}", sha256=blob.sha256)


def _job(world: World) -> str:
    """An ended job: it has a report and files, and can be deleted."""
    model, dataset = world.id_of("model_id"), world.id_of("dataset_id")
    ended = {"status": "succeeded", "result": RESULT, "name": f"job of {world.mark}"}
    return add_job(world.services, model, world.owner_id, dataset_id=dataset, **ended)


def _plan(world: World) -> str:
    return add_plan(world.services, world.id_of("model_id"), world.owner_id)


def _batch(world: World) -> str:
    batch = add_batch(world.services, world.owner_id, name=f"batch of {world.mark}")
    ended = {"status": "succeeded", "result": RESULT, "name": f"batch's job of {world.mark}"}
    add_job(world.services, world.id_of("model_id"), world.owner_id, batch_id=batch, batch_line=1, **ended)
    return batch


def _webhook(world: World) -> str:
    return add_webhook(world.services, world.owner_id, description=f"webhook of {world.mark}")


def _artifact(world: World) -> str:
    data = f"file of {world.mark}".encode()
    return add_artifact(world.services, world.id_of("job_id"), data, owner_id=world.owner_id)


def _key(world: World) -> str:
    with world.services.sessions() as session:
        found = session.scalars(select(ApiKey.id).where(ApiKey.owner_id == world.owner_id)).first()
    assert found is not None
    return found


def _upload(world: World, data: bytes | None = None) -> str:
    """A complete one, ready to be used."""
    data = onnx_bytes() if data is None else data
    name = base64.b64encode(f"upload of {world.mark}".encode()).decode()
    headers = TUS | {"Upload-Length": str(len(data)), "Upload-Metadata": f"filename {name}"}
    made = world.client.post("/v1/uploads", content=data, headers=headers)
    return str(made.json()["id"])


TUS = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}

MAKERS: dict[str, Callable[[World], str]] = {
    "model_id": _model,
    "dataset_id": _dataset,
    "plan_id": _plan,
    "job_id": _job,
    "batch_id": _batch,
    "webhook_id": _webhook,
    "artifact_id": _artifact,
    "key_id": _key,
    "upload_id": _upload,
}
# Bodies and headers of requests that are refused for their form before anybody looks at whose thing it is.
# (method, path) → what TestClient.request takes.
FORMS: dict[tuple[str, str], Callable[[World], dict[str, Any]]] = {
    ("PATCH", "/v1/keys/{key_id}"): lambda _: {"json": {"name": "taken over"}},
} | {
    (method, "/v1/uploads/{upload_id}"): lambda _: {
        "headers": TUS | {"X-HTTP-Method-Override": "DELETE"},
    }
    for method in ("HEAD", "PATCH", "POST", "DELETE")
}
# Bodies that speak of other resources: a valid one of this owner's own things for every such POST.
BODIES: dict[str, Callable[[World], dict[str, Any]]] = {
    "/v1/plans": lambda own: {
        "model": own.id_of("model_id"),
        "dataset": own.id_of("dataset_id"),
        "compression": {"target": {"macs": 0.5}},
    },
    "/v1/jobs": lambda own: {
        "kind": "compress",
        "model": own.id_of("model_id"),
        "dataset": own.id_of("dataset_id"),
        "compression": {"target": {"macs": 0.5}},
    },
    "/v1/models": lambda own: {"upload": own.id_of("upload_id")},
    "/v1/datasets": lambda own: {"upload": _upload(own, npz_bytes())},
}


def make_world(app: FastAPI, services: Services, new_key: Callable[..., str], mark: str) -> World:
    """A new owner with a key for everything, and everything."""
    secret = new_key(scopes=["read", "write", "admin"], name=f"key of {mark}")
    client = _client(app, secret)
    owner_id = client.get("/v1/usage").json()["owner"]
    world = World(services, client, owner_id, secret, mark)
    world.build()
    return world


def snapshot(services: Services, without_owner: str) -> dict[str, list[str]]:
    """All rows but those of one owner, and all objects."""
    found = {}
    with services.sessions() as session:
        for table in Base.metadata.sorted_tables:
            columns = [column for column in table.columns if column.name != "last_used_at"]
            rows = session.execute(select(*columns)).mappings()
            found[table.name] = sorted(str(row) for row in rows if row.get("owner_id") != without_owner)
    root = Path(services.settings.var_dir) / "objects"
    found["objects"] = sorted(str(path) for path in root.rglob("*") if path.is_file())
    return found
