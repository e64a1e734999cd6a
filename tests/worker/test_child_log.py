"""What a child says for the log: passed on with its task's ids, within bounds, and believed in nothing."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from worker import child_log, supervisor
from worker.jobs import run_job
from worker.messages import LogMessage, parse
from worker.runtime import Runtime

Lines = list[dict[str, Any]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as found:
        yield found


def _said(lines: Lines) -> Lines:
    return [line for line in lines if line["event"] == "child.said"]


def test_a_childs_line_carries_its_jobs_ids_and_cannot_pretend_others(
    with_child: Callable[[str], Runtime], job_id: str, lines: Lines
) -> None:
    runtime = with_child(
        """
        say(type="log", level="warning", logger="torch", event="hm\\x1b[2J", fields={"job_id": "job_other"})
        say(type="result", result={"exports": []})
        """
    )
    run_job(runtime, job_id)
    (said,) = _said(lines)
    assert (said["job_id"], said["attempt"], said["log_level"]) == (job_id, 1, "warning")
    assert (said["said"], said["by"]) == ("hm\ufffd[2J", "torch")
    assert said["fields"] == {"job_id": "job_other"}
    assert said["child_pid"]


def test_a_child_that_talks_without_end_is_cut_off_and_its_work_goes_on(
    with_child: Callable[[str], Runtime], job_id: str, lines: Lines
) -> None:
    runtime = with_child(
        """
        for number in range(3000):
            say(type="log", level="info", event=f"line {number}")
        say(type="result", result={"exports": []})
        """
    )
    run_job(runtime, job_id)
    assert len(_said(lines)) == supervisor.MOST_LINES
    assert [line["lines"] for line in lines if line["event"] == "child.said_too_much"] == [1000]
    assert [line["status"] for line in lines if line["event"] == "job.ended"] == ["succeeded"]


def test_the_traceback_of_an_error_of_ours_reaches_the_log(
    with_child: Callable[[str], Runtime], job_id: str, lines: Lines
) -> None:
    runtime = with_child(
        """
        sys.stderr.write("Traceback: the reason\\n"); sys.stderr.flush()
        say(type="problem", problem={"code": "internal", "detail": "unexpected"})
        """
    )
    run_job(runtime, job_id)
    (failed,) = [line for line in lines if line["event"] == "child.failed"]
    assert (failed["code"], failed["job_id"]) == ("internal", job_id)
    assert "the reason" in failed["stderr"]


def test_a_refusal_needs_no_traceback(
    with_child: Callable[[str], Runtime], job_id: str, lines: Lines
) -> None:
    run_job(with_child('say(type="problem", problem={"code": "target_infeasible", "detail": "no"})'), job_id)
    assert [line for line in lines if line["event"] == "child.failed"] == []
    assert [line["code"] for line in lines if line["event"] == "job.ended"] == ["target_infeasible"]


def test_figures_tell_attempts_stages_and_outcomes(with_child: Callable[[str], Runtime], job_id: str) -> None:
    runtime = with_child(
        """
        say(type="stage", stage="calibrate"); time.sleep(0.3)
        say(type="stage", stage="export")
        say(type="problem", problem={"code": "export_mismatch", "detail": "no"})
        """
    )
    run_job(runtime, job_id)
    told = runtime.telemetry.registry.get_sample_value
    assert told("basisconv_jobs_ended_total", {"status": "failed", "code": "export_mismatch"}) == 1
    assert told("basisconv_stage_seconds_count", {"stage": "calibrate"}) == 1
    assert (told("basisconv_stage_seconds_sum", {"stage": "calibrate"}) or 0) > 0.25
    assert told("basisconv_stage_seconds_count", {"stage": "export"}) is None  # it did not finish
    assert told("basisconv_attempt_seconds_count", {"work": "job", "ending": "problem"}) == 1
    assert told("basisconv_wait_seconds_count", {"work": "job"}) == 1


def test_a_lost_attempt_is_counted_and_is_no_outcome_yet(
    with_child: Callable[[str], Runtime], job_id: str
) -> None:
    runtime = with_child("os._exit(3)")
    run_job(runtime, job_id)
    told = runtime.telemetry.registry.get_sample_value
    assert told("basisconv_attempts_lost_total", {"work": "job", "cause": "child"}) == 1
    assert told("basisconv_jobs_ended_total", {"status": "failed", "code": "worker_lost"}) is None


def test_records_become_messages_that_the_worker_takes() -> None:
    sent: Lines = []
    code = "import warnings; warnings.warn('a library warns', UserWarning)"
    handler = child_log._Messages(sent.append)
    record = logging.LogRecord("worker.x", logging.INFO, __file__, 1, "loss %s", (float("nan"),), None)
    record.fields = {"loss": float("nan"), "path": [1], "count": 3}
    handler.emit(record)
    import json

    message = parse(json.dumps(sent[0]).encode())
    assert isinstance(message, LogMessage)
    assert message.fields == {"loss": "nan", "path": "[1]", "count": 3}
    assert (message.event, message.level) == ("loss nan", "info")
    script = f"from worker import child_log; child_log.install(print); {code}"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "a library warns" in told.stdout
