"""A run can stop anywhere and go on, and mixes nothing that differs."""

import json
from dataclasses import replace
from pathlib import Path

from benchmarks import machine
from benchmarks.raw import Key, RawFile, Row, about, read

KEY = Key("net", "weights", 0.5, 1, tuned=False)


def test_rows_come_back_as_they_were_written(tmp_path: Path):
    path = tmp_path / "results" / "raw.json"
    raw, row = RawFile(path, {"threads": 1}), Row(KEY, "abc", {"accuracy": 0.5, "macs": 7})
    raw.add(row)
    assert read(path) == [row]
    assert about(path) == {"threads": 1}
    assert list(path.parent.iterdir()) == [path]


def test_a_row_measured_again_takes_the_place_of_the_old_one(tmp_path: Path):
    raw = RawFile(tmp_path / "raw.json", {})
    raw.add(Row(KEY, "abc", {"accuracy": 0.5}))
    raw.add(Row(KEY, "def", {"accuracy": 0.6}))
    assert [row.values["accuracy"] for row in read(tmp_path / "raw.json")] == [0.6]


def test_only_a_resumed_run_knows_older_rows(tmp_path: Path):
    path = tmp_path / "raw.json"
    RawFile(path, {}).add(Row(KEY, "abc", {}))
    assert RawFile.resumed(path, {}).has(KEY, "abc")
    assert not RawFile(path, {}).has(KEY, "abc")


def test_rows_of_other_code_or_another_seed_are_measured_again(tmp_path: Path):
    raw = RawFile(tmp_path / "raw.json", {})
    raw.add(Row(KEY, "abc", {}))
    assert not raw.has(KEY, "def")
    assert not raw.has(replace(KEY, seed=2), "abc")
    assert not raw.has(replace(KEY, tuned=True), "abc")


def test_the_raw_file_is_plain_json_with_one_object_per_row(tmp_path: Path):
    raw = RawFile(tmp_path / "raw.json", {"processor": "p"})
    raw.add(Row(KEY, "abc", {"accuracy": 0.5}))
    found = json.loads((tmp_path / "raw.json").read_text())
    assert found["rows"] == [
        {
            "network": "net",
            "method": "weights",
            "cut": 0.5,
            "seed": 1,
            "tuned": False,
            "code": "abc",
            "accuracy": 0.5,
        }
    ]


def test_every_peer_is_pinned_to_one_version():
    lines = (machine.ROOT / "benchmarks/peers/requirements.txt").read_text().splitlines()
    named = [line for line in lines if line.strip() and not line.startswith("#")]
    assert len(machine.peer_pins()) == len(named)
    assert machine.peer_pins()["torch"] == "2.13.0"


def test_two_runs_that_go_on_with_one_file_keep_each_others_rows(tmp_path: Path):
    first, second = (RawFile.resumed(tmp_path / "raw.json", {}) for _ in range(2))
    first.add(Row(KEY, "abc", {}))
    second.add(Row(replace(KEY, seed=2), "abc", {}))
    first.add(Row(replace(KEY, seed=3), "abc", {}))
    assert sorted(row.key.seed for row in read(tmp_path / "raw.json")) == [1, 2, 3]
