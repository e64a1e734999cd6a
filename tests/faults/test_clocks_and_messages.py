"""Clocks that jump, a database that stays away, messages lost or doubled, two workers: one job, one run."""

import time

import pytest

from tests.faults.rig.checks import Ground, check_ended_once
from tests.faults.rig.table import Row, Table

HOURS = 3600.0


@pytest.mark.parametrize(
    ("process", "hours"),
    [
        ("worker", 5),
        pytest.param("web", -5, marks=pytest.mark.slow),
        pytest.param("web", 5, marks=pytest.mark.slow),
        pytest.param("worker", -5, marks=pytest.mark.slow),
    ],
)
def test_a_clock_that_jumps_takes_no_job_from_its_worker(
    ground: Ground, faults_table: Table, process: str, hours: int
) -> None:
    rig = ground.rig
    began = time.monotonic()
    try:
        with rig.held("finetune"):
            job_id = ground.submit()
            follower = rig.follow(job_id)
            rig.wait(lambda: rig.is_kept(job_id, "training"), what="a checkpoint of the training")
            rig.set_clock(process, hours * HOURS)
            time.sleep(1.5 * rig.settings.lease_seconds)  # for all the rounds in which it could go wrong
            assert rig.job(job_id).status == "running"
        rig.wait(lambda: follower.is_done, what="the end of the job")
    finally:
        rig.set_clock(process, 0)
    seconds = time.monotonic() - began
    check_ended_once(ground, job_id, follower)
    faults_table.rows.append(Row("", f"clock of {process} {hours:+} h", "succeeded", 1, seconds))


@pytest.mark.parametrize("hours", [-5, pytest.param(5, marks=pytest.mark.slow)])
def test_a_worker_that_is_killed_while_the_clock_is_wrong_is_found_out_all_the_same(
    ground: Ground, faults_table: Table, hours: int
) -> None:
    rig = ground.rig
    try:
        with rig.held("decompose"):
            job_id = ground.submit()
            follower = rig.follow(job_id)
            rig.wait(lambda: follower.has_seen(type="stage", stage="decompose"), what="the stage")
            rig.set_clock("web", hours * HOURS)
            began = time.monotonic()
            rig.kill(rig.jobs)
        rig.wait(lambda: follower.is_done, what="the end of the job")
    finally:
        rig.set_clock("web", 0)
    seconds = time.monotonic() - began
    check_ended_once(ground, job_id, follower, attempts=2)
    faults_table.rows.append(Row("", f"worker killed, clock of web {hours:+} h", "succeeded", 2, seconds))


@pytest.mark.parametrize("work", ["goes on", pytest.param("ends meanwhile", marks=pytest.mark.slow)])
def test_a_database_that_is_away_for_longer_than_a_lease_takes_no_job_from_its_worker(
    ground: Ground, faults_table: Table, work: str
) -> None:
    """However the work stands: the worker's renewals must outlive it, and all that is still to be told."""
    rig = ground.rig
    stage = "export" if work == "goes on" else "decompose"  # so that curves are to be told as well
    try:
        with rig.held(stage):
            job_id = ground.submit()
            follower = rig.follow(job_id)
            rig.wait(lambda: follower.has_seen(type="stage", stage=stage), what=f"the stage {stage}")
            rig.down.add("postgres")
            began = time.monotonic()
            rig.kill_postgres()
            if work == "goes on":
                stay_away(ground)
                until = rig.job(job_id).lease_expires_at
                time.sleep(3 * rig.settings.heartbeat_seconds)  # for rounds in which it could go wrong
                assert (rig.job(job_id).status, rig.job(job_id).attempt) == ("running", 1)
                assert rig.job(job_id).lease_expires_at != until  # it is renewed again
        if work == "ends meanwhile":
            stay_away(ground)
    finally:
        rig.down.clear()
    rig.wait(lambda: follower.is_done, what="the end of the job")
    seconds = time.monotonic() - began
    check_ended_once(ground, job_id, follower)
    faults_table.rows.append(Row("", f"postgres away for 1.3 leases, work {work}", "succeeded", 1, seconds))


@pytest.mark.slow
def test_a_database_that_stands_still_for_longer_than_a_lease_takes_no_job_from_its_worker(
    ground: Ground, faults_table: Table
) -> None:
    """A frozen machine or disk: connections stay, and every question is answered in the end, in any order."""
    rig = ground.rig
    with rig.held("export"):
        job_id = ground.submit()
        follower = rig.follow(job_id)
        rig.wait(lambda: follower.has_seen(type="stage", stage="export"), what="the stage export")
        began = time.monotonic()
        with rig.frozen_postgres():
            time.sleep(1.3 * rig.settings.lease_seconds)
        time.sleep(3 * rig.settings.heartbeat_seconds)
        assert (rig.job(job_id).status, rig.job(job_id).attempt) == ("running", 1)
    rig.wait(lambda: follower.is_done, what="the end of the job")
    seconds = time.monotonic() - began
    check_ended_once(ground, job_id, follower)
    faults_table.rows.append(Row("", "postgres frozen for 1.3 leases", "succeeded", 1, seconds))


def stay_away(ground: Ground) -> None:
    """PostgreSQL, for longer than a lease; and then it comes back."""
    time.sleep(1.3 * ground.rig.settings.lease_seconds)
    ground.rig.down.clear()
    ground.rig.wait_all_up()


def test_a_job_whose_message_is_lost_is_rung_for_again(ground: Ground, faults_table: Table) -> None:
    rig = ground.rig
    rig.down.add("valkey")
    rig.wipe_valkey()
    began = time.monotonic()
    job_id = ground.submit()  # accepted all the same
    rig.down.clear()
    follower = rig.follow(job_id)
    rig.wait(lambda: follower.is_done, what="the end of the job")
    seconds = time.monotonic() - began
    check_ended_once(ground, job_id, follower)
    faults_table.rows.append(Row("", "message lost with the broker", "succeeded", 1, seconds))


def test_two_workers_and_ten_messages_run_a_job_once(ground: Ground, faults_table: Table) -> None:
    rig = ground.rig
    rig.start_spare(2)
    began = time.monotonic()
    with rig.held("verify"):
        job_id = ground.submit()
        follower = rig.follow(job_id)
        for _ in range(10):
            rig.ring(job_id)
        rig.wait(lambda: follower.has_seen(type="stage", stage="verify"), what="the stage verify")
    rig.wait(lambda: follower.is_done, what="the end of the job")
    seconds = time.monotonic() - began
    rig.ring(job_id)  # and once more when it has ended
    rig.stop_spares()
    check_ended_once(ground, job_id, follower)
    faults_table.rows.append(Row("", "two workers, eleven messages", "succeeded", 1, seconds))
