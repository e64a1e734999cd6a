"""Parquet as Hugging Face's `datasets` writes it: what is read, its parts and classes, what is refused."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.core.errors import MalformedDataset, Problem, ResourceLimit
from app.datasets.sniff import sniff
from tests.data.making import class_folders, encode, inspect, outcome, picture, tar_of, zip_of
from worker.data.canonical import read_canonical

Rows = dict[str, Any]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def images(count: int, first: int = 0) -> pa.Array:
    rows = [
        {"bytes": encode(picture(5, 4, seed=seed)), "path": f"{seed}.png"}
        for seed in range(first, first + count)
    ]
    return pa.array(rows, IMAGE)


def described(names: list[str] | None, image: str = "image", label: str = "label") -> dict[bytes, bytes]:
    """The schema's metadata, as `datasets` writes them."""
    features: dict[str, Any] = {image: {"_type": "Image"}}
    features[label] = (
        {"dtype": "int64", "_type": "Value"} if names is None else {"names": names, "_type": "ClassLabel"}
    )
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def table(columns: Rows | pa.Table, metadata: dict[bytes, bytes] | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), buffer, **options)
    return buffer.getvalue()


def usual(count: int = 10, first: int = 0, names: list[str] | None = None) -> bytes:
    columns = {"image": images(count, first), "label": pa.array([i % 2 for i in range(count)], pa.int64())}
    return table(columns, described(names or ["cat", "dog"]), row_group_size=4)


def stored(folder: Path) -> dict[str, dict[bytes, int]]:
    """Each part's images with their labels."""
    found = read_canonical(folder / "canonical").tensors
    return {
        part: {
            row.tobytes(): int(label)
            for row, label in zip(found[f"{part}_x"], found[f"{part}_y"], strict=True)
        }
        for part in ("train", "test")
    }


def test_one_file_comes_in_with_every_image_label_and_class_name(tmp_path: Path) -> None:
    result = inspect(tmp_path, usual(), "parquet")
    assert result["examples"] == {"train": 8, "test": 2}
    assert (result["classes"], result["image"], result["labelled"]) == (2, [5, 4, 3], True)
    assert result["details"]["class_names"] == ["cat", "dog"]
    assert result["details"]["columns"] == {"image": "image", "label": "label", "ignored": []}
    parts = stored(tmp_path)
    assert parts["train"] | parts["test"] == {picture(5, 4, seed=i).tobytes(): i % 2 for i in range(10)}
    assert {path.name for path in tmp_path.iterdir()} == {"upload", "canonical"}


@pytest.mark.parametrize("pack", [zip_of, tar_of, lambda files: tar_of(files, "w:gz")])
@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("data/train-0000{}-of-00002.parquet", "data/test-00000-of-00001.parquet"),
        ("set/train/000{}.parquet", "set/validation/0000.parquet"),
    ],
)
def test_several_files_of_an_archive_are_one_data_set_with_the_parts_of_their_names(
    tmp_path: Path, pack: Any, train: str, test: str
) -> None:
    files = {"README.md": b"# cats", train.format(0): usual(6), train.format(1): usual(4, 6)}
    result = inspect(tmp_path, pack({**files, test: usual(4, 10)}), "images")
    assert (result["examples"], result["details"]["split"]) == ({"train": 10, "test": 4}, "given")
    assert result["details"]["ignored_examples"] == ["README.md"]
    parts = stored(tmp_path)
    assert parts["train"] == {picture(5, 4, seed=i).tobytes(): i % 2 for i in range(10)}
    assert parts["test"] == {picture(5, 4, seed=i).tobytes(): i % 2 for i in range(10, 14)}
    assert {path.name for path in tmp_path.iterdir()} == {"upload", "canonical"}


def test_a_column_may_tell_the_parts(tmp_path: Path) -> None:
    parts = pa.array(["train"] * 7 + ["Test"] * 3).dictionary_encode()
    upload = table({"image": images(10), "label": [0, 1] * 5, "split": parts})
    assert inspect(tmp_path, upload, "parquet")["examples"] == {"train": 7, "test": 3}
    assert picture(5, 4, seed=9).tobytes() in stored(tmp_path)["test"]


