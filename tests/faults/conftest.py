"""Real jobs on real workers, which the tests then kill. The reaper, else in the web process, is a thread."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from app.artifacts.tables import Artifact
from app.core.clock import SystemClock
from app.core.queue import CeleryDoorbell
from app.core.settings import Settings
from app.embedded.processes import Worker
from app.jobs import checkpoints
from app.jobs.reaper import Reaper
from app.jobs.states import ENDED, JobStatus
from app.jobs.tables import Job, JobCheckpoint, JobEvent, JobMetric
from app.storage.keys import CHECKPOINTS
from app.storage.store import ObjectStore, open_store
from tests.faults.rig.checks import Ground, make_ground
from tests.faults.rig.rig import Rig, start_rig
from tests.faults.rig.table import Table
from tests.support.processes import wait_until
from tests.worker import networks
from tests.worker.rows import add_dataset, add_job, add_model

TRAIN, TEST = 128, 64


@dataclass
class Bench:
    """What a test does to a job: start it, look at it, hurt it."""

    sessions: sessionmaker[Session]
    doorbell: CeleryDoorbell
    store: ObjectStore
    model_id: str
    dataset_id: str

    def start(
        self, epochs: int = 0, *, ring: bool = True, model_id: str | None = None, batch_size: int = 128
    ) -> str:
        """A queued job whose bell was rung, as POST /v1/jobs leaves it."""
        options = {
            "kind": "compress",
            "compression": {"target": {"macs": 0.6}},
            "training": {"epochs": epochs, "batch_size": batch_size},
            "exports": ["onnx"],
        }
        model_id = model_id or self.model_id
        job_id = add_job(self.sessions, model_id, dataset_id=self.dataset_id, options=options)
        if ring:
            self.ring(job_id)
        return job_id

    def add_model(self, side: int) -> str:
        """The same network for images of another size."""
        model = networks.small_cnn(side=side)
        values = {"input": networks.INPUT | {"shape": [3, side, side]}, "bytes": len(model)}
        summary = {"outputs": [networks.CLASSES]}
        return add_model(self.sessions, self.store.put_bytes(model).sha256, summary=summary, **values)

    def ring(self, job_id: str) -> None:
        assert self.doorbell.ring("worker.run_job", job_id)

    def job(self, job_id: str) -> Job:
        with self.sessions() as session:
            return session.get_one(Job, job_id)

    def wait(self, job_id: str, status: str, seconds: float = 60) -> Job:
        wait_until(lambda: self.job(job_id).status == status or self._ended(job_id), seconds)
        job = self.job(job_id)
        assert job.status == status, (job.status, job.error)
        return job

    def _ended(self, job_id: str) -> bool:
        return self.job(job_id).status in ENDED

    def wait_for_stage(self, job_id: str, stage: str, seconds: float = 60) -> None:
        wait_until(lambda: self.job(job_id).stage == stage or self._ended(job_id), seconds)
        job = self.job(job_id)
        assert job.stage == stage, (job.status, job.stage, job.error)

    def cancel(self, job_id: str) -> None:
        """As POST /v1/jobs/{id}/cancel does for a running job."""
        with self.sessions.begin() as session:
            session.execute(
                update(Job)
                .where(Job.id == job_id, Job.status == JobStatus.RUNNING)
                .values(status=JobStatus.CANCELLING)
            )

    def count(self, job_id: str, type_: str) -> int:
        with self.sessions() as session:
            statement = select(func.count()).where(JobEvent.job_id == job_id, JobEvent.type == type_)
            return session.scalar(statement) or 0

    def parts(self, job_id: str) -> dict[str, JobCheckpoint]:
        """What the job's latest checkpoint consists of."""
        with self.sessions() as session:
            return {part.part: part for part in checkpoints.of_job(session, job_id)}

    def wait_for_step(self, job_id: str, step: int, seconds: float = 60) -> JobCheckpoint:
        """Until a checkpoint in the middle of fine-tuning is kept that is at least so far."""

        def found() -> bool:
            part = self.parts(job_id).get("training")
            return part is not None and part.step >= step

        wait_until(lambda: found() or self._ended(job_id), seconds)
        return self.parts(job_id)["training"]

    def has_message(self, job_id: str, text: str) -> bool:
        """Whether an event says so."""
        said = select(func.count()).where(JobEvent.job_id == job_id, JobEvent.message.startswith(text))
        with self.sessions() as session:
            return bool(session.scalar(said))

    def kept_objects(self) -> list[str]:
        """All checkpoints in the storage."""
        return self.store.keys_under(CHECKPOINTS)

    def hashes(self, job_id: str) -> dict[str, str]:
        """The job's artifacts; the bytes in the store are looked at, not believed."""
        with self.sessions() as session:
            found = session.scalars(select(Artifact).where(Artifact.job_id == job_id)).all()
        for artifact in found:
            data = b"".join(self.store.read(artifact.sha256, 0, artifact.bytes))
            assert hashlib.sha256(data).hexdigest() == artifact.sha256
        assert len({artifact.name for artifact in found}) == len(found)
        return {artifact.name: artifact.sha256 for artifact in found}

    def metrics(self, job_id: str) -> dict[tuple[str, int], float]:
        """The curves that do not depend on the clock."""
        with self.sessions() as session:
            points = session.scalars(select(JobMetric).where(JobMetric.job_id == job_id)).all()
        return {(p.name, p.step): p.value for p in points if p.name != "images_per_second"}

    def artifacts(self, job_id: str) -> int:
        with self.sessions() as session:
            return session.scalar(select(func.count()).where(Artifact.job_id == job_id)) or 0


