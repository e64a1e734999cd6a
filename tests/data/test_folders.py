"""Archives of class folders: what the folders mean, which images are read, and how they come out."""

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from app.core.errors import MalformedDataset
from tests.data.making import class_folders, encode, inspect, picture, tar_of, zip_of
from worker.data.canonical import read_canonical
from worker.data.packed import unpack


def stored(folder: Path, part: str) -> list[np.ndarray]:
    """The images of a part as the canonical file holds them."""
    found = read_canonical(folder / "canonical").tensors
    if f"{part}_x" in found:
        return list(found[f"{part}_x"])
    blob, ends = found[f"{part}_blob"], found[f"{part}_offsets"]
    return [unpack(blob[a:b].tobytes()) for a, b in pairwise(ends)]


@pytest.mark.parametrize("form", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_class_folders_come_in_from_zip_tar_and_compressed_tar(tmp_path: Path, form: str) -> None:
    files = class_folders()
    packed = zip_of(files) if form == "zip" else tar_of(files, form)
    result = inspect(tmp_path, packed, "images")
    assert result["examples"] == {"train": 8, "test": 2}
    assert (result["classes"], result["image"], result["labelled"]) == (2, [6, 6, 3], True)
    assert result["details"]["class_names"] == ["cat", "dog"]
    assert {path.name for path in tmp_path.iterdir()} == {"upload", "canonical"}


def test_every_image_keeps_its_label_and_its_pixels(tmp_path: Path) -> None:
    inspect(tmp_path, zip_of(class_folders()), "images")
    found = read_canonical(tmp_path / "canonical").tensors
    seen = {
        row.tobytes(): int(label)
        for part in ("train", "test")
        for row, label in zip(found[f"{part}_x"], found[f"{part}_y"], strict=True)
    }
    expected = {picture(6, 6, seed=n + 100 * dog).tobytes(): dog for dog in (0, 1) for n in range(5)}
    assert seen == expected


@pytest.mark.parametrize("held_out", ["val", "test", "Validation"])
def test_parts_may_be_given_as_folders(tmp_path: Path, held_out: str) -> None:
    files = {f"train/{name}": data for name, data in class_folders(4).items()}
    files |= {f"{held_out}/{name}": data for name, data in class_folders(2).items()}
    result = inspect(tmp_path, zip_of(files), "images")
    assert result["examples"] == {"train": 8, "test": 4}
    assert result["details"]["split"] == "given"


def test_a_common_top_folder_hidden_files_and_other_files_do_not_matter(tmp_path: Path) -> None:
    files = {f"pets/{name}": data for name, data in class_folders().items()}
    junk = {"__MACOSX/pets/cat/._0.png": b"x", "pets/.DS_Store": b"x", "pets/cat/.hidden.png": b"x"}
    result = inspect(tmp_path, zip_of({**files, **junk, "pets/README.txt": b"words"}), "images")
    assert result["details"]["class_names"] == ["cat", "dog"]
    assert result["details"]["ignored_examples"] == ["pets/README.txt"]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    files = {name.replace("cat", "train"): data for name, data in class_folders().items()}
    assert inspect(tmp_path, zip_of(files), "images")["details"]["class_names"] == ["dog", "train"]


def test_images_without_class_folders_are_unlabelled(tmp_path: Path) -> None:
    files = {f"photos/{n}.png": encode(picture(4, 4, seed=n)) for n in range(5)}
    result = inspect(tmp_path, zip_of(files), "images")
    assert (result["labelled"], result["classes"], result["examples"]) == (
        False,
        None,
        {"train": 4, "test": 1},
    )


def test_the_users_own_class_order_counts(tmp_path: Path) -> None:
    result = inspect(tmp_path, zip_of(class_folders()), "images", classes={"dog": 0, "cat": 3})
    assert result["details"]["class_names"] == ["dog", None, None, "cat"]
    assert (result["classes"], result["details"]["classes_present"]) == (4, 2)
    labels = read_canonical(tmp_path / "canonical").tensors["train_y"]
    assert sorted(set(labels.tolist())) == [0, 3]


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ({"cat": 0}, "no index to 'dog'"),
        ({"cat": 0, "dog": 1, "cow": 2}, "'cow', and the data set has no such class folder"),
        ({"cat": 1, "dog": 1}, "index 1 to both 'cat' and 'dog'"),
        ({"cat": -1, "dog": 1}, "index -1"),
        ({"cat": True, "dog": 2}, "index True"),
        ({"cat": "0", "dog": 2}, "index '0'"),
    ],
)
def test_a_wrong_class_order_is_refused_with_the_name(tmp_path: Path, classes: Any, said: str) -> None:
    with pytest.raises(MalformedDataset, match=said):
        inspect(tmp_path, zip_of(class_folders()), "images", classes=classes)


def test_an_image_beside_class_folders_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedDataset, match=r"stray\.png lies in no class folder, cat/0\.png in one"):
        inspect(tmp_path, zip_of({**class_folders(), "stray.png": encode(picture(3, 3))}), "images")


