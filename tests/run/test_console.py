"""What of the logs reaches the console."""

import json
from pathlib import Path

from app.embedded.console import ROTATE_BYTES, Relay, rotate


def test_warnings_and_job_ends_are_told_and_the_rest_is_not(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_text('{"event": "old", "level": "error"}\n')
    relay = Relay({"web": log})
    with log.open("a") as file:
        for event in (
            {"event": "request", "level": "info"},
            {"event": "job.ended", "level": "info", "job": "job_1", "status": "succeeded"},
            {"event": "bus.lost", "level": "warning", "error": "gone"},
        ):
            file.write(json.dumps(event) + "\n")
        file.write("not json\n")
        file.write('{"event": "half')
    assert relay.lines() == ["web: job.ended job=job_1 status=succeeded", "web: warning: bus.lost error=gone"]
    with log.open("a") as file:
        file.write('", "level": "error"}\n')
    assert relay.lines() == ["web: error: half"]
    assert relay.lines() == []


def test_a_long_log_is_put_aside(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_bytes(b"x" * (ROTATE_BYTES + 1))
    rotate(log)
    assert not log.exists()
    assert (tmp_path / "web.log.1").stat().st_size == ROTATE_BYTES + 1
