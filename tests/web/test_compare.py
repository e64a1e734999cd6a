"""Runs beside each other: points to draw and rows to read."""

from typing import Any

from app.web import compare

FIGURES = {"accuracy": 0.9, "agreement": 1.0, "macs": 100, "params": 50, "bytes": 1000}


def _job(number: int, macs: int, **changed: Any) -> dict[str, Any]:
    job = {
        "id": f"job_{number}",
        "kind": "compress",
        "name": None,
        "model": "model_a",
        "dataset": "dataset_a",
        "compression": {"target": {"macs": macs / 100}},
        "training": {"epochs": 1},
        "warnings": [{"code": "no_speed_up", "detail": "…"}],
        "result": {
            "original": FIGURES | {"latency_ms": {"batch_1": 2.0}},
            "compressed": FIGURES | {"macs": macs, "accuracy": 0.88, "latency_ms": {"batch_1": None}},
        },
    }
    return job | changed


def test_the_original_is_drawn_once_for_each_data_set_and_every_run_as_it_is() -> None:
    jobs = [_job(1, 50), _job(2, 30), _job(3, 30, dataset="dataset_b", name="Third")]
    points = compare.points(jobs, {"model_a": "net"})
    assert [point["label"] for point in points if point["original"]] == ["Original: net"] * 2
    runs = {point["id"]: point for point in points if not point["original"]}
    assert (runs["job_1"]["macs"], runs["job_1"]["accuracy"], runs["job_1"]["latency"]) == (50, 0.88, None)
    assert runs["job_1"]["label"] == "50\xa0% of the operations"
    assert (runs["job_3"]["label"], runs["job_3"]["href"]) == ("Third", "/jobs/job_3")
    assert points[0]["latency"] == 2.0


def test_of_a_network_trained_from_scratch_no_original_is_drawn() -> None:
    points = compare.points([_job(1, 50, kind="train")], {})
    assert [point["original"] for point in points] == [False]


def test_a_row_holds_every_figure_beside_the_originals() -> None:
    [row] = compare.rows([_job(1, 50)])
    texts = [(cell.text, cell.note) for cell in row["cells"]]
    assert texts[0] == ("88.0\xa0%", "−2.00\xa0points")
    assert texts[2] == ("50", "50.0\xa0%")
    assert texts[-1] == ("–", "")
    assert row["warnings"] == ["Smaller, but not faster everywhere"]
