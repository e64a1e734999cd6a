"""The application with its objects in a folder and in S3, and a client that speaks tus by hand."""

import base64
import hashlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from app.core.settings import Settings
from app.core.unit import Services
from app.main import build_services, create_app
from app.uploads.tus import CONTENT_TYPE
from tests.api.conftest import (
    HandClock,
    _client,
    app,
    client,
    clock,
    live,
    new_key,
    other_owner,
    owner_secret,
    plain_tracebacks,
    services,
    stranger,
)
from tests.api.seeds import onnx_bytes
from tests.conftest import make_settings

__all__ = [
    "app",
    "client",
    "clock",
    "live",
    "new_key",
    "other_owner",
    "owner_secret",
    "plain_tracebacks",
    "services",
    "stranger",
]

RESUMABLE = {"Tus-Resumable": "1.0.0"}
LIMITS = {"max_model_bytes": 50_000_000, "max_dataset_bytes": 100_000_000}


@pytest.fixture(params=["disk", "s3"])
def settings(
    request: pytest.FixtureRequest, engine: Engine, broker_url: str, database_url: str, tmp_path: Path
) -> Settings:
    storage = request.getfixturevalue("s3_url") if request.param == "s3" else ""
    return make_settings(database_url, broker_url, tmp_path / "var", storage_url=storage, **LIMITS)


def network(size: int) -> bytes:
    """What passes for an ONNX file at first sight, of this size, no two blocks alike."""
    start = onnx_bytes()
    rest = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range((size - len(start)) // 32 + 1))
    return (start + rest)[:size]


def use(client: Any, url: str, path: str = "/v1/models", **fields: Any) -> Any:
    """Make a network or a data set of a complete upload."""
    return client.post(path, json={"upload": url.rsplit("/", 1)[1]} | fields)


def leftovers(services: Services) -> set[str]:
    """The ids of uploads of which something lies in the store."""
    return services.store.pieces.uploads()


def encoded(**metadata: str) -> str:
    """Upload-Metadata."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata.items())


@dataclass
class Tus:
    """Requests by hand, so that every header can be wrong."""

    client: Any

    def create(self, length: int, headers: dict[str, str] | None = None, **metadata: str) -> Any:
        given = RESUMABLE | {"Upload-Length": str(length)} | (headers or {})
        if metadata:
            given["Upload-Metadata"] = encoded(**metadata)
        return self.client.post("/v1/uploads", headers=given)

    def begin(self, length: int, **metadata: str) -> str:
        """The address of a new upload."""
        answer = self.create(length, **metadata)
        assert answer.status_code == 201, answer.text
        return str(answer.headers["Location"])

    def patch(self, url: str, offset: int, data: Any, **headers: str) -> Any:
        given = RESUMABLE | {"Upload-Offset": str(offset), "Content-Type": CONTENT_TYPE} | headers
        return self.client.patch(url, content=data, headers=given)

    def head(self, url: str) -> Any:
        return self.client.head(url, headers=RESUMABLE)

    def offset(self, url: str) -> int:
        return int(self.head(url).headers["Upload-Offset"])

    def delete(self, url: str) -> Any:
        return self.client.delete(url, headers=RESUMABLE)


@pytest.fixture
def tus(client: TestClient) -> Tus:
    return Tus(client)


@pytest.fixture
def live_tus(live: httpx2.Client) -> Tus:
    """The same before a real uvicorn."""
    return Tus(live)


@pytest.fixture
def second_process(settings: Settings, clock: HandClock, owner_secret: str) -> Iterator[TestClient]:
    """Another web process: it shares the three servers and nothing else."""
    built: Services = build_services(settings, clock=clock)
    yield _client(create_app(settings, built), owner_secret)
    built.publisher.close()
    built.engine.dispose()


@pytest.fixture
def cut(live: httpx2.Client) -> Callable[..., None]:
    """`cut(url, offset, data, announced)` sends a PATCH whose connection breaks before its end."""

    def send(url: str, offset: int, data: bytes, announced: int, **headers: str) -> None:
        given = {
            "Host": "x",
            "Authorization": live.headers["authorization"],
            "Upload-Offset": str(offset),
            "Content-Type": CONTENT_TYPE,
            "Content-Length": str(announced),
            **RESUMABLE,
            **headers,
        }
        head = f"PATCH {url} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in given.items()) + "\r\n"
        address = (live.base_url.host, live.base_url.port or 80)
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(head.encode() + data)

    return send
