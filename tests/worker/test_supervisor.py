"""What becomes of a job, whatever its child does. The children are a few lines each; the rest is real."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread, Timer

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from app.artifacts.tables import Artifact
from app.jobs.states import JobStatus
from app.jobs.tables import Job, JobEvent, JobMetric
from tests.support.processes import alive, wait_until
from worker.jobs import run_job
from worker.runtime import Runtime
from worker.sandbox import PROJECT

WithChild = Callable[[str], Runtime]
Sessions = sessionmaker[Session]
RESULT = "say(type='result', result={'exports': []})"


def job_of(sessions: Sessions, job_id: str) -> Job:
    with sessions() as session:
        return session.get_one(Job, job_id)


def events_of(sessions: Sessions, job_id: str) -> list[JobEvent]:
    with sessions() as session:
        return list(session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)))


def test_a_result_makes_the_job_succeed_with_one_done_event_at_the_end(
    sessions: Sessions, with_child: WithChild, job_id: str
) -> None:
    run_job(with_child(RESULT), job_id)
    job = job_of(sessions, job_id)
    assert (job.status, job.result, job.lease_owner) == ("succeeded", {"exports": []}, None)
    events = events_of(sessions, job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.type for event in events].count("done") == 1
    assert events[-1].type == "done"


def test_what_the_child_reports_stands_in_the_database(
    sessions: Sessions, with_child: WithChild, job_id: str
) -> None:
    child = """
    say(type="stage", stage="finetune")
    say(type="progress", fraction=0.25, epoch=1, eta_seconds=9.5, message="epoch 1 of 4")
    say(type="metric", name="train_loss", step=12, value=0.5)
    say(type="warning", code="baseline_mismatch", detail="at chance")
    time.sleep(0.6)
    say(type="result", result={"exports": []})
    """
    run_job(with_child(child), job_id)
    job = job_of(sessions, job_id)
    assert job.stage == "finetune"
    assert job.warnings == [{"code": "baseline_mismatch", "detail": "at chance"}]
    with sessions() as session:
        points = session.scalars(select(JobMetric).where(JobMetric.job_id == job_id)).all()
    assert [(point.name, point.step, point.value) for point in points] == [("train_loss", 12, 0.5)]
    said = {event.type: event for event in events_of(sessions, job_id)}
    assert said["stage"].stage == said["metric"].stage == "finetune"
    assert said["warning"].message == "at chance"


def test_the_files_a_result_names_become_artifacts_with_their_bytes_in_the_store(
    sessions: Sessions, with_child: WithChild, job_id: str
) -> None:
    child = """
    open("net.onnx", "wb").write(b"compressed")
    file = dict(format="onnx", file="net.onnx", name="net-small.onnx", media_type="application/octet-stream")
    say(type="result", result={"exports": [file | {"max_abs_diff": 0.0}]})
    """
    runtime = with_child(child)
    run_job(runtime, job_id)
    with sessions() as session:
        artifact = session.scalars(select(Artifact).where(Artifact.job_id == job_id)).one()
    assert (artifact.name, artifact.bytes) == ("net-small.onnx", 10)
    assert b"".join(runtime.store.read(artifact.sha256, 0, 10)) == b"compressed"
    result = job_of(sessions, job_id).result
    assert result is not None
    export = result["exports"][0]
    assert (export["artifact"], export["sha256"]) == (artifact.id, artifact.sha256)


@pytest.mark.parametrize("name", ["/etc/hostname", "../secret", "link", "hard", "gone", ""])
def test_a_result_cannot_name_a_file_that_is_not_the_childs_own(
    sessions: Sessions, with_child: WithChild, job_id: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    child = f"""
    os.symlink({str(tmp_path / "secret")!r}, "link")
    os.link({str(tmp_path / "secret")!r}, "hard")
    say(type="result", result={{"exports": [dict(format="onnx", file={name!r}, name="n", media_type="m")]}})
    """
    run_job(with_child(child), job_id)
    job = job_of(sessions, job_id)
    assert job.status == JobStatus.FAILED
    assert job.error is not None
    assert job.error["code"] == "internal"


def test_a_problem_fails_the_job_at_once_with_that_problem(
    sessions: Sessions, with_child: WithChild, job_id: str
) -> None:
    child = "say(type='problem', problem=dict(code='target_infeasible', detail='no', achievable=0.4))"
    run_job(with_child(child), job_id)
    job = job_of(sessions, job_id)
    assert (job.status, job.attempt) == ("failed", 1)
    assert job.error is not None
    assert (job.error["code"], job.error["achievable"]) == ("target_infeasible", 0.4)
    assert [event.type for event in events_of(sessions, job_id)][-2:] == ["error", "done"]


@pytest.mark.parametrize(
    "child",
    [
        "os.kill(os.getpid(), 9)",
        "os._exit(3)",
        "os._exit(0)",
        "os.close(1); time.sleep(0.1)",
        "sys.stdout.write('no json\\n'); sys.stdout.flush(); time.sleep(60)",
        "say(type='progress', fraction=float('nan')); time.sleep(60)",
        "say(type='stage', stage='party'); time.sleep(60)",
    ],
    ids=["killed", "exit-3", "silent", "closed", "no-json", "nan", "unknown-stage"],
)
def test_a_lost_child_puts_the_job_back_to_wait_for_its_next_attempt(
    sessions: Sessions, with_child: WithChild, job_id: str, child: str
) -> None:
    run_job(with_child(child), job_id)
    job = job_of(sessions, job_id)
    assert (job.status, job.attempt, job.lease_owner) == ("queued", 1, None)
    assert job.not_before is not None
    assert "done" not in {event.type for event in events_of(sessions, job_id)}


def test_the_last_words_of_a_lost_child_stand_in_its_event_without_this_machines_places(
    sessions: Sessions, with_child: WithChild, job_id: str
) -> None:
    said = f"""
    sys.stderr.write("in {PROJECT}/worker: sorry\\n"); sys.stderr.flush()
    os._exit(3)
    """
    run_job(with_child(said), job_id)
    lost = events_of(sessions, job_id)[-1]
    assert lost.data == {"attempt": 1, "stderr": "in ./worker: sorry"}


def test_the_third_lost_child_fails_the_job_with_worker_lost(
    sessions: Sessions, with_child: WithChild, job_id: str
) -> None:
    runtime = with_child("os.kill(os.getpid(), 11)")
    for _ in range(3):
        wait_until(lambda: _due(sessions, job_id), 5)
        run_job(runtime, job_id)
    job = job_of(sessions, job_id)
    assert (job.status, job.attempt) == ("failed", 3)
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert "SIGSEGV" in job.error["detail"]


def _due(sessions: Sessions, job_id: str) -> bool:
    job = job_of(sessions, job_id)
    return job.not_before is None or job.not_before.timestamp() <= time.time()


def test_before_its_wait_is_over_a_job_is_not_claimed(
    sessions: Sessions, with_child: WithChild, job_id: str
) -> None:
    runtime = with_child("os._exit(3)")
    patient = replace(runtime, settings=runtime.settings.model_copy(update={"retry_seconds": 60}))
    run_job(patient, job_id)
    run_job(patient, job_id)
    assert job_of(sessions, job_id).attempt == 1


def test_an_ended_job_is_not_run_again_by_a_second_message(
    sessions: Sessions, with_child: WithChild, job_id: str
) -> None:
    run_job(with_child(RESULT), job_id)
    before = [event.id for event in events_of(sessions, job_id)]
    run_job(with_child("os._exit(3)"), job_id)
    assert [event.id for event in events_of(sessions, job_id)] == before


def test_past_its_time_limit_the_child_is_killed_with_all_it_started(
    sessions: Sessions, with_child: WithChild, job_id: str, tmp_path: Path
) -> None:
    child = f"""
    import subprocess
    grandchild = subprocess.Popen(["sleep", "300"], start_new_session=True)
    open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}} {{grandchild.pid}}")
    time.sleep(300)
    """
    runtime = with_child(child)
    run_job(replace(runtime, settings=runtime.settings.model_copy(update={"job_seconds": 1})), job_id)
    job = job_of(sessions, job_id)
    assert job.status == JobStatus.FAILED
    assert job.error is not None
    assert job.error["code"] == "time_limit"
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    wait_until(lambda: not any(alive(pid) for pid in pids), 5)


def test_cancelling_kills_the_child_and_ends_the_job_within_five_seconds(
    sessions: Sessions, with_child: WithChild, job_id: str
) -> None:
    def cancel() -> None:
        with sessions.begin() as session:
            session.execute(update(Job).where(Job.id == job_id).values(status=JobStatus.CANCELLING))

    Timer(1, cancel).start()
    began = time.monotonic()
    run_job(with_child("time.sleep(300)"), job_id)
    assert time.monotonic() - began < 6
    assert job_of(sessions, job_id).status == JobStatus.CANCELLED
    assert events_of(sessions, job_id)[-1].type == "done"


def test_a_worker_that_stops_hands_its_job_back_without_counting_the_attempt(
    sessions: Sessions, with_child: WithChild, job_id: str
) -> None:
    runtime = with_child("time.sleep(300)")
    Timer(1, runtime.stopping.set).start()
    began = time.monotonic()
    run_job(runtime, job_id)
    assert time.monotonic() - began < runtime.settings.grace_seconds
    job = job_of(sessions, job_id)
    assert (job.status, job.attempt, job.not_before) == ("queued", 0, None)


def test_a_child_that_ignores_the_request_to_stop_is_killed_after_the_grace(
    sessions: Sessions, with_child: WithChild, job_id: str, tmp_path: Path
) -> None:
    deaf = tmp_path / "deaf"
    child = f"""
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open({str(deaf)!r}, "w").close()
    time.sleep(300)
    """
    runtime = with_child(child)
    runtime = replace(runtime, settings=runtime.settings.model_copy(update={"grace_seconds": 2}))
    asked: list[float] = []

    def stop() -> None:
        wait_until(deaf.exists, 60)
        asked.append(time.monotonic())
        runtime.stopping.set()

    Thread(target=stop).start()
    run_job(runtime, job_id)
    assert 1.0 <= time.monotonic() - asked[0] < 60
    assert job_of(sessions, job_id).status == JobStatus.QUEUED


def test_a_worker_whose_lease_was_handed_on_writes_nothing_more(
    sessions: Sessions, with_child: WithChild, job_id: str
) -> None:
    def hand_on() -> None:
        with sessions.begin() as session:
            session.execute(update(Job).where(Job.id == job_id).values(lease_owner="somebody else"))

    Timer(1, hand_on).start()
    run_job(with_child("time.sleep(2.5); say(type='result', result={'exports': []})"), job_id)
    job = job_of(sessions, job_id)
    assert (job.status, job.lease_owner, job.result) == ("running", "somebody else", None)


def test_the_lease_outlives_a_child_that_works_longer_than_it(
    sessions: Sessions, with_child: WithChild, job_id: str
) -> None:
    runtime = with_child(f"time.sleep(2.5); {RESULT}")
    settings = runtime.settings.model_copy(update={"lease_seconds": 1, "heartbeat_seconds": 0.3})
    run_job(replace(runtime, settings=settings), job_id)
    assert job_of(sessions, job_id).status == JobStatus.SUCCEEDED


def test_texts_that_postgresql_cannot_hold_do_not_lose_the_job(
    sessions: Sessions, with_child: WithChild, job_id: str
) -> None:
    child = r"""
    sys.stdout.write('{"type":"warning","code":"odd","detail":"a\\u0000b\\ud800c"}' + "\n")
    say(type="result", result={"exports": []})
    """
    run_job(with_child(child), job_id)
    job = job_of(sessions, job_id)
    assert job.status == JobStatus.SUCCEEDED
    assert job.warnings[0]["detail"] == "ab?c"


def test_a_child_sees_no_secret_and_none_of_the_workers_settings(
    sessions: Sessions, with_child: WithChild, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BASISCONV_SECRET_KEY", "do not tell")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do not tell")
    run_job(with_child("say(type='result', result={'exports': [], 'env': dict(os.environ)})"), job_id)
    result = job_of(sessions, job_id).result
    assert result is not None
    assert "do not tell" not in str(result)
    assert not [name for name in result["env"] if name.startswith("BASISCONV")]


def test_nothing_of_an_attempt_stays_in_the_scratch_folder(
    sessions: Sessions, with_child: WithChild, job_id: str
) -> None:
    runtime = with_child("open('left', 'w').write('x'); os._exit(3)")
    run_job(runtime, job_id)
    assert list(runtime.scratch_root.iterdir()) == []


def test_what_a_lost_child_started_does_not_outlive_it(
    sessions: Sessions, with_child: WithChild, job_id: str, tmp_path: Path
) -> None:
    child = f"""
    import subprocess
    open({str(tmp_path / "pid")!r}, "w").write(str(subprocess.Popen(["sleep", "300"]).pid))
    os._exit(3)
    """
    run_job(with_child(child), job_id)  # though the sleeper still holds the pipe open
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not alive(pid), 5)
    assert job_of(sessions, job_id).status == JobStatus.QUEUED
