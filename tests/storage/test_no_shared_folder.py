"""Processes that share three servers and no folder: PostgreSQL, Valkey and an S3-compatible store."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import onnx
import pytest

from app.core.settings import Settings
from app.embedded.children import wait_ready
from app.embedded.processes import Worker
from app.storage.store import ObjectStore, open_store
from tests.conftest import make_settings
from tests.support.processes import wait_until
from tests.support.sending import Sender
from tests.support.servers import Servers
from tests.support.service import WebService, running_web

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
INPUT = {"scale": 255, "mean": [0.3054], "std": [0.376]}
ENDED = {"succeeded", "failed", "cancelled", "ready", "rejected"}


@dataclass
class Hosts:
    """A web process and workers, each with a folder of its own, as on as many machines."""

    web: WebService
    client: httpx.Client
    workers: dict[str, Worker]
    store: ObjectStore

    def until_ended(self, path: str, seconds: float = 180) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(self.client.get(path).raise_for_status().json())
            return found["status"] in ENDED

        wait_until(ended, seconds)
        return found

    def stored(self) -> set[str]:
        return {found.sha256 for page in self.store.objects() for found in page}


@pytest.fixture
def hosts(
    servers: Servers, process_number: int, broker_url: str, s3_url: str, tmp_path: Path
) -> Iterator[Hosts]:
    name = f"hosts_{process_number}"
    settings = make_settings(servers.new_database(name), broker_url, tmp_path / "web", storage_url=s3_url)
    with ExitStack() as stack:
        stack.callback(servers.drop_database, name)
        web = stack.enter_context(running_web(settings, tmp_path / "log"))
        workers = {}
        for number, queue in enumerate(("quick", "quick", "jobs", "jobs"), start=1):
            workers[f"{queue}-{number}"] = _worker(settings, queue, number, tmp_path)  # type: ignore[arg-type]
        for worker in workers.values():
            worker.start()
            stack.callback(worker.stop)
        for worker in workers.values():
            wait_ready(worker)
        headers = {"Authorization": f"Bearer {web.key}"}
        client = stack.enter_context(
            httpx.Client(base_url=web.url, headers=headers, timeout=30, trust_env=False)
        )
        yield Hosts(web, client, workers, open_store(s3_url))


def _worker(settings: Settings, queue: Literal["quick", "jobs"], number: int, folder: Path) -> Worker:
    own = settings.model_copy(update={"var_dir": folder / f"{queue}-{number}"})
    own.var_dir.mkdir()
    return Worker(own, queue, folder / "log" / f"{queue}-{number}.log", number=number)


def _job(model: str, dataset: str, share: float, epochs: int) -> dict[str, Any]:
    return {
        "kind": "compress",
        "model": model,
        "dataset": dataset,
        "compression": {"target": {"macs": share}},
        "training": {"epochs": epochs, "update": "all", "objective": "distill", "augment": "none"},
        "exports": ["onnx"],
    }


def test_the_main_path_needs_no_folder_that_hosts_share(hosts: Hosts, tmp_path: Path) -> None:
    sender, network = Sender(hosts.web.url, hosts.web.key), (EXAMPLES / "digits_cnn.onnx").read_bytes()
    images = (EXAMPLES / "digits.npz").read_bytes()
    url = sender.begin(len(network))
    sender.patch(url, 0, len(network), [network])
    body = {"upload": url.rsplit("/", 1)[1], "input": INPUT}
    model = hosts.client.post("/v1/models", json=body).raise_for_status().json()
    dataset = (
        hosts.client.post("/v1/datasets", files={"file": ("digits.npz", images)}).raise_for_status().json()
    )
    for path in (f"/v1/models/{model['id']}", f"/v1/datasets/{dataset['id']}"):
        assert hosts.until_ended(path)["status"] == "ready"

    sent = [
        hosts.client.post("/v1/jobs", json=_job(model["id"], dataset["id"], *asked)).raise_for_status().json()
        for asked in ((0.5, 1), (0.7, 0), (0.6, 0))
    ]
    jobs = [hosts.until_ended(f"/v1/jobs/{job['id']}") for job in sent]
    assert [job["status"] for job in jobs] == ["succeeded"] * 3, [job["error"] for job in jobs]
    logs = [worker.log.read_text() for name, worker in hosts.workers.items() if name.startswith("jobs")]
    assert all("job.ended" in log for log in logs), "both workers took part"
    for job in jobs:
        _check_file(hosts, job, tmp_path)
    assert list((tmp_path / "web").glob("objects/**/*")) == []  # nothing but the bucket holds the bytes

    for path in (
        *(f"/v1/jobs/{job['id']}" for job in jobs),
        f"/v1/models/{model['id']}",
        f"/v1/datasets/{dataset['id']}",
    ):
        assert hosts.client.delete(path).status_code == 204
    assert hosts.stored() == set()


def _check_file(hosts: Hosts, job: dict[str, Any], folder: Path) -> None:
    """The exported network comes through the web process, whole and in parts, and is what it says."""
    (file,) = (
        file
        for file in hosts.client.get(f"/v1/jobs/{job['id']}/artifacts").json()["data"]
        if file["format"] == "onnx"
    )
    path = f"/v1/artifacts/{file['id']}/content"
    whole = hosts.client.get(path)
    assert hashlib.sha256(whole.content).hexdigest() == file["sha256"]
    assert whole.headers["etag"] == f'"{file["sha256"]}"'
    part = hosts.client.get(path, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    (folder / "made.onnx").write_bytes(whole.content)
    onnx.checker.check_model(onnx.load(folder / "made.onnx"))
    assert job["result"]["compressed"]["accuracy"] > 0.5
