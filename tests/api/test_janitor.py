"""What is deleted is gone from the storage too, what is in use stays, and nothing is kept by accident."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app.artifacts.tables import Artifact
from app.core.db import Base
from app.core.settings import Settings
from app.core.unit import Services
from app.jobs import events
from app.jobs.tables import Job, JobEvent
from app.keys.tables import IdempotencyRecord, Reservation
from app.plans.tables import Measurement, Plan
from app.storage.janitor import ORPHAN_AGE, STALE_UPLOAD, Janitor, sweep_orphans
from app.storage.keys import object_key
from app.storage.references import OBJECTS, lock_object
from tests.api.conftest import HandClock
from tests.api.seeds import (
    RESULT,
    add_artifact,
    add_dataset,
    add_job,
    add_model,
    add_plan,
    onnx_bytes,
)

NOT_OBJECTS = {  # hashes of something that lies at no address of its own
    "idempotency_records.body_sha256",
    "uploads.sha256",
    "uploads.expected_sha256",
    "job_checkpoints.sha256",
}
SOON = timedelta(minutes=1)


def _janitor(services: Services, **changed: object) -> Janitor:
    settings = services.settings.model_copy(update=changed)
    return Janitor(services.sessions, services.store, services.clock, settings)


def _orphan(services: Services, data: bytes = b"orphan", age: timedelta = ORPHAN_AGE + SOON) -> str:
    """An object that no row names, as a killed process leaves it."""
    sha256 = services.store.put_bytes(data).sha256
    written = (datetime.now(UTC) - age).timestamp()
    os.utime(_path(services, sha256), (written, written))
    return sha256


def _path(services: Services, sha256: str) -> Path:
    return services.settings.var_dir / "objects" / object_key(sha256)


def test_every_column_that_names_an_object_is_known_to_the_sweeper() -> None:
    known = {f"{column.table.name}.{column.name}" for column in OBJECTS}
    hashes = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.sorted_tables
        for column in table.columns
        if "sha256" in column.name
    }
    missing = hashes - known - NOT_OBJECTS
    assert not missing, f"app/storage/references.py: OBJECTS lacks {missing}; its objects would be swept"


# Objects without rows


def test_an_object_that_no_row_names_goes_once_it_is_old(services: Services) -> None:
    old, young = _orphan(services), _orphan(services, b"young", age=ORPHAN_AGE - SOON)
    _janitor(services).sweep()
    assert not services.store.exists(old)
    assert services.store.exists(young)


def test_what_was_measured_for_plans_stays_with_its_model(services: Services) -> None:
    kept = _orphan(services)
    model = add_model(services, "owner_x")
    with services.sessions.begin() as session:
        now = services.clock.now()
        session.add(Measurement(model_id=model, key="k", sha256=kept, bytes=6, created_at=now))
    _janitor(services).sweep()
    assert services.store.exists(kept)


def test_plans_go_once_they_have_been_kept_long_enough(services: Services) -> None:
    model, now = add_model(services, "owner_x"), services.clock.now()
    old = {"status": "ready", "finished_at": now - timedelta(days=8)}
    gone = add_plan(services, model, "owner_x", **old)
    kept = [
        add_plan(services, model, "owner_x", **old | {"finished_at": now - timedelta(days=6)}),
        add_plan(services, model, "owner_x", created_at=now - timedelta(days=8)),
    ]
    _janitor(services, retention_days=7).sweep()
    with services.sessions() as session:
        assert session.get(Plan, gone) is None
        assert all(session.get(Plan, plan) is not None for plan in kept)


def test_an_object_that_any_kind_of_row_names_stays_however_old(services: Services) -> None:
    kept = [_orphan(services, bytes([number])) for number in range(5)]
    model = add_model(services, "owner_x", sha256=kept[0], canonical_sha256=kept[1])
    add_dataset(services, "owner_x", sha256=kept[2], canonical_sha256=kept[3])
    add_artifact(services, add_job(services, model, "owner_x"), bytes([4]))
    _janitor(services).sweep()
    assert [services.store.exists(sha256) for sha256 in kept] == [True] * 5


def test_an_upload_of_the_same_bytes_during_the_sweep_keeps_its_object(
    services: Services, client: TestClient
) -> None:
    """The sweeper has seen the orphan and waits for its lock, which the upload holds until its row stands."""
    data = onnx_bytes()
    sha256 = _orphan(services, data)
    before = datetime.now(UTC) - ORPHAN_AGE
    with services.sessions() as upload, ThreadPoolExecutor(1) as pool:
        lock_object(upload, sha256)
        sweeping = pool.submit(sweep_orphans, services.sessions, services.store, before)
        _wait_for_lock(services)
        upload.add(_row(services, sha256))
        upload.commit()
        assert sweeping.result(30) == (0, 0)
    assert services.store.exists(sha256)


def test_an_upload_after_the_sweep_brings_its_object_back(services: Services, client: TestClient) -> None:
    data = onnx_bytes()
    sha256 = _orphan(services, data)
    before = datetime.now(UTC) - ORPHAN_AGE
    assert sweep_orphans(services.sessions, services.store, before) == (1, len(data))
    made = client.post("/v1/models", files={"file": ("n.onnx", data)}).json()
    assert made["sha256"] == sha256
    assert services.store.exists(sha256)


def test_uploads_deletions_and_sweeps_at_once_lose_nothing_that_a_row_names(
    services: Services, client: TestClient
) -> None:
    """The same bytes come and go from three sides while a sweeper with no patience at all runs on and on."""
    data, stop = onnx_bytes(), threading.Event()

    def sweep_on() -> None:
        while not stop.is_set():
            sweep_orphans(services.sessions, services.store, datetime.now(UTC) + timedelta(days=1))

    def come_and_go(_: int) -> None:
        for _turn in range(8):
            made = client.post("/v1/models", files={"file": ("n.onnx", data)}).json()
            assert services.store.exists(made["sha256"]), "a row without its object"
            assert client.delete(f"/v1/models/{made['id']}").status_code == 204

    last = client.post("/v1/models", files={"file": ("n.onnx", data)}).json()
    with ThreadPoolExecutor(4) as pool:
        sweeping = pool.submit(sweep_on)
        try:
            list(pool.map(come_and_go, range(3)))
        finally:
            stop.set()
        sweeping.result(30)
    assert services.store.exists(last["sha256"])
    assert client.delete(f"/v1/models/{last['id']}").status_code == 204
    assert not services.store.exists(last["sha256"])


def test_shared_bytes_stay_until_the_last_row_is_gone(services: Services, client: TestClient) -> None:
    data = onnx_bytes()
    first, second = (client.post("/v1/models", files={"file": ("n.onnx", data)}).json() for _ in range(2))
    assert client.delete(f"/v1/models/{first['id']}").status_code == 204
    assert services.store.exists(first["sha256"])
    assert client.delete(f"/v1/models/{second['id']}").status_code == 204
    assert not services.store.exists(first["sha256"])


def test_a_deletion_whose_object_did_not_follow_is_finished_by_the_sweep(
    services: Services, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storage that fails, like a process that is killed, just after the row's deletion was committed."""
    made = client.post("/v1/models", files={"file": ("n.onnx", onnx_bytes())}).json()
    with monkeypatch.context() as broken:
        broken.setattr(services.store, "delete", _fail)
        assert client.delete(f"/v1/models/{made['id']}").status_code == 204
    assert services.store.exists(made["sha256"])
    assert sweep_orphans(services.sessions, services.store, datetime.now(UTC) + SOON)[0] == 1
    assert not services.store.exists(made["sha256"])


