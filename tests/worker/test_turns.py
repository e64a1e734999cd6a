"""Whose job is next: nobody waits for all that another has sent before."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from app.batches.tables import Batch
from app.core.ids import new_id, new_ids
from app.jobs import leases, turns
from app.jobs.leases import Lease
from app.jobs.states import JobStatus
from app.jobs.tables import Job
from tests.worker.rows import add_job, add_model, now
from worker.jobs import run_job
from worker.runtime import Runtime

RESULT = 'say(type="result", result={"exports": []})'
ONE, OTHER = ("owner_" + digit * 26 for digit in "12")


@pytest.fixture
def model(sessions: sessionmaker[Session]) -> str:
    return add_model(sessions, "0" * 64)


def add_batch(sessions: sessionmaker[Session], model: str, owner: str, jobs: int) -> str:
    moment = now()
    batch = Batch(
        id=new_id("batch", moment),
        owner_id=owner,
        on_error="abort",
        status="running",
        total=jobs,
        invalid=0,
        errors=[],
        created_at=moment,
    )
    with sessions.begin() as session:
        session.add(batch)
    for job_id in new_ids("job", moment, jobs):
        add_job(sessions, model, id=job_id, owner_id=owner, batch_id=batch.id)
    return batch.id


def take(sessions: sessionmaker[Session], *, ends: bool = True, at: int = 0) -> tuple[str, str | None] | None:
    """One worker takes what is next, `at` seconds from now, and ends it at once or goes on with it."""
    moment = now() + timedelta(seconds=at)
    with sessions.begin() as session:
        job_id = turns.next_job(session, moment)
        if job_id is None:
            return None
        job = leases.claim_job(session, job_id, Lease(job_id, 60), moment)
        assert job is not None
        turns.take(session, job, moment)
    if ends:
        with sessions.begin() as session:
            assert leases.succeed_job(session, job_id, job_id, {}, moment)
    return job.owner_id, job.batch_id


def test_a_single_job_does_not_wait_for_anothers_many(sessions: sessionmaker[Session], model: str) -> None:
    batch = add_batch(sessions, model, ONE, 30)
    assert take(sessions, at=0) == (ONE, batch)
    add_job(sessions, model, owner_id=OTHER)
    assert take(sessions, at=1) == (OTHER, None)
    assert take(sessions, at=2) == (ONE, batch)


def test_owners_take_turns_and_so_do_an_owners_batches(sessions: sessionmaker[Session], model: str) -> None:
    first, second = (add_batch(sessions, model, ONE, 6) for _ in range(2))
    add_job(sessions, model, owner_id=ONE)
    theirs = add_batch(sessions, model, OTHER, 6)
    order = [take(sessions, at=i) for i in range(8)]
    assert order[::2] == [(ONE, first), (ONE, second), (ONE, None), (ONE, first)]
    assert set(order[1::2]) == {(OTHER, theirs)}


def test_who_has_fewer_running_goes_first(sessions: sessionmaker[Session], model: str) -> None:
    add_batch(sessions, model, ONE, 6)
    assert take(sessions, ends=False, at=0) is not None
    theirs = add_batch(sessions, model, OTHER, 6)
    assert take(sessions, at=1) == (OTHER, theirs)
    assert take(sessions, at=2) == (OTHER, theirs)  # still none of theirs runs


def test_within_a_batch_the_order_of_its_lines_holds(sessions: sessionmaker[Session], model: str) -> None:
    batch = add_batch(sessions, model, ONE, 3)
    with sessions() as session:
        ids = session.scalars(select(Job.id).where(Job.batch_id == batch).order_by(Job.id)).all()
    for expected in ids:
        with sessions.begin() as session:
            assert turns.next_job(session, now()) == expected
            leases.claim_job(session, expected, Lease("w", 60), now())


def test_what_is_to_wait_before_it_is_tried_again_has_no_turn(
    sessions: sessionmaker[Session], model: str
) -> None:
    add_job(sessions, model, not_before=now() + timedelta(minutes=1))
    assert take(sessions) is None
    assert take(sessions, at=61) is not None


def test_two_workers_never_get_the_same_job(sessions: sessionmaker[Session], model: str) -> None:
    add_batch(sessions, model, ONE, 2)
    with sessions.begin() as one, sessions.begin() as other:
        found = {turns.next_job(one, now()), turns.next_job(other, now())}
    assert None not in found
    assert len(found) == 2


def test_a_worker_takes_whose_turn_it_is_and_rings_for_the_next(
    with_child: Callable[[str], Runtime], sessions: sessionmaker[Session]
) -> None:
    rung: list[str] = []

    class Bell:
        def ring(self, _task: Any, resource_id: str) -> bool:
            rung.append(resource_id)
            return True

    ready = replace(with_child(RESULT), doorbell=Bell())
    model = add_model(sessions, ready.store.put_bytes(b"the network").sha256)
    batch = add_batch(sessions, model, ONE, 3)
    with sessions() as session:
        first, second, third = session.scalars(select(Job.id).where(Job.batch_id == batch).order_by(Job.id))
    run_job(ready, third)  # a message says that there is work, not which
    with sessions() as session:
        status = {row.id: row.status for row in session.execute(select(Job.id, Job.status))}
    assert status[first] not in (JobStatus.QUEUED, JobStatus.RUNNING)
    assert (status[second], status[third]) == (JobStatus.QUEUED, JobStatus.QUEUED)
    assert rung == [second]
    run_job(ready, first)
    run_job(ready, first)
    run_job(ready, first)
    assert rung == [second, third]
