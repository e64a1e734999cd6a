"""A batch of small jobs through the whole service: how soon, how fast, and who has to wait for it.

    python -m benchmarks.batch --jobs 200

The bundled digits network, basis `weights` and no data set, so that a job is little more than what every job
costs: claiming, a child of its own, the export and its check. Servers and one worker of its own; writes
benchmarks/results/batch.json and .md, of which only whole runs are worth keeping.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import redis

from benchmarks.machine import describe
from tests.conftest import make_settings
from tests.support.servers import OwnedServers
from tests.support.service import Service, running_service

ROOT: Final = Path(__file__).resolve().parents[1]
NETWORK: Final = ROOT / "examples" / "digits_cnn.onnx"
RESULTS: Final = ROOT / "benchmarks" / "results"
LARGE: Final = 5_000  # jobs, only accepted and cancelled
LOOKS: Final = 20  # of each page and list
SINGLE_AFTER: Final = 10  # ended jobs of the batch, when somebody else sends one
T = TypeVar("T")


@contextmanager
def own_service(folder: Path) -> Iterator[Service]:
    servers = OwnedServers()
    servers.start()
    try:
        broker = servers.servers.broker_url(0)
        url = servers.servers.new_database("batch_benchmark")
        # What `make run` has, not what tests have: waits of a second would ring and look all the time.
        usual = {"lease_seconds": 30, "heartbeat_seconds": 5, "reaper_seconds": 5, "ring_again_seconds": 60}
        settings = make_settings(url, broker, folder / "var", log_level="warning", **usual)
        with running_service(settings, folder / "log") as service:
            yield service
    finally:
        servers.stop()


def timed(action: Callable[[], T]) -> tuple[T, float]:
    begun = time.perf_counter()
    made = action()
    return made, time.perf_counter() - begun


def bodies(model: str, jobs: int) -> list[dict[str, Any]]:
    """Each with a target of its own."""
    return [
        {
            "kind": "compress",
            "model": model,
            "name": f"job {number + 1}",
            "compression": {"basis": "weights", "target": {"macs": round(0.3 + 0.5 * number / jobs, 4)}},
            "exports": ["onnx"],
        }
        for number in range(jobs)
    ]


def ready_model(client: httpx.Client) -> str:
    files = {"file": (NETWORK.name, NETWORK.read_bytes())}
    model: dict[str, Any] = client.post("/v1/models", files=files).raise_for_status().json()
    while model["status"] == "inspecting":
        time.sleep(0.2)
        model = client.get(f"/v1/models/{model['id']}").raise_for_status().json()
    return str(model["id"])


def another_owner(service: Service) -> httpx.Client:
    made = service.client.post("/v1/keys", json={"name": "another owner"}).raise_for_status().json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    return httpx.Client(base_url=service.url, headers=headers, timeout=60, trust_env=False)


def large(service: Service, model: str) -> dict[str, Any]:
    """Thousands of jobs: how long they take to be accepted, to be listed among, and to be cancelled."""
    client = service.client
    lines = "\n".join(json.dumps(body) for body in bodies(model, LARGE))
    headers = {"Content-Type": "application/jsonl"}
    made, accepted = timed(
        lambda: client.post("/v1/batches", content=lines, headers=headers, timeout=120).raise_for_status()
    )
    batch = made.json()["id"]
    with redis.Redis.from_url(service.settings.broker_url.get_secret_value()) as broker:
        messages = broker.llen("jobs")
    looks = {
        path: looked_at(client, path) for path in (f"/v1/batches/{batch}", f"/batches/{batch}", "/batches")
    }
    stopped, cancelled = timed(
        lambda: client.post(f"/v1/batches/{batch}/cancel", timeout=120).raise_for_status()
    )
    while client.get(f"/v1/batches/{batch}").json()["status"] != "cancelled":
        time.sleep(0.2)
    return {
        "jobs": LARGE,
        "accepted_seconds": round(accepted, 2),
        "messages_in_the_broker": messages,
        "cancelled_seconds": round(cancelled, 2),
        "cancelled_at_once": stopped.json()["counts"]["cancelled"],
        "milliseconds": {path.replace(batch, "{id}"): figure for path, figure in looks.items()},
    }


def looked_at(client: httpx.Client, path: str) -> float:
    """Milliseconds, the median."""
    headers = {"Accept": "text/html"}
    took = [timed(lambda: client.get(path, headers=headers).raise_for_status())[1] for _ in range(LOOKS)]
    return round(1000 * statistics.median(took), 1)


def small(
    service: Service, model: str, other: httpx.Client, jobs: int, most_seconds: float
) -> dict[str, Any]:
    """All jobs to their end, and one of another owner's that is sent among them. What has not begun after
    `most_seconds` is cancelled, and the figures are of the others."""
    client = service.client
    their_model = ready_model(other)
    made, accepted = timed(
        lambda: client.post("/v1/batches", json={"jobs": bodies(model, jobs)}).raise_for_status()
    )
    begun = time.perf_counter()
    batch = made.json()["id"]
    single = None
    while True:
        found = client.get(f"/v1/batches/{batch}").raise_for_status().json()
        ended = found["counts"]["succeeded"] + found["counts"]["failed"]
        if single is None and ended >= min(SINGLE_AFTER, jobs - 1):
            body = bodies(their_model, 1)[0]
            single = other.post("/v1/jobs", json=body).raise_for_status().json()["id"]
        if found["status"] in {"completed", "cancelled"}:
            break
        if found["status"] == "running" and time.perf_counter() - begun > most_seconds:
            client.post(f"/v1/batches/{batch}/cancel").raise_for_status()
        time.sleep(0.5)
    seconds = time.perf_counter() - begun
    results, streamed = timed(lambda: client.get(f"/v1/batches/{batch}/results").raise_for_status())
    every = [json.loads(line) for line in results.text.splitlines()]
    lines = [job for job in every if job["status"] == "succeeded"]
    took = sorted(_seconds(job, "started_at", "finished_at") for job in lines)
    theirs = other.get(f"/v1/jobs/{single}").raise_for_status().json()
    return {
        "jobs": jobs,
        "counts": found["counts"],
        "accepted_seconds": round(accepted, 3),
        "first_started_seconds": round(min(_seconds(job, "created_at", "started_at") for job in lines), 2),
        "all_ended_seconds": round(seconds, 1),
        "jobs_per_minute": round(60 * len(lines) / seconds, 1),
        "job_seconds": {
            "median": round(statistics.median(took), 2),
            "90th percentile": round(took[int(0.9 * (len(took) - 1))], 2),
            "most": round(took[-1], 2),
        },
        "between_jobs_seconds": round((seconds - sum(took)) / len(lines), 2),
        "single_job_of_another_owner_waited_seconds": round(_seconds(theirs, "created_at", "started_at"), 2),
        "results": {"bytes": len(results.content), "seconds": round(streamed, 2)},
    }


def _seconds(job: dict[str, Any], start: str, end: str) -> float:
    return (datetime.fromisoformat(job[end]) - datetime.fromisoformat(job[start])).total_seconds()


def table(found: dict[str, Any]) -> str:
    many, few = found["large"], found["small"]
    took, load = few["job_seconds"], found["load"]
    rows = [
        (f"{few['jobs']} jobs accepted, in one request", f"{few['accepted_seconds']} s"),
        ("the first one started after", f"{few['first_started_seconds']} s"),
        (
            f"{few['counts']['succeeded']} of them finished within",
            f"{few['all_ended_seconds']} s, {few['jobs_per_minute']} a minute",
        ),
        (
            "one job, from its claim to its end",
            f"{took['median']} s (median), {took['90th percentile']} s (90th percentile)",
        ),
        ("from one job's end to the next one's claim", f"{few['between_jobs_seconds']} s (mean)"),
        (
            f"another owner's job, sent after {SINGLE_AFTER} of the batch had ended, waited",
            f"{few['single_job_of_another_owner_waited_seconds']} s",
        ),
        ("all results as JSONL", f"{few['results']['seconds']} s, {few['results']['bytes']:,} bytes"),
        (f"{many['jobs']:,} jobs accepted, in one request", f"{many['accepted_seconds']} s"),
        ("messages in the broker then", f"{many['messages_in_the_broker']}"),
        *((f"`GET {path}` then", f"{ms} ms (median)") for path, ms in many["milliseconds"].items()),
        (
            f"their cancellation, {many['cancelled_at_once']:,} at once",
            f"{many['cancelled_seconds']} s",
        ),
    ]
    about = (
        f"`make bench-batch` on {found['at'][:10]}: the bundled digits network, basis `weights`, no data "
        f"set, ONNX alone; one worker, {found['machine']['processor']}, {load['cores']} cores with a load of "
        f"{load['before']:g} before and {load['after']:g} after. A load above {load['cores']} means that "
        "others computed too, and that an idle machine is faster."
    )
    if few["counts"]["succeeded"] < few["jobs"]:
        about += " The run was cut short: what had not finished by then was cancelled."
    lines = [f"| {what} | {figure} |" for what, figure in rows]
    return "\n".join(["# A batch of small jobs", "", about, "", "| | |", "| --- | --- |", *lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--most-seconds", type=float, default=float("inf"), help="then the rest is cancelled")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder")
    chosen = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="basisconv-batch-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with own_service(folder) as service:
            model = ready_model(service.client)
            found: dict[str, Any] = {"large": large(service, model)}
            with another_owner(service) as other:
                found["small"] = small(service, model, other, chosen.jobs, chosen.most_seconds)
    found |= {"at": datetime.now(UTC).isoformat(), "machine": describe("cpu")}
    after = os.getloadavg()[0]
    found["load"] = {"cores": os.cpu_count(), "before": round(before, 1), "after": round(after, 1)}
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "batch.json").write_text(json.dumps(found, indent=1) + "\n")
    (chosen.out / "batch.md").write_text(table(found))
    sys.stdout.write(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