def _fail(sha256: str) -> None:
    raise OSError(f"cannot delete {sha256}")


def _row(services: Services, sha256: str) -> object:
    from app.models.tables import Model
    from tests.api.seeds import INPUT, SUMMARY

    return Model(
        id="model_" + "0" * 26,
        owner_id="owner_x",
        name="n",
        format="onnx",
        status="ready",
        bytes=1,
        sha256=sha256,
        requested_input={},
        input=INPUT,
        summary=SUMMARY,
        created_at=datetime.now(UTC),
    )


def _wait_for_lock(services: Services) -> None:
    """Until somebody waits for an advisory lock."""
    from sqlalchemy import text

    from tests.support.processes import wait_until

    waits = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")

    def waiting() -> bool:
        with services.engine.connect() as connection:
            return bool(connection.scalar(waits))

    wait_until(waiting, 30)


# Jobs past their time


def _ended_job(services: Services, days_ago: float, data: bytes = b"file", **changed: object) -> str:
    finished = services.clock.now() - timedelta(days=days_ago)
    values = {"status": "succeeded", "result": RESULT, "finished_at": finished} | changed
    job = add_job(services, add_model(services, "owner_x", sha256="a" * 64), "owner_x", **values)
    add_artifact(services, job, data, owner_id="owner_x")
    with services.sessions.begin() as session:
        events.append(session, job, "progress", None, "Something happened", {}, finished)
    return job


