"""A data set at a network's size: as Pillow and torchvision's transforms would make it, once, and cached."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.core.errors import DatasetMismatch
from tests.data.making import encode, inspect, npz_of, picture, zip_of
from worker.data import materialize as module
from worker.data.materialize import Images, check_classes, materialize

SIZES = [(40, 60), (61, 40), (50, 50), (30, 90), (224, 224)]


def mixed(folder: Path, channels: int = 3) -> list[np.ndarray]:
    """Ten images of mixed sizes, ingested; gives them in the order of the train part, then the test part."""
    pixels = {f"{n % 2}/{n:02}.png": picture(*SIZES[n // 2], channels, seed=n) for n in range(10)}
    inspect(folder, zip_of({name: encode(image) for name, image in pixels.items()}), "images")
    return list(pixels.values())


def both(images: Images) -> list[bytes]:
    return sorted(row.tobytes() for x in (images.train_x, images.test_x) for row in x)


def by_pillow(image: np.ndarray, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    flat = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return np.asarray(flat.resize(size, resample)).reshape(size[1], size[0], -1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_images_of_another_size_are_resized_as_pillow_does(tmp_path: Path, interpolation: str) -> None:
    pixels = mixed(tmp_path)
    spec = {"shape": [3, 48, 32], "interpolation": interpolation}
    images = materialize(tmp_path / "canonical", spec, tmp_path / "cache")
    resample = Image.Resampling[interpolation.upper()]
    assert both(images) == sorted(by_pillow(image, (32, 48), resample).tobytes() for image in pixels)
    assert images.train_x.dtype == np.uint8
    assert images.train_x.shape == (8, 48, 32, 3)


def test_shorter_side_then_centre_crop_as_torchvision_does(tmp_path: Path) -> None:
    pixels = mixed(tmp_path)
    images = materialize(tmp_path / "canonical", {"shape": [3, 224, 224], "resize": 256, "crop": 224}, None)
    expected = []
    for image in pixels:
        height, width = image.shape[:2]
        if height <= width:
            height, width = 256, int(256 * width / height)
        else:
            height, width = int(256 * height / width), 256
        larger = by_pillow(image, (width, height), Image.Resampling.BILINEAR)
        top, left = round((height - 224) / 2), round((width - 224) / 2)
        expected.append(larger[top : top + 224, left : left + 224].tobytes())
    assert both(images) == sorted(expected)


def test_a_crop_larger_than_the_image_gets_a_black_border(tmp_path: Path) -> None:
    inspect(tmp_path, npz_of(x=np.full((2, 4, 4, 1), 200, np.uint8)), "npz")
    images = materialize(tmp_path / "canonical", {"shape": [1, 8, 8], "crop": 8}, None)
    expected = np.zeros((8, 8, 1), np.uint8)
    expected[2:6, 2:6] = 200
    np.testing.assert_array_equal(images.train_x[0], expected)


def test_images_that_fit_are_used_without_a_copy_on_disk(tmp_path: Path) -> None:
    x = np.stack([picture(8, 8, seed=n) for n in range(10)])
    inspect(tmp_path, npz_of(x_train=x[:8], x_test=x[8:]), "npz")
    images = materialize(tmp_path / "canonical", {"shape": [3, 8, 8]}, tmp_path / "cache")
    np.testing.assert_array_equal(images.train_x, x[:8])
    assert not (tmp_path / "cache").exists()


def test_labels_and_class_names_come_along(tmp_path: Path) -> None:
    mixed(tmp_path)
    images = materialize(tmp_path / "canonical", {"shape": [3, 8, 8]}, None)
    assert images.train_y is not None
    assert images.test_y is not None
    assert sorted([*images.train_y.tolist(), *images.test_y.tolist()]) == [0] * 5 + [1] * 5
    assert (images.classes, images.class_names) == (2, ["0", "1"])


def test_a_cache_is_read_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    mixed(tmp_path)
    spec = {"shape": [3, 16, 16]}
    first = materialize(tmp_path / "canonical", spec, tmp_path / "cache")
    made = (tmp_path / "cache").stat().st_mtime_ns
    again = materialize(tmp_path / "canonical", spec, tmp_path / "cache")
    assert (tmp_path / "cache").stat().st_mtime_ns == made
    assert both(first) == both(again)
    materialize(tmp_path / "canonical", spec, None)
    assert {path.name for path in tmp_path.iterdir()} == {"upload", "canonical", "cache"}


@pytest.mark.parametrize("damage", ["cut", "foreign", "other size"])
def test_a_cache_that_does_not_fit_is_made_again(tmp_path: Path, damage: str) -> None:
    mixed(tmp_path)
    spec: dict[str, Any] = {"shape": [3, 16, 16]}
    cache = tmp_path / "cache"
    good = both(materialize(tmp_path / "canonical", spec, cache))
    if damage == "cut":
        cache.write_bytes(cache.read_bytes()[:-1])
    elif damage == "foreign":
        cache.write_bytes(b"\x05" + bytes(7) + b"{]}  ")
    else:
        materialize(tmp_path / "canonical", {"shape": [3, 16, 17]}, cache)
    assert both(materialize(tmp_path / "canonical", spec, cache)) == good


def test_large_data_stays_on_disk_behind_a_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed(tmp_path)
    spec = {"shape": [3, 16, 16]}
    small = materialize(tmp_path / "canonical", spec, None)
    assert not isinstance(small.train_x, np.memmap)
    monkeypatch.setattr(module, "MAP_BYTES", 1000)
    large = materialize(tmp_path / "canonical", spec, None)
    assert isinstance(large.train_x, np.memmap)
    assert both(large) == both(small)


def test_grey_images_are_repeated_for_a_colour_network_with_a_note(tmp_path: Path) -> None:
    x = np.stack([picture(8, 8, 1, seed=n) for n in range(4)])
    inspect(tmp_path, npz_of(x_train=x, x_test=x), "npz")
    images = materialize(tmp_path / "canonical", {"shape": [3, 8, 8]}, None)
    np.testing.assert_array_equal(images.train_x, np.repeat(x, 3, axis=-1))
    assert images.warnings[0]["code"] == "channels_converted"


def test_colour_images_become_luminance_for_a_grey_network_with_a_note(tmp_path: Path) -> None:
    x = np.stack([picture(8, 8, seed=n) for n in range(4)])
    inspect(tmp_path, npz_of(x_train=x, x_test=x), "npz")
    images = materialize(tmp_path / "canonical", {"shape": [1, 8, 8]}, None)
    luminance = x @ np.array([0.299, 0.587, 0.114])
    assert np.abs(images.train_x[..., 0] - luminance).max() <= 1
    assert "luminance" in images.warnings[0]["detail"]


def test_other_channel_counts_are_refused_with_the_numbers(tmp_path: Path) -> None:
    inspect(tmp_path, npz_of(x=np.zeros((4, 8, 8, 4), np.uint8)), "npz")
    with pytest.raises(DatasetMismatch, match="have 4 channels; the network takes 3 × 8 × 8"):
        materialize(tmp_path / "canonical", {"shape": [3, 8, 8]}, None)


def test_four_channels_are_resized_channel_by_channel(tmp_path: Path) -> None:
    x = np.stack([picture(9, 9, 4, seed=n) for n in range(4)])
    inspect(tmp_path, npz_of(x_train=x, x_test=x), "npz")
    images = materialize(tmp_path / "canonical", {"shape": [4, 5, 6]}, None)
    for channel in range(4):
        expected = by_pillow(x[0, ..., channel : channel + 1], (6, 5), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(images.train_x[0, ..., channel : channel + 1], expected)


def test_floats_must_have_the_networks_shape(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 6)).astype(np.float32)
    inspect(tmp_path, npz_of(x_train=x, x_test=x), "npz")
    images = materialize(tmp_path / "canonical", {"shape": [3, 8, 6], "resize": 99}, None)
    assert images.float_input
    np.testing.assert_array_equal(images.train_x, x)
    with pytest.raises(DatasetMismatch, match="float images of 3 × 8 × 6; the network takes 3 × 6 × 8"):
        materialize(tmp_path / "canonical", {"shape": [3, 6, 8]}, None)


def test_more_classes_than_outputs_are_refused() -> None:
    with pytest.raises(DatasetMismatch, match="11 classes; the network has 10 outputs"):
        check_classes(11, [10])
    check_classes(10, [10])
    check_classes(2, [10])
    check_classes(None, [10])
    check_classes(11, [1, 32, 32])
