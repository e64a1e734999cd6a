"""What the reaper hands on, and what it leaves alone; on the real database, by a clock of the test's own."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from app.core.db import make_engine, make_sessions
from app.core.queue import TaskName
from app.core.settings import Settings
from app.jobs import leases
from app.jobs.reaper import RUNG_AT_ONCE, Reaper
from app.jobs.tables import Job, JobEvent
from app.models.tables import Model
from app.storage.store import memory_store
from tests.worker.rows import add_dataset, add_job, add_model, now

SHA = "0" * 64
Sessions = sessionmaker[Session]


@dataclass
class Bell:
    """Remembers what was rung; `works` False: the broker is away."""

    works: bool = True
    rung: list[tuple[str, str]] = field(default_factory=list)

    def ring(self, task: TaskName, resource_id: str) -> bool:
        if self.works:
            self.rung.append((task, resource_id))
        return self.works


@dataclass
class SetClock:
    moment: datetime

    def now(self) -> datetime:
        return self.moment


@dataclass
class Steady:
    """Seconds of a clock that nobody sets."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Bench:
    sessions: Sessions
    reaper: Reaper
    bell: Bell
    clock: SetClock
    steady: Steady
    settings: Settings

    def look_twice(self, seconds: float | None = None) -> None:
        """A sweep now and one after some seconds of silence; two heartbeats, if not told."""
        self.reaper.sweep()
        self.steady.seconds += 2 * self.settings.heartbeat_seconds if seconds is None else seconds
        self.reaper.sweep()

    def look_for(self, seconds: float) -> None:
        """Sweeps as often as the web process makes them, over so many seconds of silence."""
        end = self.steady.seconds + seconds
        self.reaper.sweep()
        while self.steady.seconds < end:
            self.steady.seconds += self.settings.reaper_seconds
            self.reaper.sweep()

    def renew(self, job_id: str, until: datetime) -> None:
        with self.sessions.begin() as session:
            session.get_one(Job, job_id).lease_expires_at = until

    def add(self, **columns: Any) -> str:
        return add_job(self.sessions, add_model(self.sessions, SHA), **columns)

    def job(self, job_id: str) -> Job:
        with self.sessions() as session:
            return session.get_one(Job, job_id)

    def done_events(self, job_id: str) -> int:
        with self.sessions() as session:
            done = select(func.count()).where(JobEvent.job_id == job_id, JobEvent.type == "done")
            return session.scalar(done) or 0


@pytest.fixture
def bench(sessions: Sessions, settings: Settings) -> Bench:
    bell, clock, steady = Bell(), SetClock(now()), Steady()
    reaper = Reaper(sessions, memory_store(), bell, clock, settings, steady=steady)
    return Bench(sessions, reaper, bell, clock, steady, settings)


def lost(**columns: Any) -> dict[str, Any]:
    return {
        "status": "running",
        "attempt": 1,
        "lease_owner": "gone",
        "lease_expires_at": now() - timedelta(seconds=1),
    } | columns


def test_a_job_whose_lease_ran_out_waits_for_its_next_attempt_and_is_then_rung_for(bench: Bench) -> None:
    job_id = bench.add(**lost())
    bench.look_twice()
    job = bench.job(job_id)
    assert (job.status, job.attempt, job.lease_owner) == ("queued", 1, None)
    assert bench.bell.rung == []
    bench.clock.moment += timedelta(seconds=1)  # past retry_seconds
    bench.reaper.sweep()
    assert bench.bell.rung == [("worker.run_job", job_id)]