@pytest.mark.parametrize(
    "broken", [b"", b"no image", encode(picture(64, 64))[:900], encode(picture(64, 64), "JPEG")[:900]]
)
def test_a_broken_image_is_named(tmp_path: Path, broken: bytes) -> None:
    with pytest.raises(MalformedDataset, match=r"The image dog/broken\.png .* cannot be read"):
        inspect(tmp_path, zip_of({**class_folders(), "dog/broken.png": broken}), "images")


def test_an_archive_without_images_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(
        MalformedDataset, match=r"0 image files; it also holds 1 other files, such as a/b\.txt"
    ):
        inspect(tmp_path, zip_of({"a/b.txt": b"x"}), "images")


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG", "PPM"])
def test_ordinary_formats_are_read(tmp_path: Path, form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    files = {f"a/{n}.{form.lower()}": encode(picture(8, 8, seed=n), form, **options) for n in range(5)}
    assert inspect(tmp_path, zip_of(files), "images")["image"] == [8, 8, 3]
    if form not in ("JPEG", "GIF"):  # those lose something by nature
        rows = {row.tobytes() for part in ("train", "test") for row in stored(tmp_path, part)}
        assert rows == {picture(8, 8, seed=n).tobytes() for n in range(5)}


def test_only_the_first_frame_of_a_moving_picture_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    inspect(tmp_path, zip_of({"a/0.gif": buffer.getvalue(), "a/1.gif": buffer.getvalue()}), "images")
    assert stored(tmp_path, "train")[0][0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_stood_upright(tmp_path: Path, orientation: int) -> None:
    upright = picture(4, 6)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),  # shown by turning it clockwise
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(np.ascontiguousarray(turned), "PNG", exif=exif)
    assert inspect(tmp_path, zip_of({"a/0.png": data, "a/1.png": data}), "images")["image"] == [4, 6, 3]
    np.testing.assert_array_equal(stored(tmp_path, "train")[0], upright)


def _saved(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_grey_images_stay_grey_when_all_are(tmp_path: Path, mode: str) -> None:
    grey = Image.new(mode, (4, 4)) if mode != "I;16" else Image.fromarray(np.full((4, 4), 40_000, np.uint16))
    files = {f"a/{n}.png": _saved(grey) for n in range(3)}
    assert inspect(tmp_path, zip_of(files), "images")["image"] == [4, 4, 1]
    if mode == "I;16":
        assert stored(tmp_path, "train")[0][0, 0, 0] == 40_000 >> 8


@pytest.mark.parametrize("mode", ["P", "RGBA", "RGB"])
def test_one_image_in_colour_makes_all_rgb(tmp_path: Path, mode: str) -> None:
    colour = Image.new("RGB", (4, 4), (10, 200, 30))
    colour = colour.quantize() if mode == "P" else colour.convert(mode)
    files = {
        "a/0.png": _saved(colour),
        "a/1.png": _saved(Image.new("L", (4, 4), 9)),
        "b/0.png": _saved(colour),
    }
    assert inspect(tmp_path, zip_of(files), "images")["image"] == [4, 4, 3]
    pixels = {tuple(row[0, 0]) for part in ("train", "test") for row in stored(tmp_path, part)}
    assert pixels == {(10, 200, 30), (9, 9, 9)}


SIZES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=2, max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=SIZES, grey=st.booleans())
def test_any_mixture_of_sizes_comes_back_without_loss(tmp_path: Path, sizes: Any, grey: bool) -> None:
    pixels = [picture(*size, 1 if grey else 3, seed=n) for n, size in enumerate(sizes)]
    files = {f"{n % 2}/{n:02}.png": encode(image) for n, image in enumerate(pixels)}
    result = inspect(tmp_path, zip_of({**files}), "images")
    found = [(row.shape, row.tobytes()) for part in ("train", "test") for row in stored(tmp_path, part)]
    assert sorted(found) == sorted((image.shape, image.tobytes()) for image in pixels)
    assert (result["image"] is None) == (len(set(sizes)) > 1)


def test_the_same_images_give_the_same_canonical_file_in_any_order_and_packing(tmp_path: Path) -> None:
    files = {**class_folders(), "cat/wide.png": encode(picture(3, 9))}
    inspect(tmp_path, zip_of(files), "images")
    first = (tmp_path / "canonical").read_bytes()
    inspect(tmp_path, tar_of(dict(reversed(files.items())), "w:gz"), "images")
    assert (tmp_path / "canonical").read_bytes() == first


def test_progress_is_told_from_nothing_to_all(tmp_path: Path) -> None:
    from worker.data.ingest import inspect_dataset

    (tmp_path / "upload").write_bytes(zip_of(class_folders()))
    told: list[float] = []
    task = {"file": "upload", "format": "images", "canonical": "canonical"}
    inspect_dataset(task, tmp_path, lambda message: told.append(message["fraction"]))
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) > 5
