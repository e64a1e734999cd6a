"""A job's child that goes on where another was broken off: the same files to the bit, nothing done twice."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.jobs.states import Stage
from tests.worker import networks
from tests.worker.test_pipeline import Bench
from worker import pipeline
from worker.checkpoint import EVERY_SECONDS, Keeper, read, write

TRAIN, TEST = 400, 80
Message = dict[str, Any]
COMPRESS: Message = {"training": {"epochs": 3, "batch_size": 40}, "exports": ["onnx", "safetensors"]}
KINDS: dict[str, Message] = {
    "all": COMPRESS,
    "mixing": COMPRESS
    | {"training": {"epochs": 3, "batch_size": 40, "update": "mixing", "objective": "both"}},
    "train": COMPRESS | {"kind": "train", "compression": {"basis": "random", "target": {"expansion": 1.5}}},
    "search": COMPRESS | {"compression": {"target": {"accuracy_drop": 0.2}}},
    "no_epochs": {"exports": ["onnx", "safetensors"]},
}

SLOW = ("mixing", "search")  # they add little to the others


class Broken(BaseException):
    """The child is gone."""


def bench_in(folder: Path) -> Bench:
    folder.mkdir()
    made = Bench(folder, model=networks.with_norms(networks.small_cnn()))
    pixels = networks.images(TRAIN + TEST)
    networks.dataset(folder, pixels, networks.spread_out(made.model, TRAIN + TEST), TRAIN)
    made.with_data = True
    return made


def task_of(bench: Bench, options: Message) -> Message:
    return bench.task(
        **{name: dict(value) if isinstance(value, dict) else value for name, value in options.items()}
    )


def until(number: int, said: list[Message]) -> Callable[[Message], None]:
    """Listen to a child that is gone right after its checkpoint with this number."""

    def report(message: Message) -> None:
        said.append(message)
        if sum(one["type"] == "checkpoint" for one in said) == number:
            raise Broken

    return report


def left_behind(said: list[Message]) -> Message | None:
    """What the supervisor would hand to the next child: the newest network, and its training."""
    parts: dict[str, Message] = {}
    for message in said:
        if message["type"] == "checkpoint":
            parts = {} if message["part"] == "network" else parts
            parts[message["part"]] = message
    if not parts:
        return None
    return {"files": {name: one["file"] for name, one in parts.items()}, "stage": parts["network"]["stage"]}


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("compressed.*"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in SLOW else ()) for kind in KINDS]
)
def test_broken_off_after_any_checkpoint_it_ends_with_the_same_bits(tmp_path: Path, kind: str) -> None:
    whole = bench_in(tmp_path / "whole")
    result = pipeline.run(task_of(whole, KINDS[kind]), whole.folder, whole.said.append)
    made = [said for said in whole.said if said["type"] == "checkpoint"]
    assert made[0]["part"] == "network"
    assert made[-1]["stage"] == "evaluate"
    if kind != "no_epochs":
        assert {one["epoch"] for one in made if one["part"] == "training"} >= {1, 2, 3}
    bench = bench_in(tmp_path / "broken")
    said: list[Message] = []
    resume = None
    for number in range(1, len(made) + 1):  # each child goes on from the last one's checkpoint, and makes one
        heard: list[Message] = []
        with pytest.raises(Broken):
            pipeline.run(task_of(bench, KINDS[kind]) | {"resume": resume}, bench.folder, until(1, heard))
        said += heard
        for message in heard:
            if message["type"] == "checkpoint":
                kept = bench.folder / f"kept-{number}"
                (bench.folder / message["file"]).rename(kept)
                message["file"] = kept.name
        resume = left_behind(said)
    again = pipeline.run(task_of(bench, KINDS[kind]) | {"resume": resume}, bench.folder, said.append)
    assert hashes(bench.folder) == hashes(whole.folder)
    assert _without_times(again) == _without_times(result)
    assert _points(said) == _points(whole.said)
    stages = [one["stage"] for one in said if one["type"] == "stage"]
    assert stages.count("decompose") == 1
    assert list(again["seconds"]) == list(result["seconds"])


def _without_times(result: Message) -> Message:
    timed = ("seconds", "peak_bytes", "peak_memory_bytes", "peak_device_bytes", "latency_repeats")
    figures = {
        name: {k: v for k, v in result[name].items() if not k.startswith("latency_")}
        for name in ("original", "truncated", "compressed")
    }
    return {name: value for name, value in result.items() if name not in timed} | figures


def _points(said: list[Message]) -> dict[tuple[str, int], float]:
    found = [one for one in said if one["type"] == "metric" and one["name"] != "images_per_second"]
    points = {(one["name"], one["step"]): one["value"] for one in found}
    assert len(points) == len(found)  # no point is said twice
    return points


def broken_off(folder: Path, number: int) -> tuple[Bench, Message]:
    """A job that went as far as its checkpoint with this number, and what it left."""
    bench = bench_in(folder)
    said: list[Message] = []
    with pytest.raises(Broken):
        pipeline.run(task_of(bench, COMPRESS), bench.folder, until(number, said))
    resume = left_behind(said)
    assert resume is not None
    return bench, resume


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _of_another_version(path: Path) -> None:
    write(path, "network", {}, {}, version=0)


def _of_another_network(path: Path) -> None:
    saved = read(path, "network")
    structure = saved.about["structure"] | {
        "layers": [{"path": "none", "form": "basis", "rank": 3, "bias": True}]
    }
    write(path, "network", saved.tensors, saved.about | {"structure": structure})


@pytest.mark.parametrize("harm", [_cut, _of_another_version, _of_another_network])
def test_a_checkpoint_that_cannot_be_used_costs_time_and_not_the_job(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    bench, resume = broken_off(tmp_path / "job", 1)
    harm(bench.folder / resume["files"]["network"])
    result = pipeline.run(task_of(bench, COMPRESS) | {"resume": resume}, bench.folder, bench.said.append)
    assert [said["type"] for said in bench.said[:2]] == ["restart", "stage"]
    assert [said["stage"] for said in bench.said if said["type"] == "stage"] == list(result["seconds"])
    assert result["target_met"]


def test_training_that_does_not_fit_its_network_is_not_mixed_with_it(tmp_path: Path) -> None:
    bench, resume = broken_off(tmp_path / "job", 2)
    path = bench.folder / resume["files"]["training"]
    saved = read(path, "training")
    some = {name: value for name, value in saved.tensors.items() if not name.endswith("fc.weight")}
    write(path, "training", some, saved.about)
    pipeline.run(task_of(bench, COMPRESS) | {"resume": resume}, bench.folder, bench.said.append)
    assert "restart" in [said["type"] for said in bench.said]


def test_a_checkpoint_that_finds_no_room_is_warned_of_once_and_the_job_goes_on(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "gone")
    said = [*keeper.keep("network", {}, {}, Stage.FINETUNE), *keeper.keep("network", {}, {}, Stage.FINETUNE)]
    assert [message["code"] for message in said] == ["checkpoint_not_written"]


def test_checkpoints_of_short_epochs_never_take_more_than_a_tenth_of_the_time(tmp_path: Path) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.5  # looking takes half a second here, and so does writing
        return now[0]

    keeper = Keeper(tmp_path, clock=clock)
    list(keeper.keep("network", {}, {}, Stage.FINETUNE))
    assert not keeper.is_due(epoch_ended=True)
    now[0] += 5.0
    assert keeper.is_due(epoch_ended=True)
    assert not keeper.is_due(epoch_ended=False)
    now[0] += EVERY_SECONDS
    assert keeper.is_due(epoch_ended=False)