def _count(services: Services, table: type[Base]) -> int:
    with services.sessions() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_an_ended_job_goes_with_all_it_made_when_its_time_is_over(services: Services, status: str) -> None:
    _ended_job(services, 8, status=status)
    young = _ended_job(services, 6, b"young")
    _janitor(services, retention_days=7).sweep()
    with services.sessions() as session:
        assert session.scalars(select(Job.id)).all() == [young]
    assert (_count(services, Artifact), _count(services, JobEvent)) == (1, 1)
    assert len(_objects(services)) == 1


def test_a_job_that_has_not_ended_stays_however_old(services: Services) -> None:
    _ended_job(services, 400, status="running", finished_at=None)
    _ended_job(services, 400, status="queued", finished_at=None)
    _janitor(services, retention_days=1).sweep()
    assert _count(services, Job) == 2


def test_without_a_time_jobs_are_kept_for_ever(services: Services) -> None:
    _ended_job(services, 4_000)
    assert services.settings.retention_days == 0
    _janitor(services).sweep()
    assert _count(services, Job) == 1


def test_a_file_that_another_job_made_too_stays_with_that_job(services: Services) -> None:
    _ended_job(services, 8, b"same")
    _ended_job(services, 6, b"same")
    _janitor(services, retention_days=7).sweep()
    [path] = _objects(services)
    assert path.read_bytes() == b"same"


def test_more_jobs_than_fit_one_transaction_all_go(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.retention._AT_ONCE", 3)
    for number in range(8):
        _ended_job(services, 8 + number, bytes([number]))
    _janitor(services, retention_days=7).sweep()
    assert (_count(services, Job), _objects(services)) == (0, [])


def _objects(services: Services) -> list[Path]:
    return [path for path in (services.settings.var_dir / "objects").rglob("*") if path.is_file()]


# Everything else


def test_what_a_killed_upload_left_goes_after_a_day(services: Services, clock: HandClock) -> None:
    staged = services.settings.var_dir / "objects" / "staging" / "half"
    staged.write_bytes(b"half an upload")
    _janitor(services).sweep()
    assert staged.exists()
    clock.advance(seconds=(STALE_UPLOAD + SOON).total_seconds())
    _janitor(services).sweep()
    assert not staged.exists()


def test_answers_and_reservations_that_had_their_time_go(services: Services, clock: HandClock) -> None:
    with services.sessions.begin() as session:
        now = clock.now()
        session.add(Reservation(id="upload_x", owner_id="o", bytes=1, expires_at=now - SOON))
        for key, age in (("old", timedelta(hours=25)), ("young", timedelta(hours=1))):
            session.add(
                IdempotencyRecord(
                    owner_id="o", key=key, route="POST /", body_sha256="x", created_at=now - age
                )
            )
    _janitor(services).sweep()
    with services.sessions() as session:
        assert session.scalars(select(IdempotencyRecord.key)).all() == ["young"]
    assert _count(services, Reservation) == 0


def test_of_two_janitors_only_the_one_with_the_lock_sweeps(services: Services) -> None:
    sha256 = _orphan(services)
    with services.sessions.begin() as other:
        other.scalar(select(func.pg_advisory_xact_lock(Janitor.lock)))
        _janitor(services).sweep()
        assert services.store.exists(sha256)
    _janitor(services).sweep()
    assert not services.store.exists(sha256)


def test_storage_that_is_away_ends_no_janitor(services: Services, settings: Settings) -> None:
    stop = threading.Event()
    janitor = Janitor(
        services.sessions, services.store, services.clock, settings.model_copy(update={"sweep_seconds": 1})
    )
    folder = settings.var_dir / "objects"
    folder.rename(folder.with_name("away"))
    thread = threading.Thread(target=janitor.run, args=(stop,), daemon=True)
    thread.start()
    folder.with_name("away").rename(folder)
    sha256 = _orphan(services)
    from tests.support.processes import wait_until

    wait_until(lambda: not services.store.exists(sha256), 30)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
