"""The shared JPEG folders, as a user would drop them in, for a 32-pixel and a 224-pixel network."""

import io
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from tests.data.making import encode, inspect, zip_of
from tests.support.networks import NO_DATA, data_root
from worker.data.materialize import materialize
from worker.data.preprocess import preprocess
from worker.data.spec import InputSpec

JPEGS = data_root() / "cifar10" / "jpeg_class_folders_1000.zip"
MOBILE = data_root() / "onnx_models" / "imagenet_efficientnet_lite0.onnx"
pytestmark = [pytest.mark.data, pytest.mark.skipif(not JPEGS.exists(), reason=NO_DATA)]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def test_the_jpeg_folders_come_in_as_ten_classes(tmp_path: Path) -> None:
    result = inspect(tmp_path, JPEGS.read_bytes(), "images")
    assert result["examples"] == {"train": 800, "test": 200}
    assert (result["classes"], result["image"]) == (10, [32, 32, 3])
    assert result["details"]["class_names"] == CLASSES
    images = materialize(tmp_path / "canonical", {"shape": [3, 32, 32]}, None)
    assert images.test_y is not None
    assert np.bincount(images.test_y).tolist() == [20] * 10
    with zipfile.ZipFile(JPEGS) as archive:
        decoded = np.asarray(Image.open(io.BytesIO(archive.read("airplane/0000.jpg"))))
    rows = [*images.train_x, *images.test_x]
    assert any(np.array_equal(decoded, row) for row in rows)


def test_a_224_pixel_network_takes_jpeg_folders_of_mixed_sizes(tmp_path: Path) -> None:
    """The normal case: photographs of any size, resize 256, crop 224, and the network runs on them."""
    files: dict[str, bytes] = {}
    with zipfile.ZipFile(JPEGS) as archive:
        for number, name in enumerate(sorted(archive.namelist())[::25]):
            photo = Image.open(io.BytesIO(archive.read(name)))
            larger = photo.resize((180 + 7 * number, 300 - 3 * number), Image.Resampling.BICUBIC)
            files[name] = encode(np.asarray(larger), "JPEG", quality=90)
    result = inspect(tmp_path, zip_of(files), "images")
    assert result["image"] is None
    assert result["details"]["kind"] == "encoded"
    spec = {
        "shape": [3, 224, 224],
        "scale": 255,
        "mean": [0.498, 0.498, 0.498],
        "std": [0.502, 0.502, 0.502],
        "resize": 256,
        "crop": 224,
        "interpolation": "bicubic",
    }
    images = materialize(tmp_path / "canonical", spec, tmp_path / "cache")
    assert images.train_x.shape == (32, 224, 224, 3)
    session = onnxruntime.InferenceSession(MOBILE, providers=["CPUExecutionProvider"])
    batch = preprocess(images.test_x, InputSpec.parse(spec)).numpy()
    (scores,) = session.run(None, {"image": batch})
    assert scores.shape == (8, 1000)
    assert np.isfinite(scores).all()