def test_a_job_that_lost_its_last_attempt_fails_once_with_worker_lost(bench: Bench) -> None:
    job_id = bench.add(**lost(attempt=3))
    bench.look_twice()
    bench.look_twice()
    job = bench.job(job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert bench.done_events(job_id) == 1


def test_a_cancel_whose_worker_is_gone_is_carried_out(bench: Bench) -> None:
    job_id = bench.add(**lost(status="cancelling"))
    bench.look_twice()
    assert bench.job(job_id).status == "cancelled"
    assert bench.done_events(job_id) == 1


def test_a_job_whose_lease_still_holds_is_left_alone(bench: Bench) -> None:
    job_id = bench.add(**lost(lease_expires_at=now() + timedelta(seconds=60)))
    bench.look_twice()
    assert (bench.job(job_id).status, bench.bell.rung) == ("running", [])


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_jumps_takes_no_job_from_a_worker_that_renews(bench: Bench, hours: int) -> None:
    job_id = bench.add(**lost(lease_expires_at=now() + timedelta(seconds=30)))
    bench.clock.moment += timedelta(hours=hours)
    for seconds in range(100):
        bench.look_twice(seconds=0.9 * bench.settings.heartbeat_seconds)
        bench.renew(job_id, now() + timedelta(seconds=30 + seconds))  # by the worker's own clock
    assert bench.job(job_id).status == "running"


@pytest.mark.parametrize("hours", [-5, 0, 5])
def test_a_worker_that_is_gone_is_found_whatever_the_clocks_say(bench: Bench, hours: int) -> None:
    job_id = bench.add(**lost(lease_expires_at=now() + timedelta(seconds=30)))
    bench.clock.moment += timedelta(hours=hours)
    bench.look_for(bench.settings.lease_seconds)
    assert bench.job(job_id).status == "queued"


def test_a_look_that_took_longer_than_a_lease_takes_no_job_from_a_worker(bench: Bench) -> None:
    """The database stood still, for the worker's renewals too; where it goes on, they may come second."""
    job_id = bench.add(**lost())
    bench.reaper.sweep()
    engine = bench.sessions.kw["bind"]

    def stand_still(*_: object) -> None:
        bench.steady.seconds += 10 * bench.settings.lease_seconds

    event.listen(engine, "after_cursor_execute", stand_still, once=True)
    bench.reaper.sweep()
    assert bench.job(job_id).status == "running"
    bench.steady.seconds += bench.settings.reaper_seconds
    bench.reaper.sweep()
    assert bench.job(job_id).status == "queued"  # it did not come at all


def test_while_the_database_is_away_nobody_is_silent(bench: Bench) -> None:
    job_id = bench.add(**lost())
    bench.reaper.sweep()
    nowhere = make_sessions(make_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing"))
    there, bench.reaper._sessions = bench.reaper._sessions, nowhere
    bench.steady.seconds += 10 * bench.settings.lease_seconds
    with pytest.raises(OperationalError):
        bench.reaper.sweep()
    bench.reaper._sessions = there
    bench.reaper.sweep()
    assert bench.job(job_id).status == "running"
    bench.look_twice()
    assert bench.job(job_id).status == "queued"  # its worker was gone indeed


def test_a_claim_whose_answer_was_lost_is_had_by_who_asks_again(bench: Bench) -> None:
    job_id = bench.add()
    lease = leases.Lease("one", 30)
    for owner, expected in ((lease, 1), (lease, 1), (leases.Lease("other", 30), None)):
        with bench.sessions.begin() as session:
            job = leases.claim_job(session, job_id, owner, now())
            assert (job and job.attempt) == expected
    with bench.sessions() as session:
        told = select(func.count()).where(JobEvent.job_id == job_id)
        assert session.scalar(told) == 1  # that attempt 1 started


def test_an_upload_whose_claim_was_not_answered_is_had_by_who_asks_again(bench: Bench) -> None:
    model_id = add_model(bench.sessions, SHA, status="inspecting")
    lease = leases.Lease("one", 30)
    for owner, expected in ((lease, 1), (lease, 1), (leases.Lease("other", 30), None)):
        with bench.sessions.begin() as session:
            row = leases.claim_short(session, Model, model_id, owner, now())
            assert (row and row.attempt) == expected


def test_a_job_that_waits_by_a_clock_that_was_put_back_is_rung_for(bench: Bench) -> None:
    later = now() + timedelta(hours=5)
    job_id = bench.add(rung_at=later, not_before=later)
    bench.reaper.sweep()
    assert bench.bell.rung == [("worker.run_job", job_id)]


def test_a_queued_job_is_rung_for_again_only_after_a_while(bench: Bench, settings: Settings) -> None:
    job_id = bench.add(rung_at=now())
    bench.reaper.sweep()
    assert bench.bell.rung == []
    bench.clock.moment += timedelta(seconds=settings.ring_again_seconds + 1)
    bench.reaper.sweep()
    bench.reaper.sweep()
    assert bench.bell.rung == [("worker.run_job", job_id)]


def test_a_ring_that_the_broker_did_not_take_is_tried_in_the_next_round(bench: Bench) -> None:
    job_id = bench.add()
    bench.bell.works = False
    bench.reaper.sweep()
    bench.bell.works = True
    bench.reaper.sweep()
    assert bench.bell.rung == [("worker.run_job", job_id)]


def test_a_long_queue_is_rung_for_from_its_oldest_end_without_flooding_the_broker(bench: Bench) -> None:
    model_id = add_model(bench.sessions, SHA)
    ids = [
        add_job(bench.sessions, model_id, created_at=now() + timedelta(seconds=n))
        for n in range(RUNG_AT_ONCE + 3)
    ]
    bench.reaper.sweep()
    bench.reaper.sweep()
    assert [rung for _, rung in bench.bell.rung] == ids[:RUNG_AT_ONCE]


def test_uploads_that_lost_their_worker_or_their_message_are_handed_on_too(bench: Bench) -> None:
    waiting = {"status": "inspecting", "canonical_sha256": None}
    silent = add_dataset(bench.sessions, SHA, **waiting)
    dropped = add_model(bench.sessions, SHA, **lost(**waiting))
    hopeless = add_model(bench.sessions, SHA, **lost(attempt=3, **waiting))
    bench.look_twice()
    assert bench.bell.rung == [("worker.inspect_dataset", silent)]
    with bench.sessions() as session:
        assert session.get_one(Model, dropped).lease_owner is None
        model = session.get_one(Model, hopeless)
    assert model.status == "rejected"
    assert model.error is not None
    assert model.error["code"] == "worker_lost"


def test_of_two_reapers_only_the_one_with_the_lock_sweeps(bench: Bench) -> None:
    job_id = bench.add(**lost())
    with bench.sessions.begin() as other:
        other.scalar(select(func.pg_advisory_xact_lock(Reaper.lock)))
        bench.look_twice()
        assert bench.job(job_id).status == "running"
    bench.look_twice()
    assert bench.job(job_id).status == "queued"