@pytest.mark.parametrize(
    ("image", "label"), [("img", "label"), ("image", "fine_label"), ("photo", "kind"), ("image", "labels")]
)
def test_columns_are_found_by_their_names_or_by_what_the_metadata_say(
    tmp_path: Path, image: str, label: str
) -> None:
    columns = {"coarse": [0] * 6, image: images(6), label: [2, 1] * 3}
    result = inspect(tmp_path, table(columns, described(["a", "b", "c"], image, label)), "parquet")
    assert result["details"]["columns"] == {"image": image, "label": label, "ignored": ["coarse"]}
    assert result["details"]["class_names"] == ["a", "b", "c"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_images_may_be_plain_bytes(tmp_path: Path, kind: pa.DataType) -> None:
    data = pa.array([encode(picture(3, 3, seed=i)) for i in range(5)], kind)
    result = inspect(tmp_path, table({"image": data}), "parquet")
    assert (result["examples"], result["labelled"]) == ({"train": 4, "test": 1}, False)


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
def test_every_usual_compression_is_read(tmp_path: Path, codec: str) -> None:
    upload = table({"image": images(4), "label": [0, 1, 0, 1]}, compression=codec, write_page_checksum=True)
    assert inspect(tmp_path, upload, "parquet")["examples"] == {"train": 3, "test": 1}


def test_labels_may_be_names_and_the_uploader_may_give_indices(tmp_path: Path) -> None:
    upload = table({"image": images(6), "label": ["dog", "cat"] * 3})
    assert inspect(tmp_path, upload, "parquet")["details"]["class_names"] == ["cat", "dog"]
    parts = stored(tmp_path)
    assert (parts["train"] | parts["test"])[picture(5, 4, seed=0).tobytes()] == 1
    result = inspect(tmp_path, upload, "parquet", classes={"dog": 0, "cat": 3})
    assert result["details"]["class_names"] == ["dog", None, None, "cat"]
    assert set((stored(tmp_path)["train"]).values()) == {0, 3}


def test_indices_may_be_given_for_the_schemas_class_names_and_for_bare_numbers(tmp_path: Path) -> None:
    inspect(tmp_path, usual(), "parquet", classes={"cat": 281, "dog": 207})
    parts = stored(tmp_path)
    assert (parts["train"] | parts["test"])[picture(5, 4, seed=1).tobytes()] == 207
    bare = table({"image": images(4), "label": [5, 7, 5, 7]})
    assert inspect(tmp_path, bare, "parquet", classes={"5": 1, "7": 0})["classes"] == 2
    assert inspect(tmp_path, bare, "parquet")["classes"] == 8


def test_labels_that_are_kept_secret_make_an_unlabelled_data_set(tmp_path: Path) -> None:
    upload = table({"image": images(5), "label": [-1] * 5}, described(["cat", "dog"]))
    result = inspect(tmp_path, upload, "parquet")
    assert (result["labelled"], result["classes"]) == (False, None)


def test_images_of_several_sizes_are_kept_as_they_are(tmp_path: Path) -> None:
    data = [encode(picture(4 + i, 6, seed=i)) for i in range(5)]
    result = inspect(tmp_path, table({"image": pa.array(data, pa.binary())}), "parquet")
    assert (result["image"], result["details"]["kind"]) == (None, "encoded")


def test_an_archive_of_images_with_a_table_beside_them_stays_one_of_images(tmp_path: Path) -> None:
    result = inspect(tmp_path, zip_of({**class_folders(), "boxes.parquet": b"PAR1"}), "images")
    assert result["details"]["class_names"] == ["cat", "dog"]
    assert result["details"]["ignored_examples"] == ["boxes.parquet"]


def test_the_first_bytes_tell_a_table() -> None:
    assert sniff(usual(), "x") == "parquet"
    assert sniff(zip_of({"data/train-00000-of-00001.parquet": usual()}), "x") == "parquet"


FLAT = pa.array([[0] * 12] * 4, pa.list_(pa.uint8()))
SECRET = pa.array([-1, 0, 1, 0])
NESTED = pa.array([[[0]]] * 4)
REFUSED: dict[str, tuple[Rows, dict[bytes, bytes] | None, str]] = {
    "no images": ({"text": ["a"] * 4}, None, r"no column of images; its columns are 'text'"),
    "pixels as lists": ({"image": FLAT}, None, r"'image' of The file is list<.*no encoded images"),
    "nested lists": ({"image": NESTED}, None, r"list<.*list<.*no encoded images"),
    "paths": ({"image": ["a.png"] * 4}, None, "is string: paths or addresses"),
    "only a path": (
        {"image": pa.array([{"bytes": None, "path": "a"}] * 4, IMAGE)},
        None,
        "row 0 has no image",
    ),
    "a hole": ({"image": pa.concat_arrays([images(3), pa.nulls(1, IMAGE)])}, None, "row 3 has no image"),
    "no label": ({"image": images(4), "label": [0, 1, None, 0]}, None, "row 2 has no label"),
    "many labels": ({"image": images(4), "label": [[0, 1]] * 4}, None, r"'label' of The file is list<"),
    "floats": ({"image": images(4), "label": [0.5] * 4}, None, "is double; labels are whole numbers"),
    "secret": ({"image": images(4), "label": SECRET}, None, "from -1 to 1; class indices go from 0"),
    "a label too large": (
        {"image": images(4), "label": [0, 1, 2, 0]},
        described(["cat", "dog"]),
        "from 0 to 2; class indices go from 0 to 1, which the schema's 2 class names allow",
    ),
    "an unsigned giant": (
        {"image": images(4), "label": pa.array([2**64 - 1] * 4, pa.uint64())},
        None,
        "cannot be read",
    ),
    "one row": ({"image": images(1)}, None, "has 1 rows. Two are the least"),
    "no rows": ({"image": images(0)}, None, "has 0 rows"),
    "an odd split": ({"image": images(4), "split": ["train"] * 3 + ["dev"]}, None, "row 3 is of the split"),
    "no image": (
        {"image": pa.array([b"text"] * 4)},
        None,
        r"The file, row 0 \(4 bytes\) cannot be read: it is no image",
    ),
    "two names": ({"image": images(4), "label": [0] * 4}, described(["a", "a"]), "two classes the same"),
    "odd names": ({"image": images(4), "label": [0] * 4}, described(["\x1b[2J"]), "no list of 1 to"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taken_is_named_with_its_column_or_row(tmp_path: Path, case: str) -> None:
    columns, metadata, said = REFUSED[case]
    with pytest.raises(MalformedDataset, match=said):
        inspect(tmp_path, table(columns, metadata), "parquet")
    assert {path.name for path in tmp_path.iterdir()} <= {"upload", "canonical"}


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (usual(4, names=["dog", "cat"]), "another list of class names"),
        (table({"image": images(4)}), "another column of labels"),
    ],
)
def test_files_that_do_not_go_together_are_refused(tmp_path: Path, second: bytes, said: str) -> None:
    files = {"train-0.parquet": usual(4), "test-0.parquet": second}
    with pytest.raises(MalformedDataset, match=f"train-0.parquet has {said}"):
        inspect(tmp_path, zip_of(files), "parquet")
    with pytest.raises(MalformedDataset, match=r"0.parquet does not"):
        inspect(tmp_path, zip_of({"train-0.parquet": usual(4), "0.parquet": usual(4)}), "parquet")


# Files that lie or unfold.


def patched(data: bytes, begin: int, new: bytes) -> bytes:
    position = begin % len(data)
    return data[:position] + new + data[position + len(new) :]


def test_every_cut_and_many_flipped_bits_end_in_a_problem(tmp_path: Path) -> None:
    whole = usual()
    random = np.random.default_rng(0)
    damaged = [whole[:cut] for cut in range(4, len(whole), 211)]
    for _ in range(150):
        position = int(random.integers(len(whole)))
        damaged.append(patched(whole, position, bytes([whole[position] ^ 1 << int(random.integers(8))])))
    for data in damaged:
        met = outcome(tmp_path, data, "parquet")
        assert not isinstance(met, Problem) or met.code in ("malformed_dataset", "resource_limit"), met


def test_a_footer_that_claims_more_than_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedDataset, match="has no Parquet footer"):
        inspect(tmp_path, patched(usual(), -8, b"\xff\xff\xff\x7f"), "parquet")


def test_rows_that_unfold_into_far_more_than_their_file_are_refused(tmp_path: Path) -> None:
    one = encode(picture(400, 400))  # once in a dictionary, and 500 rows that name it
    upload = table({"image": pa.array([one] * 500, pa.binary())}, use_dictionary=True, compression="zstd")
    assert len(upload) < 600_000
    with pytest.raises(ResourceLimit, match="unpack to more than"):
        inspect(tmp_path, upload, "parquet")


def test_an_image_of_nothing_but_zeros_is_refused_by_its_length(tmp_path: Path) -> None:
    upload = table({"image": pa.array([bytes(50_000_000)] * 2)}, use_dictionary=False, compression="zstd")
    assert len(upload) < 100_000
    with pytest.raises(ResourceLimit, match="row 0 has 50,000,000 bytes; the limit for one image"):
        inspect(tmp_path, upload, "parquet", max_image_pixels=1_000_000)


def test_more_rows_than_allowed_are_refused_before_any_is_read(tmp_path: Path) -> None:
    with pytest.raises(ResourceLimit, match="has 10 images; the limit is 9"):
        inspect(tmp_path, usual(), "parquet", max_images=9)
