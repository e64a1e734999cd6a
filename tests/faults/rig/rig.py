"""PostgreSQL, Valkey, web process and workers of its own, started again when they end, as `make run` does."""

import hashlib
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from pydantic import SecretStr
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session, sessionmaker

from app import example
from app.core import migrations
from app.core.db import make_engine, make_sessions
from app.core.queue import CeleryDoorbell
from app.core.settings import Settings
from app.embedded.children import NotStarted, Server, wait_ready
from app.embedded.folders import AlreadyRunning, free_port
from app.embedded.owner import owner_key
from app.embedded.postgres import Postgres
from app.embedded.processes import Web, Worker
from app.embedded.valkey import Valkey
from app.jobs.tables import Job, JobCheckpoint, JobEvent
from tests.conftest import make_settings
from tests.faults.rig.follower import Follower
from tests.support.processes import alive

SECONDS = 240.0  # for anything that is waited for: a generous bound, no measurement


class SetWeb(Web):
    application = "tests.faults.rig.web_app:app"


class HeldWorker(Worker):
    application = "tests.faults.rig.worker_app"


@dataclass
class Rig:
    """Everything is started, killed and started again from the test's own thread.

    The kernel ends a child with the thread that started it.
    """

    folder: Path
    settings: Settings
    key: str
    postgres: Postgres
    valkey: Valkey
    web: Web
    quick: Worker
    jobs: Worker
    spares: list[Worker] = field(default_factory=list)
    down: set[str] = field(default_factory=set)  # names of those that are to stay down for now
    engine: Engine = field(init=False)
    sessions: sessionmaker[Session] = field(init=False)
    client: httpx.Client = field(init=False)
    doorbell: CeleryDoorbell = field(init=False)

    def __post_init__(self) -> None:
        self.engine = make_engine(self.settings.database_url.get_secret_value())
        self.sessions = make_sessions(self.engine)
        self.doorbell = CeleryDoorbell(self.settings.broker_url.get_secret_value())
        self.client = httpx.Client(
            base_url=self.settings.public_url,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=30,
            trust_env=False,
        )

    @property
    def servers(self) -> list[Server]:
        return [self.postgres, self.valkey, self.web, self.quick, self.jobs, *self.spares]

    def pump(self) -> None:
        """Start again whatever has ended."""
        for server in self.servers:
            ended = server.process is not None and server.process.poll() is not None
            if ended and server.name not in self.down:
                try:
                    server.start()
                except AlreadyRunning:  # what it left still holds the lock: the next round
                    continue

    def wait(self, condition: Callable[[], object], seconds: float = SECONDS, what: str = "") -> None:
        deadline = time.monotonic() + seconds
        while not self._holds(condition):
            self.pump()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what or 'it'} did not become true within {seconds:g} s")
            time.sleep(0.05)

    def _holds(self, condition: Callable[[], object]) -> bool:
        try:
            return bool(condition())
        except (httpx.HTTPError, Unanswered):
            return False
        except Exception as error:
            if type(error).__name__ in ("OperationalError", "InterfaceError"):
                return False
            raise

    def wait_all_up(self) -> None:
        self.pump()
        for server in self.servers:
            self.wait(server.is_ready, what=f"{server.name} up")
        self.wait(lambda: self.get("/readyz"), what="readiness")

    # What a client does.

    def get(self, path: str, **query: Any) -> Any:
        answer = self.client.get(path, params=query)
        if answer.status_code >= 500:
            raise Unanswered(answer.text)
        answer.raise_for_status()
        return answer.json() if "json" in answer.headers["content-type"] else answer.content

    def post(self, path: str, key: str | None = None, **body: Any) -> Any:
        """The answer, whatever has to be started again for it."""
        return self._insist(path, key or secrets.token_hex(8), self.pump, body)

    def _insist(self, path: str, key: str, between: Callable[[], None], body: dict[str, Any]) -> Any:
        """POST again and again with one Idempotency-Key until there is an answer."""
        headers = {"Idempotency-Key": key}
        deadline = time.monotonic() + SECONDS
        while True:
            between()
            try:
                answer = self.client.post(path, headers=headers, **body)
                if answer.status_code < 500 and answer.status_code not in (409, 425):
                    answer.raise_for_status()
                    return answer.json()
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer to POST {path}")
            time.sleep(0.1)

    def upload_model(self) -> str:
        files = {"file": ("digits_cnn.onnx", example.NETWORK.read_bytes())}
        data = {"input": httpx.Request("POST", "http://x", json=example.INPUT).content.decode()}
        return str(self.post("/v1/models", files=files, data=data)["id"])

    def upload_dataset(self) -> str:
        files = {"file": ("digits.npz", example.IMAGES.read_bytes())}
        return str(self.post("/v1/datasets", files=files)["id"])

    def wait_ready(self, kind: str, resource_id: str) -> Any:
        found: dict[str, Any] = {}

        def is_over() -> bool:
            found.update(self.get(f"/v1/{kind}/{resource_id}"))
            return found["status"] != "inspecting"

        self.wait(is_over, what=f"inspection of {resource_id}")
        assert found["status"] == "ready", found["error"]
        return found

    def submit(self, model: str, dataset: str, key: str | None = None, **changes: Any) -> str:
        return str(self.post("/v1/jobs", key, json=job_body(model, dataset) | changes)["id"])

    def submit_as_client(self, model: str, dataset: str, key: str) -> str:
        """The same from another thread, which starts nothing again; the job's name is the key."""
        body = {"json": job_body(model, dataset) | {"name": key}}
        return str(self._insist("/v1/jobs", key, lambda: None, body)["id"])

    def follow(self, job_id: str) -> Follower:
        return Follower(self.settings.public_url, self.key, job_id)

    # What a test does to it.

    @contextmanager
    def held(self, place: str) -> Iterator[None]:
        """Whatever child comes to this place waits there for as long as the block lasts."""
        hold = self.settings.var_dir / "holds" / place
        hold.touch()
        try:
            yield
        finally:
            hold.unlink(missing_ok=True)

    def child_of(self, worker: Worker) -> psutil.Process:
        found: list[psutil.Process] = []

        def look() -> bool:
            assert worker.process is not None
            family = psutil.Process(worker.process.pid).children()
            found[:] = [process for process in family if any("held_child" in a for a in process.cmdline())]
            return bool(found)

        self.wait(look, what=f"a child of {worker.name}")
        return found[0]

    def kill(self, server: Server) -> None:
        """SIGKILL, and it is gone when this returns; `pump` starts it again."""
        assert server.process is not None
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()

    def kill_postgres(self) -> None:
        """The postmaster and with it, at the next look, all that it started."""
        assert self.postgres.process is not None
        family = psutil.Process(self.postgres.process.pid).children(recursive=True)
        self.kill(self.postgres)
        self.wait(lambda: not any(alive(process.pid) for process in family), what="PostgreSQL's end")

    @contextmanager
    def frozen_postgres(self) -> Iterator[None]:
        """All of it stands still for as long as the block lasts."""
        assert self.postgres.process is not None
        postmaster = psutil.Process(self.postgres.process.pid)
        family = [postmaster, *postmaster.children(recursive=True)]
        for process in family:
            process.suspend()
        try:
            yield
        finally:
            for process in reversed(family):
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def wipe_valkey(self) -> None:
        """Kill it and take its data away."""
        self.kill(self.valkey)
        data = self.valkey.folder / "data"
        shutil.rmtree(data)
        data.mkdir(mode=0o700)

    def start_spare(self, number: int) -> Worker:
        """One more worker for jobs."""
        log = self.folder / "log" / f"worker-jobs-{number}.log"
        worker = HeldWorker(self.settings, "jobs", log, number=number)
        worker.start()
        wait_ready(worker)
        self.spares.append(worker)
        return worker

    def stop_spares(self) -> None:
        while self.spares:
            self.spares.pop().stop()

    def ring(self, job_id: str) -> None:
        assert self.doorbell.ring("worker.run_job", job_id)

    def set_clock(self, of: str, seconds: float) -> None:
        (self.settings.var_dir / f"clock-{of}").write_text(str(seconds))

    # What is looked at.

    def job(self, job_id: str) -> Job:
        with self.sessions() as session:
            return session.get_one(Job, job_id)

    def is_kept(self, job_id: str, part: str) -> bool:
        with self.sessions() as session:
            return session.get(JobCheckpoint, (job_id, part)) is not None

    def done_events(self, job_id: str) -> int:
        with self.sessions() as session:
            done = select(func.count()).where(JobEvent.job_id == job_id, JobEvent.type == "done")
            return session.scalar(done) or 0

    def scratch(self) -> list[Path]:
        root = self.settings.var_dir / "scratch"
        return [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []

    def stored(self) -> list[Path]:
        """All files of the object storage, half-written ones as well."""
        root = self.settings.var_dir / "objects"
        return sorted(path for path in root.rglob("*") if path.is_file())

    def stop(self) -> None:
        self.client.close()
        self.doorbell.close()
        self.engine.dispose()
        for server in (*self.spares, self.jobs, self.quick, self.web, self.valkey, self.postgres):
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Unanswered(Exception):  # noqa: N818 - says what happened
    """The service says that it cannot answer now."""


def job_body(model: str, dataset: str) -> dict[str, Any]:
    """A real job, but a short one: the bundled example, cut as in the paper, with fewer files to write."""
    body = example.job_body(model, dataset) | {"exports": ["onnx", "safetensors"]}
    body["compression"] = {"basis": "weights", "target": {"macs": 0.5}}
    return body | {"training": body["training"] | {"epochs": 4}}


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def start_rig() -> Rig:
    folder = Path(tempfile.mkdtemp(prefix="basisconv-rig-"))
    folder.chmod(0o711)  # as root PostgreSQL and the children run as other uids
    logs, var = folder / "log", folder / "var"
    logs.mkdir()
    for made in (var, var / "holds"):
        made.mkdir()
        made.chmod(0o755)
    admin, role, broker = (secrets.token_urlsafe(24) for _ in range(3))
    postgres = Postgres(folder / "postgres", admin, logs / "postgres.log")
    valkey = Valkey(folder / "valkey", broker, logs / "valkey.log")
    for server in (postgres, valkey):
        server.prepare()
        server.start()
        wait_ready(server)
    postgres.ensure_database("basisconv", "basisconv", role)
    database_url = postgres.url("basisconv", "basisconv", role)
    migrations.upgrade(database_url)
    port = free_port()
    settings = make_settings(
        database_url,
        valkey.url(),
        var,
        public_url=f"http://127.0.0.1:{port}",
        sandbox_readable=str(var / "holds"),
        sweep_seconds=2,
        lease_seconds=5,
        heartbeat_seconds=1,
        secret_key=SecretStr(secrets.token_urlsafe(32)),
    )
    web = SetWeb(settings, port, logs / "web.log")
    quick = HeldWorker(settings, "quick", logs / "worker-quick.log")
    jobs = HeldWorker(settings, "jobs", logs / "worker-jobs.log")
    rig = Rig(folder, settings, owner_key(settings), postgres, valkey, web, quick, jobs)
    try:
        for process in (web, quick, jobs):
            process.start()
        for process in (web, quick, jobs):
            wait_ready(process)
    except NotStarted:
        rig.stop()
        raise
    return rig