def child_of(worker: Worker) -> psutil.Process:
    """The child that a worker's job runs in."""
    assert worker.process is not None
    found: list[psutil.Process] = []

    def look() -> bool:
        assert worker.process is not None
        for process in psutil.Process(worker.process.pid).children():
            with suppress(psutil.Error):
                found.extend([process] * ("worker.child" in process.cmdline()))
        return bool(found)

    wait_until(look, 30)
    return found[0]


@pytest.fixture(scope="session")
def faults_table() -> Iterator[Table]:
    """What became of everything that something happened to."""
    table = Table()
    yield table
    table.write_part()


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    """A service whose every process may be killed; shared, for it takes seconds to start."""
    made = start_rig()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def made_ground(rig: Rig) -> Ground:
    return make_ground(rig)


@pytest.fixture
def ground(made_ground: Ground) -> Ground:
    """The rig with everything up, a network and images to work on, and what a job on them gives."""
    made_ground.rig.wait_all_up()
    return made_ground


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings.objects_url())


@pytest.fixture
def bench(
    sessions: sessionmaker[Session], settings: Settings, store: ObjectStore, tmp_path: Path
) -> Iterator[Bench]:
    """A small network and its images in the store, and the reaper at work."""
    model = networks.small_cnn()
    x = networks.images(TRAIN + TEST)
    path, found = networks.dataset(tmp_path / "data", x, networks.spread_out(model, len(x)), TRAIN)
    about = {name: found[name] for name in ("examples", "classes", "image", "labelled", "details")}
    doorbell = CeleryDoorbell(settings.broker_url.get_secret_value())
    stop = Event()
    reaper = Reaper(sessions, store, doorbell, SystemClock(), settings)
    thread = Thread(target=reaper.run, args=(stop,), daemon=True)
    thread.start()
    columns = {"input": networks.INPUT, "summary": {"outputs": [networks.CLASSES]}, "bytes": len(model)}
    yield Bench(
        sessions,
        doorbell,
        store,
        add_model(sessions, store.put_bytes(model).sha256, **columns),
        add_dataset(sessions, store.put_file(path).sha256, **about),
    )
    stop.set()
    thread.join()
    doorbell.close()
