"""How checkpoints get from a child's folder to the storage: only plain files, only the newest, only ours."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.jobs import checkpoints, leases
from app.jobs.checkpoints import Reached
from app.jobs.leases import Lease
from app.jobs.tables import Job
from app.storage.keys import CHECKPOINTS
from tests.worker.rows import now
from worker.carrier import Carrier, carrier_for, open_plain
from worker.runtime import Runtime

Sessions = sessionmaker[Session]


def reached(part: str, step: int = 0) -> Reached:
    return Reached(part, "finetune", 0, step, event_seq=1, warnings=0)


@pytest.mark.parametrize("kind", ["symlink", "hard link", "folder", "pipe", "missing"])
def test_what_is_no_plain_file_of_the_childs_own_is_not_opened(tmp_path: Path, kind: str) -> None:
    secret, path = tmp_path / "secret", tmp_path / "checkpoint-1.safetensors"
    secret.write_text("not for the storage")
    match kind:
        case "symlink":
            path.symlink_to(secret)
        case "hard link":
            path.hardlink_to(secret)
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)  # opening it would wait for a writer
    with pytest.raises(OSError, match=r"plain|symbolic|directory|No such"):
        open_plain(path)


def test_of_what_waits_only_the_newest_is_carried_and_the_network_first() -> None:
    carried: list[str] = []
    discarded: list[str] = []
    go_on, busy = Event(), Event()

    def carry(file: str, _: Reached) -> None:
        busy.set()
        go_on.wait(30)
        carried.append(file)

    carrier = Carrier(carry, discarded.append)
    carrier.take("a", reached("network"))
    busy.wait(30)
    carrier.take("b", reached("training"))
    carrier.take("c", reached("training"))
    carrier.take("d", reached("network"))  # training that belonged to another network
    carrier.take("e", reached("training"))
    go_on.set()
    assert carrier.finish(30)
    assert (carried, discarded) == (["a", "d", "e"], ["b", "c"])


def test_a_storage_that_hangs_keeps_nobody_who_must_stop() -> None:
    never = Event()
    carrier = Carrier(lambda *_: never.wait(30) and None, lambda _: None)
    carrier.take("a", reached("network"))
    assert not carrier.finish(0.1)
    never.set()


def test_one_that_could_not_be_carried_does_not_keep_the_next_from_it() -> None:
    carried: list[str] = []

    def carry(file: str, _: Reached) -> None:
        if file == "a":
            raise OSError("the storage is away")
        carried.append(file)

    carrier = Carrier(carry, lambda _: None)
    carrier.take("a", reached("network"))
    carrier.take("b", reached("training"))
    assert carrier.finish(30)
    assert carried == ["b"]


@pytest.fixture
def claimed(sessions: Sessions, job_id: str) -> Lease:
    lease = Lease("ours", 60)
    with sessions.begin() as session:
        assert leases.claim_job(session, job_id, lease, now()) is not None
    return lease


def test_the_latest_replaces_the_one_before_and_goes_with_the_jobs_end(
    sessions: Sessions, runtime: Runtime, job_id: str, claimed: Lease, tmp_path: Path
) -> None:
    for number, part in enumerate(["network", "training", "training"], start=1):
        (tmp_path / f"checkpoint-{number}.safetensors").write_bytes(bytes(number))
        carrier = carrier_for(runtime, tmp_path, job_id, claimed.owner)
        carrier.take(f"checkpoint-{number}.safetensors", reached(part, step=number))
        assert carrier.finish(30)
    assert list(tmp_path.glob("checkpoint-*")) == []
    with sessions() as session:
        parts = {part.part: (part.step, part.bytes) for part in checkpoints.of_job(session, job_id)}
    assert parts == {"network": (1, 1), "training": (3, 3)}
    assert len(runtime.store.keys_under(CHECKPOINTS)) == 2
    with sessions.begin() as session:
        assert leases.succeed_job(session, job_id, claimed.owner, {}, now())
    checkpoints.tidy(sessions, runtime.store, job_id)
    assert runtime.store.keys_under(CHECKPOINTS) == []


def test_a_worker_that_lost_its_lease_leaves_no_checkpoint(
    sessions: Sessions, runtime: Runtime, job_id: str, claimed: Lease, tmp_path: Path
) -> None:
    (tmp_path / "checkpoint-1.safetensors").write_bytes(b"late")
    with sessions.begin() as session:
        session.get_one(Job, job_id).lease_owner = "somebody else"
    carrier = carrier_for(runtime, tmp_path, job_id, claimed.owner)
    carrier.take("checkpoint-1.safetensors", reached("network"))
    assert carrier.finish(30)
    with sessions() as session:
        assert not checkpoints.of_job(session, job_id)
    assert runtime.store.keys_under(CHECKPOINTS) == []


def test_of_workers_that_claim_at_the_same_moment_one_gets_the_job(sessions: Sessions, job_id: str) -> None:
    at_once = Barrier(8)

    def claim(number: int) -> bool:
        with sessions.begin() as session:
            at_once.wait(30)
            return leases.claim_job(session, job_id, Lease(f"worker {number}", 60), now()) is not None

    with ThreadPoolExecutor(8) as workers:
        assert sum(workers.map(claim, range(8))) == 1
    with sessions() as session:
        assert session.get_one(Job, job_id).attempt == 1
