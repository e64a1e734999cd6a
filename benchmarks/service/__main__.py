"""The service under load, each figure beside what bare uvicorn and bare Celery take on the same machine.

    make bench-service                      two minutes of load, five minutes in all
    make bench-service ARGS="--seconds 20"  a first look

Real PostgreSQL, Valkey, uvicorn and Celery, started for the run, with fsync and with months of old jobs in
the tables. Writes benchmarks/results/service.json and .md.
"""

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import redis
from pydantic import SecretStr
from sqlalchemy import Engine, select, text

from app import example
from app.core import migrations
from app.core.db import make_engine, make_sessions
from app.core.events import BusPublisher, redis_url
from app.core.settings import Settings
from app.embedded.children import spawn, stop, wait_ready
from app.embedded.folders import free_port
from app.embedded.owner import owner_key
from app.embedded.postgres import Postgres
from app.embedded.processes import Web, Worker, as_environment
from app.embedded.valkey import Valkey
from app.jobs import events
from app.jobs.states import JobStatus
from app.jobs.tables import Job
from app.keys.tables import ApiKey
from benchmarks import machine, service_upload
from benchmarks.service import bare, cost, report, seed
from benchmarks.service.load import Kind, Plan

RESULTS: Final = Path(__file__).resolve().parents[1] / "results"
BUSY_JOBS: Final = 10  # that tell one event a second each, as ten workers would
STARTS: Final = 20
COST_REQUESTS: Final = 200  # of each kind
WARM_UP_SECONDS: Final = 5.0


@dataclass
class Bench:
    arguments: argparse.Namespace
    folder: Path
    settings: Settings
    engine: Engine
    key: str
    owner_id: str
    model_id: str
    web: Web

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.web.port}"

    def web_tree(self) -> list[psutil.Process]:
        """All processes that answer, and what watches over them."""
        assert self.web.process is not None
        process = psutil.Process(self.web.process.pid)
        return [process, *process.children(recursive=True)]

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=300)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--web-processes", type=int, default=1)
    parser.add_argument("--queued", type=int, default=1000)
    parser.add_argument("--old", type=int, default=100_000, help="ended jobs in the table")
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--upload-megabytes", type=int, default=256)
    parser.add_argument("--out", type=Path, default=RESULTS / "service")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        bench = _begin(arguments, stack)
        figures = {
            "machine": machine.describe("cpu"),
            "cores": os.cpu_count(),
            "busy_before": os.getloadavg()[0],
            "asked": {name: value for name, value in vars(arguments).items() if name != "out"},
            "cost": _cost(bench),
            "load": _load(bench),
            "bare": _bare_load(bench),
            "start": _starts(bench),
            "upload": _upload(bench),
        }
    arguments.out.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(report.text(figures))
    print(report.text(figures))


