"""A plan in its child, against what the job then does: the same layers, forms and ranks."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import Internal
from app.jobs.checks import decide
from app.jobs.options import Compression
from tests.worker import networks
from tests.worker.test_pipeline import Bench
from worker import numbers, planning

Message = dict[str, Any]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def plan(bench: Bench, *, excluded: tuple[str, ...] = (), again: bool = False, **compression: Any) -> Message:
    """A plan as the supervisor would ask for it; `again`: from the measurement of the last one."""
    task = bench.task() | {
        "task": "plan",
        "compression": decided(bench, compression),
        "open": [name for name in networks.LAYERS if name not in excluded],
        "measurement": planning.MEASURED if again else None,
    }
    answer = planning.plan(task, bench.folder, bench.said.append)
    assert answer["measurement"] == (None if again else planning.MEASURED)
    found: Message = answer["plan"]
    return found


def decided(bench: Bench, compression: Message) -> Message:
    """As it is frozen when it is accepted."""
    asked = decide(Compression.model_validate(compression), with_images=bench.with_data)
    return asked.model_dump(mode="json")


def chosen(layers: list[Message]) -> dict[str, tuple[str, int | None]]:
    return {layer["name"]: (layer["form"], layer["rank"]) for layer in layers}


def test_a_job_with_the_plans_target_does_what_was_planned(bench: Bench) -> None:
    bench.give_images()
    planned = plan(bench, target={"macs": 0.6})
    result = bench.run(compression={"target": {"macs": 0.6}})
    assert chosen(planned["layers"]) == chosen(result["layers"])
    assert any(layer["replaced"] for layer in planned["layers"])
    for name in ("macs", "params"):
        assert planned["predicted"][name] == result["compressed"][name]
        assert planned["original"][name] == result["original"][name]
    assert planned["predicted"]["macs"] <= 0.6 * planned["original"]["macs"]


def test_a_plan_sent_as_ranks_gives_the_very_network_of_its_target(bench: Bench) -> None:
    bench.give_images()
    planned = plan(bench, target={"macs": 0.6})
    by_target = bench.run(compression={"target": {"macs": 0.6}})
    by_ranks = bench.run(compression={"target": {"ranks": planned["ranks"]}})
    assert chosen(planned["layers"]) == chosen(by_ranks["layers"])
    # The same pairs, fitted on the same images together with the same layers that stay: to the last digit.
    errors = [[layer["error"] for layer in result["layers"]] for result in (by_target, by_ranks)]
    assert errors[0] == errors[1]
    assert by_target["compressed"]["agreement"] == by_ranks["compressed"]["agreement"]


def test_an_edited_plan_is_done_as_edited(bench: Bench) -> None:
    bench.give_images()
    ranks = plan(bench, target={"macs": 0.6})["ranks"]
    ranks["conv2"] = {"form": "kx1_1xk", "rank": 21}
    ranks["conv3"] = 9
    del ranks["conv1"]
    asked = {"target": {"ranks": ranks}, "layers": {"exclude": ["conv1"]}}
    planned = plan(bench, **asked, excluded=("conv1",), again=True)
    result = bench.run(compression=asked)
    assert chosen(planned["layers"]) == chosen(result["layers"])
    assert chosen(planned["layers"])["conv2"] == ("kx1_1xk", 21)
    assert chosen(planned["layers"])["conv3"] == ("basis", 9)
    reasons = {layer["name"]: layer["reason"] for layer in planned["layers"]}
    assert reasons == {layer["name"]: layer["reason"] for layer in result["layers"]}
    assert reasons["conv1"] == "excluded"
    assert planned["predicted"]["macs"] == result["compressed"]["macs"]
    assert planned["predicted"]["params"] == result["compressed"]["params"]


def test_a_layer_named_dense_stays_but_follows_what_comes_before_it(bench: Bench) -> None:
    bench.give_images()
    named = bench.layers(
        bench.run(compression={"target": {"ranks": {"conv2": 9, "conv3": {"form": "dense"}}}})
    )
    assert (named["conv3"]["replaced"], named["conv3"]["reason"]) == (False, "kept_as_asked")
    assert named["conv2"]["rank"] == 9


@pytest.mark.parametrize(
    "compression",
    [
        {"target": {"params": 0.6}},
        {"target": {"energy": 0.9}},
        {"target": {"rank_fraction": 0.5}},
        {"target": {"macs": 0.7}, "forms": "basis", "rank_multiple": 4},
        {"target": {"energy": 0.9}, "basis": "weights"},
        {"target": {"macs": 0.7}, "basis": "weights"},
    ],
    ids=str,
)
def test_whatever_is_asked_plan_and_job_agree(bench: Bench, compression: Message) -> None:
    bench.give_images()
    planned, result = plan(bench, **compression), bench.run(compression=decided(bench, compression))
    assert chosen(planned["layers"]) == chosen(result["layers"])
    assert [layer["reason"] for layer in planned["layers"]] == [layer["reason"] for layer in result["layers"]]
    assert planned["predicted"]["macs"] == result["compressed"]["macs"]
    assert planned["predicted"]["params"] == result["compressed"]["params"]


def test_one_measurement_serves_every_later_plan(bench: Bench) -> None:
    bench.give_images()
    first = plan(bench, target={"macs": 0.6})
    for asked in ({"target": {"macs": 0.4}}, {"target": {"params": 0.5}}, {"target": {"energy": 0.8}}):
        measured_anew = plan(bench, **asked)
        assert plan(bench, **asked, again=True) == measured_anew
    assert plan(bench, target={"macs": 0.6}, again=True) == first


def test_a_target_below_the_smallest_network_is_not_feasible_and_says_what_is(bench: Bench) -> None:
    bench.give_images()
    planned = plan(bench, target={"macs": 0.01})
    assert planned["feasible"] is False
    assert planned["achievable"] == planned["limits"]["macs"] > 0.01
    assert [warning["code"] for warning in planned["warnings"]] == ["target_infeasible"]
    smallest = plan(bench, target={"macs": planned["achievable"]}, again=True)
    assert smallest["feasible"] is True
    assert chosen(smallest["layers"]) == chosen(planned["layers"])


def test_smaller_networks_are_expected_to_do_worse(bench: Bench) -> None:
    bench.give_images()
    found = [plan(bench, target={"macs": 1.0})["predicted"]]
    found += [plan(bench, target={"macs": share}, again=True)["predicted"] for share in (0.7, 0.4)]
    errors = [one["error"] for one in found]
    assert errors == sorted(errors)
    assert errors[0] == 0 < errors[2]
    assert (found[0]["agreement"], found[0]["accuracy_drop"]) == (1.0, 0.0)
    assert 0 < found[2]["agreement"] < 1
    assert found[2]["accuracy_drop"] > 0


def test_a_loss_of_accuracy_gives_the_smallest_network_expected_to_keep_to_it(bench: Bench) -> None:
    bench.give_images()
    planned = plan(bench, target={"accuracy_drop": 0.3})
    assert 0.2 < planned["predicted"]["accuracy_drop"] <= 0.3
    assert planned["predicted"]["macs"] < planned["original"]["macs"]
    assert [warning["code"] for warning in planned["warnings"]] == ["expected_only"]
    none = plan(bench, target={"accuracy_drop": 0.0}, again=True)
    assert none["predicted"]["macs"] == none["original"]["macs"]
    assert [warning["code"] for warning in none["warnings"]] == ["expected_only", "nothing_replaced"]


def test_without_images_it_says_so_and_expects_agreement_but_no_accuracy(bench: Bench) -> None:
    bench.model = networks.with_norms(bench.model)
    planned = plan(bench, target={"macs": 0.6})
    assert [warning["code"] for warning in planned["warnings"]] == ["no_images"]
    assert planned["predicted"]["accuracy_drop"] is None
    assert 0 < planned["predicted"]["agreement"] <= 1


def test_by_the_weights_alone_nothing_is_expected_of_the_answers(bench: Bench) -> None:
    predicted = plan(bench, basis="weights", target={"macs": 0.6})["predicted"]
    assert (predicted["error"], predicted["agreement"], predicted["accuracy_drop"]) == (None, None, None)


def test_a_layers_curve_falls_and_ends_with_the_layer_itself(bench: Bench) -> None:
    bench.give_images()
    for layer in plan(bench, target={"macs": 0.6})["layers"]:
        curve = layer["sensitivity"]
        if curve is None:
            continue
        assert 2 <= len(curve) <= 20
        assert [point["macs"] for point in curve] == sorted({point["macs"] for point in curve})
        harms = [point["harm"] for point in curve]
        assert harms == sorted(harms, reverse=True)
        assert (curve[-1]["form"], curve[-1]["macs"], harms[-1]) == ("dense", layer["macs_before"], 0)


def test_a_network_fed_wrongly_is_told_before_anything_is_run(bench: Bench) -> None:
    labels = networks.spread_out(bench.model, 240)
    bench.give_images(y=(labels + 1) % networks.CLASSES)
    warnings = {said["code"]: said["detail"] for said in plan(bench, target={"macs": 0.6})["warnings"]}
    assert "class order" in warnings["baseline_mismatch"]


def test_layers_whose_fit_could_learn_the_images_by_heart_are_told(bench: Bench) -> None:
    networks.dataset(bench.folder, networks.images(100), networks.spread_out(bench.model, 100), 40)
    bench.with_data = True
    warnings = {said["code"]: said["detail"] for said in plan(bench, target={"macs": 0.6})["warnings"]}
    assert "32 inputs, measured on 40 images" in warnings["few_images"]


def test_progress_is_told_while_the_network_is_measured(bench: Bench) -> None:
    bench.give_images()
    plan(bench, target={"macs": 0.6})
    fractions = [said["fraction"] for said in bench.said if said["type"] == "progress"]
    assert fractions == sorted(fractions)
    assert fractions[-1] > 0.4


def test_a_measurement_that_cannot_be_read_is_an_error_of_ours(bench: Bench) -> None:
    (bench.folder / planning.MEASURED).write_text("{}")
    with pytest.raises(Internal):
        plan(bench, target={"macs": 0.6}, again=True)


def test_numbers_come_back_as_they_were_written(bench: Bench, tmp_path: Path) -> None:
    bench.give_images()
    plan(bench, target={"macs": 0.6})
    known = numbers.read(bench.folder / planning.MEASURED)
    numbers.write(tmp_path / "again", known)
    assert numbers.read(tmp_path / "again") == known


def test_a_later_plan_does_without_torch() -> None:
    code = "import sys, worker.planning; print(sorted({'torch', 'scipy', 'onnx'} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
