"""A client that others wrote: tuspy, before the real web process."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed
from tusclient.storage.filestorage import FileStorage

from app.core.settings import Settings
from app.embedded.children import wait_ready
from tests.conftest import make_settings
from tests.support.service import WebService, running_web
from tests.uploads.conftest import network


@pytest.fixture(params=["disk", "s3"])
def settings(
    request: pytest.FixtureRequest, engine: Engine, broker_url: str, database_url: str, tmp_path: Path
) -> Settings:
    storage = request.getfixturevalue("s3_url") if request.param == "s3" else ""
    return make_settings(database_url, broker_url, tmp_path / "var", storage_url=storage)


@pytest.fixture
def web(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebService]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # tuspy uses requests, which asks the environment
    with running_web(settings, tmp_path / "log") as service:
        yield service


@pytest.fixture
def tus(web: WebService) -> TusClient:
    return TusClient(f"{web.url}/v1/uploads", headers={"Authorization": f"Bearer {web.key}"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(network(20_000_000))
    return path


def _make(web: WebService, url: str) -> httpx.Response:
    return httpx.post(
        f"{web.url}/v1/models",
        json={"upload": url.rsplit("/", 1)[1]},
        headers={"Authorization": f"Bearer {web.key}"},
        trust_env=False,
        timeout=30,
    )


def test_a_file_goes_up_in_parts_with_checksums(web: WebService, tus: TusClient, file: Path) -> None:
    sender = tus.uploader(
        str(file),
        chunk_size=6_000_000,
        metadata={"filename": file.name, "kind": "model"},
        upload_checksum=True,
    )
    sender.upload()
    made = _make(web, sender.url)
    assert made.status_code == 201, made.text
    assert made.json()["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert made.json()["name"] == "net"


def test_it_goes_on_where_a_killed_process_and_another_client_left_off(
    web: WebService, tus: TusClient, file: Path, tmp_path: Path
) -> None:
    options = {
        "chunk_size": 3_000_000,
        "metadata": {"filename": file.name},
        "store_url": True,
        "url_storage": FileStorage(str(tmp_path / "uploads.json")),
    }
    first = tus.uploader(str(file), **options)
    first.upload(stop_at=9_000_000)
    assert web.web.process is not None
    web.web.process.kill()
    web.web.process.wait()
    with pytest.raises(TusUploadFailed):
        first.upload_chunk()
    web.web.start()
    wait_ready(web.web)
    second = tus.uploader(str(file), **options)
    assert (second.url, second.offset) == (first.url, 9_000_000)
    second.upload()
    made = _make(web, second.url)
    assert made.json()["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest(), made.text


def test_it_is_told_what_is_refused(web: WebService, tus: TusClient, tmp_path: Path) -> None:
    pickle = tmp_path / "net.pkl"
    pickle.write_bytes(b"\x80\x04\x95" + b"x" * 200_000)
    with pytest.raises(TusUploadFailed) as refused:
        tus.uploader(str(pickle)).upload()
    assert refused.value.status_code == 422
    assert b"unsafe_serialization" in refused.value.response_content
    stranger = TusClient(f"{web.url}/v1/uploads", headers={"Authorization": "Bearer bc_wrong"})
    with pytest.raises(TusCommunicationError) as unknown:
        stranger.uploader(str(pickle)).upload()
    assert unknown.value.status_code == 401