def _begin(arguments: argparse.Namespace, stack: ExitStack) -> Bench:
    folder = Path(tempfile.mkdtemp(prefix="bench-service-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o711)
    admin, role, password = (secrets.token_urlsafe(24) for _ in range(3))
    postgres = Postgres(folder / "postgres", admin, folder / "postgres.log")
    valkey = Valkey(folder / "valkey", password, folder / "valkey.log")
    for server in (postgres, valkey):
        server.prepare()
        server.start()
        stack.callback(server.stop)
        wait_ready(server)
    postgres.ensure_database("basisconv", "basisconv", role)
    url = postgres.url("basisconv", "basisconv", role)
    migrations.upgrade(url)
    settings = Settings(
        database_url=SecretStr(url),
        broker_url=SecretStr(valkey.url()),
        secret_key=SecretStr(secrets.token_urlsafe(32)),
        var_dir=folder / "var",
        # Counted, but never reached: one key asks for everybody here.
        max_requests_per_minute=10_000_000,
        max_active_jobs=0,
        max_stored_bytes=0,
        web_processes=arguments.web_processes,
        torch_threads=1,
        device="cpu",
    )
    settings.var_dir.mkdir(mode=0o711)
    engine = make_engine(url, pool_size=2)
    stack.callback(engine.dispose)
    key = owner_key(settings)
    with make_sessions(engine)() as session:
        owner_id = session.scalars(select(ApiKey.owner_id)).one()
    _say(f"{arguments.old:,} old and {arguments.queued:,} queued jobs go into the table")
    model_id = seed.seed_model(engine, owner_id)
    seed.seed_jobs(engine, owner_id, model_id, arguments.old, JobStatus.SUCCEEDED)
    seed.seed_jobs(engine, owner_id, model_id, arguments.queued, JobStatus.QUEUED)
    web = Web(settings, free_port(), folder / "web.log")
    web.start()
    stack.callback(web.stop)
    wait_ready(web)
    return Bench(arguments, folder, settings, engine, key, owner_id, model_id, web)


def _cost(bench: Bench) -> dict[str, float]:
    """Of one request of each kind, before anything else goes on."""
    _say("processor time by kind of request")
    kinds = _kinds(bench, _ids(bench, JobStatus.SUCCEEDED, 2000), _ids(bench, JobStatus.QUEUED, 1000))
    return cost.measure(bench.url, bench.key, bench.web_tree(), kinds, COST_REQUESTS)


# Load


def _load(bench: Bench) -> dict[str, Any]:
    old = _ids(bench, JobStatus.SUCCEEDED, 2000)
    queued = _ids(bench, JobStatus.QUEUED, max(bench.arguments.streams, 1000))
    processes = bench.web_tree()
    plan = Plan(
        url=bench.url,
        key=bench.key,
        rate=bench.arguments.rate,
        seconds=bench.arguments.seconds,
        warm_up_seconds=WARM_UP_SECONDS,
        kinds=_kinds(bench, old, queued),
        streams=[f"/v1/jobs/{job}/events" for job in queued[: bench.arguments.streams]],
    )
    _say(f"{plan.rate:g} requests a second for {plan.seconds:g} s, {len(plan.streams)} event streams open")
    memory: list[int] = []
    busy = _talking(bench, queued[:BUSY_JOBS])
    started = time.monotonic()

    def look() -> None:
        next(busy)
        memory.append(sum(process.memory_info().rss for process in processes))

    cpu_before = cost.seconds_of(processes)
    found = _generate(bench, plan, look)
    cpu = (cost.seconds_of(processes) - cpu_before) / (time.monotonic() - started)
    warm = memory[round(WARM_UP_SECONDS) + 2 :] or memory
    return _summary(found) | {
        "cores_of_web": round(cpu, 3),
        "resident_bytes": {"begin": warm[0], "end": warm[-1], "most": max(warm)},
        "streams": {
            "open": found["streams_open"],
            "broken": found["streams_broken"],
            "events": len(found["event_seconds"]),
            **_quantiles(found["event_seconds"]),
        },
    }


def _kinds(bench: Bench, old: list[str], queued: list[str]) -> list[Kind]:
    body = json.dumps({"model": bench.model_id, "compression": {"target": {"macs": 0.5}, "basis": "weights"}})
    return [
        Kind("read a job", 30, "GET", "/v1/jobs/{id}", old + queued),
        Kind("list of jobs", 20, "GET", "/v1/jobs?limit=20"),
        Kind("list of running jobs", 5, "GET", "/v1/jobs?status=running"),
        Kind("list of old jobs", 5, "GET", "/v1/jobs?status=succeeded&after={id}", old),
        Kind("events of a job", 10, "GET", "/v1/jobs/{id}/events", old),
        Kind("curves of a job", 5, "GET", "/v1/jobs/{id}/metrics", old),
        Kind("read a network", 10, "GET", f"/v1/models/{bench.model_id}"),
        Kind("page of jobs", 5, "GET", "/jobs"),
        Kind("create a job", 10, "POST", "/v1/jobs", body=body),
    ]


def _ids(bench: Bench, status: JobStatus, count: int) -> list[str]:
    statement = select(Job.id).where(Job.status == status).order_by(Job.id.desc()).limit(count)
    with make_sessions(bench.engine)() as session:
        return list(session.scalars(statement))


def _talking(bench: Bench, jobs: list[str]) -> Iterator[None]:
    """At every step, one event of each of these jobs, as their workers would write it."""
    sessions = make_sessions(bench.engine)
    publisher = BusPublisher(bench.settings.broker_url.get_secret_value())
    while True:
        for job in jobs:
            with sessions.begin() as session:
                events.append(session, job, "progress", "finetune", "…", {"fraction": 0.5}, datetime.now(UTC))
            publisher.wake(job)
        yield


def _bare_load(bench: Bench) -> dict[str, Any]:
    port = free_port()
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level", "warning"]
    command = [sys.executable, "-m", "uvicorn", "benchmarks.service.bare:app", *arguments]
    with _running(command, bench, lambda: _answers(f"http://127.0.0.1:{port}/bare")):
        plan = Plan(
            url=f"http://127.0.0.1:{port}",
            key=bench.key,
            rate=bench.arguments.rate,
            seconds=min(bench.arguments.seconds, 30),
            warm_up_seconds=2,
            kinds=[Kind("bare Starlette", 1, "GET", "/bare")],
        )
        return _summary(_generate(bench, plan, lambda: None))


def _generate(bench: Bench, plan: Plan, every_second: Callable[[], None]) -> dict[str, Any]:
    """Run the generator as a process of its own; what it found."""
    plan_file, out_file = bench.folder / "plan.json", bench.folder / "found.json"
    plan.write(plan_file)
    command = [sys.executable, "-m", "benchmarks.service.load", str(plan_file), str(out_file)]
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            every_second()
            time.sleep(1)
    if process.returncode != 0:
        raise SystemExit("The load generator failed.")
    found: dict[str, Any] = json.loads(out_file.read_text())
    return found


def _summary(found: dict[str, Any]) -> dict[str, Any]:
    everything = [latency for latencies in found["latencies"].values() for latency in latencies]
    return {
        "requests": len(everything),
        "errors": len(found["errors"]),
        "first_errors": found["errors"][:5],
        "generator_late_ms": round(1000 * found["late_seconds"], 2),
        "all": _quantiles(everything),
        "kinds": {name: _quantiles(found["latencies"][name]) for name in sorted(found["latencies"])},
    }


def _quantiles(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    ordered = sorted(seconds)
    return {
        "count": len(ordered),
        **{
            f"p{share}_ms": round(1000 * ordered[min(round(len(ordered) * share / 100), len(ordered) - 1)], 2)
            for share in (50, 99)
        },
        "most_ms": round(1000 * ordered[-1], 2),
    }


# From submission to start


def _starts(bench: Bench) -> dict[str, Any]:
    """A worker that has nothing else to do; the queue is emptied first."""
    _say("from submission to start")
    _empty_queue(bench)
    with bench.client() as client, ExitStack() as stack:
        for queue in ("quick", "jobs"):
            worker = Worker(bench.settings, queue, bench.folder / f"{queue}.log")
            worker.start()
            stack.callback(worker.stop)
            wait_ready(worker)
        model = _example_model(client)
        # Sent to claimed, by the clock that all of them share; the first pays for connections.
        ours = [_start_of_job(client, model) for _ in range(STARTS + 1)][1:]
    return {"job": _quantiles(ours), "bare Celery task": _quantiles(_bare_starts(bench))}


def _empty_queue(bench: Bench) -> None:
    with bench.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET status = 'cancelled' WHERE status = 'queued'"))
    with _broker(bench) as client:
        client.delete("jobs", "quick")


@contextmanager
def _broker(bench: Bench) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url(bench.settings.broker_url.get_secret_value())) as client:
        yield client


def _example_model(client: httpx.Client) -> str:
    with example.NETWORK.open("rb") as file:
        answer = client.post("/v1/models", files={"file": file}, data={"input": json.dumps(example.INPUT)})
    model = str(answer.json()["id"])
    _wait(lambda: client.get(f"/v1/models/{model}").json()["status"] == "ready")
    return model


def _start_of_job(client: httpx.Client, model: str) -> float:
    body = {"model": model, "compression": {"target": {"macs": 0.5}, "basis": "weights"}}
    sent = time.time()
    job = f"/v1/jobs/{client.post('/v1/jobs', json=body).json()['id']}"
    _wait(lambda: client.get(job).json()["started_at"] is not None)
    started = datetime.fromisoformat(client.get(job).json()["started_at"]).timestamp()
    client.post(f"{job}/cancel")
    _wait(lambda: client.get(job).json()["finished_at"] is not None)
    time.sleep(1)  # the worker's way back to its queue
    return started - sent


def _bare_starts(bench: Bench) -> list[float]:
    broker = bench.settings.broker_url.get_secret_value()
    os.environ["BENCH_BROKER"] = broker
    command = [sys.executable, "-m", "celery", "-q", "-A", "benchmarks.service.bare:celery", "worker"]
    command += ["-P", "solo", "-Q", "bare", "--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
    sender = bare.celery
    sender.conf.broker_url = broker
    found = []
    with _broker(bench) as client, _running(command, bench, lambda: True, BENCH_BROKER=broker):
        for number in range(STARTS + 1):
            sent = time.time()
            sender.send_task("bare.start", args=[number], queue="bare")
            _wait(lambda number=number: client.hexists(bare.STARTED, str(number)))  # type: ignore[misc]
            found.append(float(client.hget(bare.STARTED, str(number)) or 0) - sent)
    return found[1:]


# Upload


def _upload(bench: Bench) -> dict[str, Any]:
    """One large file in both ways, beside `cp` on the same disk."""
    _say(f"uploads of {bench.arguments.upload_megabytes} MB")
    size = bench.arguments.upload_megabytes * 1_000_000
    return service_upload.measure(bench.url, bench.key, bench.folder, size)


# Helpers


@contextmanager
def _running(
    command: list[str], bench: Bench, is_ready: Callable[[], bool], **environment: str
) -> Iterator[None]:
    process = spawn(
        command,
        log=bench.folder / "bare.log",
        environment=as_environment(bench.settings, os.environ) | environment,
    )
    try:
        _wait(is_ready)
        yield
    finally:
        stop(process, grace_seconds=10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _wait(condition: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("Something that a benchmark waited for did not come about.")
        time.sleep(0.02)


def _say(what: str) -> None:
    print(f"… {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
