"""`basisconv batch` before the real service."""

import json
from pathlib import Path

from tests.client.running import IMAGES, NETWORK, CommandLine

JOB = {"compression": {"basis": "weights", "target": {"rank_fraction": 0.5}}, "exports": ["onnx"]}


def test_a_file_of_jobs_is_submitted_watched_and_read(basisconv: CommandLine) -> None:
    (basisconv.folder / "net.onnx").write_bytes(NETWORK.read_bytes())
    bodies = [JOB | {"model": "net.onnx", "name": "first"}, JOB | {"model": str(NETWORK)}]
    lines = [json.dumps(body) for body in bodies]
    (basisconv.folder / "jobs.jsonl").write_text("\n".join([*lines, "no json"]))
    refused = basisconv.run("batch", "submit", "jobs.jsonl", "--json")
    assert refused.status == 2
    assert "line" in refused.meanwhile
    made = basisconv.run("batch", "submit", "jobs.jsonl", "--on-error", "skip", "--name", "both", "--json")
    assert made.status == 0, made.meanwhile
    batch = made.json["id"]
    watched = basisconv.run("batch", "watch", batch, "--json")
    assert watched.json["counts"] | {"succeeded": 2, "invalid": 1, "total": 3} == watched.json["counts"]
    assert watched.status == 1  # not all of it went well
    rows = basisconv.run("batch", "results", batch, "-o", "results.jsonl", "--json").json
    assert [row["line"] for row in rows] == [1, 2, 3]
    assert rows[0]["model"] == rows[1]["model"]  # the same file under two names is one network
    written = (basisconv.folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == rows
    shown = basisconv.run("batch", "results", batch).said
    assert rows[0]["id"] in shown
    assert batch in basisconv.run("batch", "list").said
    assert basisconv.run("batch", "delete", batch).status == 0
    assert basisconv.run("batch", "show", batch).status == 4


def test_a_grid_is_submitted_and_cancelled(basisconv: CommandLine, tmp_path: Path) -> None:
    grid = {
        "models": [str(NETWORK)],
        "grid": {"compression.target.macs": [0.5, 0.6], "training.epochs": [900]},
        "base": {"dataset": str(IMAGES), "training": {"objective": "labels", "learning_rate": 0.01}},
    }
    (basisconv.folder / "grid.json").write_text(json.dumps(grid))
    made = basisconv.run("batch", "submit", "grid.json", "--json")
    assert made.status == 0, made.meanwhile
    assert made.json["counts"]["total"] == 2
    assert basisconv.run("batch", "cancel", made.json["id"]).status == 0
    watched = basisconv.run("batch", "watch", made.json["id"], "--json")
    assert (watched.status, watched.json["status"], watched.json["counts"]["cancelled"]) == (
        1,
        "cancelled",
        2,
    )
