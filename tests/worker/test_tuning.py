"""Fine-tuning in a job: what it holds back, what it keeps, and what it says."""

from pathlib import Path

import pytest

from tests.worker import networks
from tests.worker.test_pipeline import Bench

TRAIN, TEST = 400, 80


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    pixels = networks.images(TRAIN + TEST)
    networks.dataset(tmp_path, pixels, networks.spread_out(made.model, TRAIN + TEST), TRAIN)
    made.with_data = True
    return made


def test_the_curves_of_the_held_back_images_begin_at_the_untuned_network(bench: Bench) -> None:
    result = bench.run(training={"epochs": 2, "batch_size": 40})
    points = {
        name: [said["step"] for said in bench.said if said["type"] == "metric" and said["name"] == name]
        for name in ("held_back_divergence", "held_back_disagreement", "held_back_accuracy_drop")
    }
    assert all(steps == [0, 9, 18] for steps in points.values())
    tuning = result["tuning"]
    assert (tuning["held_back_images"], tuning["epochs"]) == (40, 2)
    assert tuning["loss_kept"] <= tuning["loss_before"]


def test_a_tuning_that_harms_is_undone_and_said_so(bench: Bench) -> None:
    result = bench.run(training={"epochs": 1, "batch_size": 40, "learning_rate": 5.0})
    assert result["tuning"]["kept_epoch"] == 0
    assert bench.warnings()["tuning_did_not_help"] == (
        "One epoch did not bring the network closer to the original on 40 held-back images; the untuned "
        "network was kept."
    )
    if not result["tuning"]["batch_norm_reestimated"]:
        assert result["compressed"]["agreement"] == result["truncated"]["agreement"]
    assert result["compressed"]["agreement"] > 0.5


def test_training_ends_early_once_no_more_is_lost_than_allowed(bench: Bench) -> None:
    training = {"epochs": 5, "batch_size": 40, "learning_rate": 1e-3}
    result = bench.run(training=training, limits={"accuracy_drop": 0.9})
    assert result["tuning"]["stopped"] == "accuracy_drop"
    assert result["tuning"]["epochs"] < 5


def test_of_few_images_none_is_held_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.give_images()
    result = bench.run(training={"epochs": 1, "batch_size": 32})
    assert (result["tuning"]["held_back_images"], result["tuning"]["kept_epoch"]) == (0, None)


def test_without_training_nothing_is_said_of_it(bench: Bench) -> None:
    assert bench.run()["tuning"] is None
