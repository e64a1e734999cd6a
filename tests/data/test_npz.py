"""An .npz comes in whole, or is refused in words that name the array and what was expected."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.errors import MalformedDataset, Problem, ResourceLimit, UnsafeSerialization
from tests.data.making import inspect, npz_of, outcome, picture
from worker.data.canonical import read_canonical

X = np.stack([picture(5, 4, seed=n) for n in range(20)])
Y = np.arange(20) % 2


def test_given_parts_arrive_as_they_are(tmp_path: Path) -> None:
    result = inspect(tmp_path, npz_of(x_train=X[:15], y_train=Y[:15], x_test=X[15:], y_test=Y[15:]), "npz")
    assert result["examples"] == {"train": 15, "test": 5}
    assert (result["classes"], result["image"], result["labelled"]) == (2, [5, 4, 3], True)
    found = read_canonical(tmp_path / "canonical").tensors
    np.testing.assert_array_equal(found["train_x"], X[:15])
    np.testing.assert_array_equal(found["test_y"], Y[15:])


def test_without_a_test_part_a_fifth_is_split_off_and_no_image_is_lost(tmp_path: Path) -> None:
    result = inspect(tmp_path, npz_of(x=X, y=Y), "npz")
    assert result["examples"] == {"train": 16, "test": 4}
    found = read_canonical(tmp_path / "canonical").tensors
    together = {
        row.tobytes(): label
        for part in ("train", "test")
        for row, label in zip(found[f"{part}_x"], found[f"{part}_y"], strict=True)
    }
    assert together == {row.tobytes(): label for row, label in zip(X, Y, strict=True)}


def test_without_y_a_data_set_is_unlabelled(tmp_path: Path) -> None:
    result = inspect(tmp_path, npz_of(x=X), "npz")
    assert (result["labelled"], result["classes"]) == (False, None)
    assert "train_y" not in read_canonical(tmp_path / "canonical").tensors


def test_grey_images_without_a_channel_axis_get_one(tmp_path: Path) -> None:
    assert inspect(tmp_path, npz_of(x=X[..., 0], y=Y), "npz")["image"] == [5, 4, 1]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", ">f4"])
def test_floats_are_used_as_they_are(tmp_path: Path, dtype: str) -> None:
    x = np.random.default_rng(0).standard_normal((10, 3, 5, 4)).astype(dtype)
    result = inspect(tmp_path, npz_of(x_train=x[:8], x_test=x[8:]), "npz")
    assert (result["details"]["kind"], result["image"]) == ("float32", [5, 4, 3])
    found = read_canonical(tmp_path / "canonical").tensors
    np.testing.assert_array_equal(found["train_x"], x[:8].astype(np.float32))


def test_column_major_arrays_keep_their_pixels(tmp_path: Path) -> None:
    inspect(tmp_path, npz_of(x_train=np.asfortranarray(X), x_test=X), "npz")
    np.testing.assert_array_equal(read_canonical(tmp_path / "canonical").tensors["train_x"], X)
    assert {path.name for path in tmp_path.iterdir()} == {"upload", "canonical"}


def test_labels_may_stand_in_a_column(tmp_path: Path) -> None:
    assert inspect(tmp_path, npz_of(x=X, y=Y[:, None].astype("uint8")), "npz")["classes"] == 2


def _nan() -> Any:
    x = np.zeros((10, 1, 4, 4), np.float32)
    x[7, 0, 1, 2] = np.nan
    return x


REFUSED = {
    "other names": ({"images": X, "labels": Y}, "'images'", "expected are x and y"),
    "a test part without labels": ({"x_train": X, "y_train": Y, "x_test": X}, "'x_test'", "expected are"),
    "whole numbers as pixels": ({"x": X.astype("int32")}, "x (int32, 20 × 5 × 4 × 3)", "uint8"),
    "two axes": ({"x": X[:, 0, :, 0]}, "x (uint8, 20 × 4)", "expected are N × H × W × C"),
    "channels first": ({"x": np.zeros((9, 3, 32, 32), np.uint8)}, "9 × 3 × 32 × 32", "N × H × W × C"),
    "floats with channels last": (
        {"x": np.zeros((9, 32, 32, 3), np.float32)},
        "9 × 32 × 32 × 3",
        "N × C × H × W",
    ),
    "other lengths": ({"x": X, "y": Y[:7]}, "y (int64, 7)", "20 × 5 × 4 × 3"),
    "labels as floats": ({"x": X, "y": Y / 2}, "y (float64, 20)", "whole numbers"),
    "one-hot labels": ({"x": X, "y": np.eye(2, dtype=int)[Y]}, "y (int64, 20 × 2)", "one a row"),
    "negative labels": ({"x": X, "y": Y - 1}, "y (int64, 20)", "from -1 to 0"),
    "labels beyond any class": ({"x": X, "y": Y * 10**9}, "y (int64, 20)", "to 1000000000"),
    "NaN": ({"x": _nan()}, "x (float32, 10 × 1 × 4 × 4)", "image 7"),
    "too large for float32": ({"x": np.full((4, 1, 2, 2), 1e300)}, "x (float64, 4 × 1 × 2 × 2)", "image 0"),
    "no images": ({"x": X[:0]}, "x (uint8, 0 × 5 × 4 × 3)", "no images"),
    "one image": ({"x": X[:1]}, "x (uint8, 1 × 5 × 4 × 3)", "two are the least"),
    "parts of other form": (
        {"x_train": X, "x_test": X[:, :4]},
        "x_train (uint8, 20 × 5 × 4 × 3)",
        "4 × 4 × 3",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_named_with_what_was_expected(tmp_path: Path, case: str) -> None:
    arrays, named, expected = REFUSED[case]
    with pytest.raises(MalformedDataset) as caught:
        inspect(tmp_path, npz_of(**arrays), "npz")
    said = caught.value.detail + (caught.value.hint or "")
    assert named in said
    assert expected in said


def test_an_array_of_python_objects_is_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.write_text, (tmp_path / "sprung", "x"))

    with pytest.raises(UnsafeSerialization, match="pickle"):
        inspect(tmp_path, npz_of(x=np.array([Trap(), Trap()], dtype=object)), "npz")
    assert not (tmp_path / "sprung").exists()


def test_a_header_that_promises_more_than_there_is_is_refused_before_any_memory_is_taken(
    tmp_path: Path,
) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000, 1000, 3)}"
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"abc"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("x.npy", npy)
    with pytest.raises(MalformedDataset, match="needs 3,000,000,000,000 bytes and has 3"):
        inspect(tmp_path, buffer.getvalue(), "npz")


def test_limits_are_said_with_their_numbers(tmp_path: Path) -> None:
    with pytest.raises(ResourceLimit, match="20 images; the limit is 19"):
        inspect(tmp_path, npz_of(x=X), "npz", max_images=19)
    with pytest.raises(ResourceLimit, match="4 × 5 = 20 pixels; the limit is 19"):
        inspect(tmp_path, npz_of(x=X), "npz", max_image_pixels=19)
    with pytest.raises(ResourceLimit, match=r"unpacks to [\d,]+ bytes; the limit is 1,000"):
        inspect(tmp_path, npz_of(x=X), "npz", max_unpacked_bytes=1000)


def test_a_bomb_is_refused_by_its_ratio(tmp_path: Path) -> None:
    with pytest.raises(ResourceLimit, match="times as much; the limit is 200 times"):
        inspect(tmp_path, npz_of(x=np.zeros((12000, 100, 100, 1), np.uint8)), "npz")


def test_class_names_make_no_sense_beside_an_npz(tmp_path: Path) -> None:
    with pytest.raises(MalformedDataset, match=r"an \.npz has none"):
        inspect(tmp_path, npz_of(x=X, y=Y), "npz", classes={"cat": 0})


WHOLE = npz_of(x=X, y=Y)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_refused_and_never_crashes(tmp_path: Path, data: st.DataObject) -> None:
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(damaged), data.draw(st.integers(0, len(damaged)))]))
    result = outcome(tmp_path, bytes(damaged[:cut]), "npz")
    if isinstance(result, Problem):
        assert result.code in {"malformed_dataset", "unsafe_serialization", "resource_limit"}
        return
    # A changed byte may mean nothing (a date): then the pixels are still all there, checksums saw to it.
    found = read_canonical(tmp_path / "canonical").tensors
    rows = [row.tobytes() for part in ("train", "test") for row in found[f"{part}_x"]]
    assert sorted(rows) == sorted(row.tobytes() for row in X)
    assert result["examples"] == {"train": 16, "test": 4}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.one_of(st.binary(max_size=120), st.text(max_size=80).map(str.encode)), version=st.integers(0, 4)
)
def test_no_npy_header_breaks_the_reader(tmp_path: Path, header: bytes, version: int) -> None:
    npy = b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(2, "little") + header + b"\0" * 64
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("x.npy", npy)
    with pytest.raises(MalformedDataset):
        inspect(tmp_path, buffer.getvalue(), "npz")
