"""The bundled example is what its README says: small, complete and accurate."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from app import example
from tests.data.making import inspect
from worker.data.materialize import materialize
from worker.data.preprocess import preprocess
from worker.data.spec import InputSpec


def test_the_network_reads_its_test_images_as_well_as_the_readme_says(tmp_path: Path) -> None:
    result = inspect(tmp_path, example.IMAGES.read_bytes(), "npz")
    assert result["examples"] == {"train": 1437, "test": 360}
    images = materialize(tmp_path / "canonical", example.INPUT, None)
    session = onnxruntime.InferenceSession(example.NETWORK, providers=["CPUExecutionProvider"])
    batch = preprocess(images.test_x, InputSpec.parse(example.INPUT)).numpy()
    (scores,) = session.run(None, {"image": batch})
    assert (scores.argmax(axis=1) == images.test_y).sum() == 357


def test_the_network_is_valid_and_tells_nothing_of_the_machine_that_made_it() -> None:
    network = onnx.load(example.NETWORK)
    onnx.checker.check_model(network, full_check=True)
    assert network.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert not network.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in network.graph.node)
    assert b".py" not in example.NETWORK.read_bytes()


@pytest.mark.parametrize("name", ["digits_cnn.onnx", "digits_cnn.pt2", "digits.npz"])
def test_the_files_are_small(name: str) -> None:
    assert (example.FOLDER / name).stat().st_size < 500_000


def test_the_images_hold_both_parts_of_every_digit() -> None:
    with np.load(example.IMAGES, allow_pickle=False) as images:
        for part in ("train", "test"):
            assert len(images[f"x_{part}"]) == len(images[f"y_{part}"])
            assert set(images[f"y_{part}"].tolist()) == set(range(10))
