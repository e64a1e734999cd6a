"""What a job's page says about its stages, its numbers and how to send it again."""

import json
import shlex
from typing import Any

from app.web import formatting, job_view, result_view

OPTIONS: dict[str, Any] = {
    "kind": "compress",
    "model": "model_a",
    "dataset": "dataset_b",
    "name": "It's mine",
    "compression": {"basis": "weights", "target": {"macs": 0.6, "params": None}},
    "training": {"epochs": 0, "learning_rate": None},
    "limits": {"accuracy_drop": None},
    "exports": ["onnx"],
}


def _at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}Z"


def _stage(name: str, second: int) -> dict[str, Any]:
    return {"type": "stage", "stage": name, "data": {}, "created_at": _at(second)}


def test_a_running_jobs_stages_are_done_current_and_to_come() -> None:
    events = [_stage("calibrate", 0), _stage("decompose", 5)]
    views = job_view.stages({"status": "running", "finished_at": None}, events)
    assert [view.state for view in views[:3]] == ["done", "current", "todo"]
    assert views[0].time == "5.0\xa0s"
    assert views[1].since == _at(5)


def test_the_stages_of_an_attempt_that_was_lost_are_not_shown() -> None:
    again = {"type": "progress", "stage": None, "data": {}, "created_at": _at(9)}
    events = [_stage("calibrate", 0), _stage("decompose", 5), again, _stage("calibrate", 10)]
    views = job_view.stages({"status": "running", "finished_at": None}, events)
    assert [view.state for view in views[:2]] == ["current", "todo"]


def test_a_finished_jobs_stages_tell_their_memory_beside_their_time() -> None:
    job = {"status": "succeeded", "finished_at": _at(7), "result": {"peak_bytes": {"calibrate": 412_000_000}}}
    views = job_view.stages(job, [_stage("calibrate", 0), _stage("decompose", 5)])
    assert [view.time for view in views[:2]] == ["5.0\xa0s, 412\xa0MB", "2.0\xa0s"]


def test_a_failed_job_shows_the_stage_it_failed_in() -> None:
    views = job_view.stages({"status": "failed", "finished_at": _at(7)}, [_stage("calibrate", 0)])
    assert views[0].state == "stopped"


def test_the_request_to_repeat_a_job_survives_the_shell() -> None:
    text = job_view.request_text("http://127.0.0.1:8000", OPTIONS)
    words = shlex.split(text.replace("\\\n", ""))
    body = json.loads(words[words.index("-d") + 1])
    assert body["name"] == "It's mine"
    assert body["compression"] == {"basis": "weights", "target": {"macs": 0.6}}
    assert "limits" not in body


def test_a_network_without_labels_is_described_by_its_agreement() -> None:
    figures = {"accuracy": None, "agreement": 0.97, "macs": 50, "params": 5, "bytes": 10}
    result = {"original": figures | {"agreement": 1.0, "macs": 100}, "compressed": figures}
    facts = result_view.facts(result)
    assert (facts[0].label, facts[0].value) == ("Same answers", "97.0\xa0%")
    labels = [row.label for row in result_view.rows(result)]
    assert "Accuracy" not in labels
    assert "Same answers as the original" in labels


def test_a_target_on_accuracy_is_shown_in_points() -> None:
    job = {"compression": {"target": {"accuracy_drop": 0.005, "macs": None}}}
    assert job_view.wish(job) == "at most 0.5 points of accuracy lost"
    assert job_view.wish({"compression": {"target": {"accuracy_drop": 0.01}}}).startswith(
        "at most 1 point of"
    )


def test_a_share_is_shown_with_the_digits_that_it_was_asked_with() -> None:
    for asked, shown in ((0.6, "60"), (0.625, "62.5"), (0.001, "0.1")):
        job = {"compression": {"target": {"macs": asked}}}
        assert job_view.wish(job) == f"{shown}\xa0% of the operations"


def test_the_networks_that_were_tried_are_shown_from_the_smallest_to_the_largest() -> None:
    tries = [
        {"share": 0.5, "macs": 50, "loss": 0.0125, "passed": False},
        {"share": 0.6, "macs": 60, "loss": 0.004, "passed": True},
        {"share": 0.55, "macs": 55, "loss": -0.001, "passed": True},
    ]
    search = {
        "allowed": 0.01,
        "held_back_images": 5000,
        "tries": tries,
        "share": 0.55,
        "expected_loss": -0.001,
    }
    shown = result_view.search({"original": {"macs": 100}, "search": search})
    assert shown is not None
    assert [one["kept"] for one in shown["tries"]] == ["50.0\xa0%", "55.0\xa0%", "60.0\xa0%"]
    assert [one["lost"] for one in shown["tries"]] == [
        "−1.25\xa0points",
        "+0.10\xa0points",
        "−0.40\xa0points",
    ]
    assert shown["allowed"] == "1 point"
    assert result_view.search({"original": {"macs": 100}}) is None


def test_a_job_without_images_shows_what_to_expect_and_that_it_is_an_expectation() -> None:
    figures = {"accuracy": None, "agreement": None, "macs": 50, "params": 5, "bytes": 10}
    result = {"original": figures, "compressed": figures, "synthetic": {"expected_agreement": 0.875}}
    first = result_view.facts(result)[0]
    assert (first.label, first.value) == ("Same answers, expected", "88\xa0%")
    result["synthetic"] = {"expected_agreement": None, "expected_agreement_db": {"mask": 21.34, "box": 30.0}}
    assert result_view.facts(result)[0].value == "21.3\xa0dB"


def test_numbers_keep_three_digits_and_their_unit_on_one_line() -> None:
    assert formatting.count(40_551_040) == "40.6\xa0M"
    assert formatting.count(480) == "480"
    assert formatting.size(1_096_000) == "1.10\xa0MB"
    assert formatting.milliseconds(0.0312) == "0.031\xa0ms"
    assert formatting.duration(95) == "1\xa0min 35\xa0s"
    assert formatting.points(-0.0112) == "−1.12\xa0points"
    assert formatting.points(0.0) == "±0\xa0points"


def test_a_job_from_scratch_says_so_and_names_its_networks_and_stages() -> None:
    job = OPTIONS | {"kind": "train", "status": "running", "stage": "finetune"}
    shown = job_view.summary(job, None)
    assert shown["wish"] == "From scratch, 60\xa0% of the operations"
    assert shown["stage_label"] == "Train"
    assert shown["networks"]["truncated"] == "Untrained"
    labels = [view.label for view in job_view.stages(job, [])]
    assert labels[:3] == ["Look", "Restructure", "Train"]
    expanded = job | {"compression": {"target": {"expansion": 1.5}}}
    assert job_view.summary(expanded, None)["wish"] == "From scratch, 1.5 filters per channel"
    assert job_view.summary(OPTIONS | {"status": "queued"}, None)["wish"] == "60\xa0% of the operations"
