"""How much room things take, measured on the bundled example; docs/operations.md quotes it.

    make bench-room

Sizes, not times: a busy machine changes none of them. Writes benchmarks/results/room.json.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import redis
from sqlalchemy import Engine, text

from app import example
from app.core.db import make_engine
from app.core.events import redis_url
from app.core.queue import CeleryDoorbell
from app.jobs.states import JobStatus
from benchmarks.service import seed
from tests.conftest import make_settings
from tests.support.servers import OwnedServers
from tests.support.service import Service, running_service

RESULTS: Final = Path(__file__).resolve().parent / "results" / "room.json"
OWNER: Final = "owner_" + "0" * 26
MESSAGES: Final = 1000
JOBS: Final = 2000
PATIENCE_SECONDS: Final = 900


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="basisconv-room-") as name, _servers() as servers:
        folder = Path(name)
        folder.chmod(0o711)
        url = servers.servers.new_database("room")
        figures = {"database": _database(url), "broker": _broker(servers.servers.broker_url(0))}
        url = servers.servers.new_database("room")
        settings = make_settings(url, servers.servers.broker_url(0), folder / "var", log_format="json")
        with running_service(settings, folder / "log") as service:
            figures |= _example(service, settings.var_dir, folder / "log")
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    return 0


@contextmanager
def _servers() -> Iterator[OwnedServers]:
    servers = OwnedServers()
    servers.start()
    try:
        yield servers
    finally:
        servers.stop()


def _database(url: str) -> dict[str, int]:
    """Of ended jobs as REST shows them, indices included."""
    engine = make_engine(url, pool_size=2)
    try:
        empty = _size(engine)
        model = seed.seed_model(engine, OWNER)
        seed.seed_jobs(engine, OWNER, model, JOBS, JobStatus.SUCCEEDED, events=1)
        jobs = _size(engine) - empty
        seed.seed_jobs(engine, OWNER, model, 1, JobStatus.QUEUED)  # its vacuum makes the next look a fair one
        before, events = _size(engine), 100
        _add_events(engine, events)
        return {
            "empty_bytes": empty,
            "bytes_a_job_with_one_event": jobs // JOBS,
            "bytes_an_event": (_size(engine) - before) // (events * JOBS),
        }
    finally:
        engine.dispose()


def _add_events(engine: Engine, count: int) -> None:
    """To each old job, as a fine-tune tells them: some progress, some figures."""
    statement = text(
        "INSERT INTO job_events (id, job_id, seq, type, stage, message, data, created_at)"
        " SELECT 'event_' || right(md5(id || s), 26), id, s + 1, 'metric', 'finetune', '',"
        " jsonb_build_object('name', 'train_loss', 'step', s, 'value', random()), now()"
        " FROM jobs, generate_series(1, :count) AS s WHERE status = 'succeeded'"
    )
    with engine.begin() as connection:
        connection.execute(statement, {"count": count})


def _size(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)


def _broker(url: str) -> dict[str, int]:
    doorbell = CeleryDoorbell(url)
    with redis.Redis.from_url(redis_url(url)) as client:
        before = client.info("memory")["used_memory"]
        for number in range(MESSAGES):
            doorbell.ring("worker.run_job", f"job_{number:026}")
        used = client.info("memory")["used_memory"]
        client.flushdb()
    doorbell.close()
    return {"empty_bytes": before, "bytes_a_message": (used - before) // MESSAGES}


def _example(service: Service, var: Path, logs: Path) -> dict[str, Any]:
    """The example's network, images and job, one after the other."""
    client, objects = service.client, var / "objects"
    files = {"network": example.NETWORK, "images": example.IMAGES}
    found: dict[str, Any] = {f"{name}_file_bytes": path.stat().st_size for name, path in files.items()}
    model = _upload(client, "/v1/models", example.NETWORK, {"input": json.dumps(example.INPUT)})
    found["network_stored_bytes"] = stored = _held(objects)
    dataset = _upload(client, "/v1/datasets", example.IMAGES, {})
    found["images_stored_bytes"] = _held(objects) - stored
    stored = _held(objects)
    job = f"/v1/jobs/{client.post('/v1/jobs', json=example.job_body(model, dataset)).json()['id']}"
    most = {"checkpoint_bytes": 0, "scratch_bytes": 0}

    def ended() -> bool:
        for name, folder in (
            ("checkpoint_bytes", objects / "checkpoints"),
            ("scratch_bytes", var / "scratch"),
        ):
            most[name] = max(most[name], _held(folder))
        return client.get(job).json()["finished_at"] is not None

    _wait(ended, 0.05)
    document = client.get(job).json()
    if document["status"] != "succeeded":
        raise SystemExit(f"The example's job {document['status']}: {document['error']}")
    files_of_job = client.get(f"{job}/artifacts?limit=100").json()["data"]
    smaller = document["result"]["compressed"]["bytes"]
    lines = (logs / "web.log").read_text().splitlines()
    requests = [line for line in lines if '"event": "request"' in line]
    return found | {
        "job_stored_bytes": _held(objects) - stored,
        "job_smaller_network_bytes": smaller,
        "job_files": {file["name"]: file["bytes"] for file in files_of_job},
        "job_most": most,
        "cache_bytes": _held(var / "cache"),
        "log_bytes_a_request": sum(map(len, requests)) // len(requests),
    }


def _upload(client: httpx.Client, path: str, file: Path, fields: dict[str, str]) -> str:
    with file.open("rb") as body:
        made = client.post(path, files={"file": body}, data=fields).json()["id"]
    _wait(lambda: client.get(f"{path}/{made}").json()["status"] == "ready", 0.2)
    return str(made)


def _held(folder: Path) -> int:
    """Bytes of all files; one that goes meanwhile counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _wait(condition: Callable[[], bool], pause: float) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("The example took too long.")
        time.sleep(pause)


if __name__ == "__main__":
    sys.exit(main())
