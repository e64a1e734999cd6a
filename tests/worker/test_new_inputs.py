"""Uploads of the kinds that came later, through a real inspection: its sandbox, its limits, its columns."""

import io
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from app.artifacts.tables import Artifact
from app.datasets.tables import Dataset
from app.jobs.tables import Job
from app.models.tables import Model
from basisconv.formats import pt2_reader
from tests.data.making import encode, picture, zip_of
from tests.data.test_parquet import table, usual
from tests.support import folders
from tests.worker.rows import add_dataset, add_job, add_model
from worker.inspections import inspect_dataset, inspect_model
from worker.jobs import run_job
from worker.runtime import Runtime

Sessions = sessionmaker[Session]
RANKED = "resnet.encoder.stages.1.layers.1.layer.0.convolution"


def inspected(sessions: Sessions, runtime: Runtime, upload: bytes, **columns: Any) -> Dataset:
    new = {"format": "parquet", "status": "inspecting", "canonical_sha256": None, "labelled": None}
    dataset_id = add_dataset(sessions, runtime.store.put_bytes(upload).sha256, **new | columns)
    inspect_dataset(runtime, dataset_id)
    with sessions() as session:
        return session.get_one(Dataset, dataset_id)


def test_parquet_files_in_a_zip_become_a_ready_data_set(sessions: Sessions, runtime: Runtime) -> None:
    upload = zip_of({"data/train-0.parquet": usual(8), "data/test-0.parquet": usual(4, 8)})
    dataset = inspected(sessions, runtime, upload)
    assert (dataset.status, dataset.error) == ("ready", None)
    assert (dataset.examples, dataset.classes, dataset.image) == ({"train": 8, "test": 4}, 2, [5, 4, 3])
    assert dataset.details is not None
    assert dataset.details["class_names"] == ["cat", "dog"]


def bomb_of_a_page() -> bytes:
    """400 MB of zeros in one page of some kilobytes, a value each of 200 MB."""
    return table(
        {"image": pa.array([bytes(200_000_000)] * 2)},
        use_dictionary=False,
        compression="zstd",
        write_statistics=False,
    )


def bomb_of_a_dictionary() -> bytes:
    """One picture of 12 MB that a hundred thousand rows name: a terabyte."""
    picked = pa.DictionaryArray.from_arrays(
        pa.array([0] * 100_000, pa.int32()), pa.array([encode(picture(2000, 2000))])
    )
    return table({"image": picked}, store_schema=False, dictionary_pagesize_limit=1 << 30)


def old_python_type() -> bytes:
    """A column of a type that pyarrow before 14.0.1 unpickled (CVE-2023-47248)."""
    payload = b"cposix\nsystem\n(S'touch /tmp/pwned'\ntR."
    field = pa.field(
        "image",
        pa.binary(),
        metadata={
            b"ARROW:extension:name": b"arrow.py_extension_type",
            b"ARROW:extension:metadata": payload,
        },
    )
    images = pa.array([encode(picture(3, 3, seed=seed)) for seed in range(4)])
    return table(pa.table([images], schema=pa.schema([field])))


@pytest.mark.parametrize("make", [bomb_of_a_page, bomb_of_a_dictionary])
def test_what_unfolds_in_memory_is_rejected_for_that(sessions: Sessions, runtime: Runtime, make: Any) -> None:
    dataset = inspected(sessions, runtime, make())
    assert dataset.status == "rejected"
    assert dataset.error is not None
    assert dataset.error["code"] == "resource_limit", dataset.error


def test_a_type_that_older_readers_unpickle_is_plain_bytes_to_us(
    sessions: Sessions, runtime: Runtime
) -> None:
    assert inspected(sessions, runtime, old_python_type()).status == "ready"


def test_a_hugging_face_folder_is_compressed_end_to_end(sessions: Sessions, runtime: Runtime) -> None:
    packed = zip_of(folders.files("resnet"))
    new = {"format": "huggingface", "status": "inspecting", "canonical_sha256": None, "layers": None}
    model_id = add_model(sessions, runtime.store.put_bytes(packed).sha256, **new)
    inspect_model(runtime, model_id)
    with sessions() as session:
        model = session.get_one(Model, model_id)
    assert (model.status, model.error) == ("ready", None)
    assert model.canonical_sha256 is not None
    theirs = folders.network("resnet")
    images = torch.randn(4, 3, folders.SIDE, folders.SIDE, generator=torch.Generator().manual_seed(0))
    ours = pt2_reader.load(io.BytesIO(bytes_of(runtime, model.canonical_sha256))).module
    with torch.no_grad():
        answers = theirs(pixel_values=images).logits
        torch.testing.assert_close(ours(images), answers, rtol=1e-4, atol=1e-5)

    options = {
        "compression": {"target": {"ranks": {RANKED: 8}}, "basis": "weights"},
        "exports": ["pt2", "onnx", "safetensors"],
    }
    job_id = add_job(sessions, model_id, options=options)
    run_job(runtime, job_id)
    with sessions() as session:
        job = session.get_one(Job, job_id)
        made = {row.format: row.sha256 for row in session.scalars(select(Artifact))}
    assert (job.status, job.error) == ("succeeded", None)
    assert set(made) == {"pt2", "onnx", "safetensors", "recipe"}
    kept = load(bytes_of(runtime, made["safetensors"]))
    known = theirs.state_dict()
    for name in [name for name in known if RANKED not in name and not name.endswith("num_batches_tracked")]:
        torch.testing.assert_close(kept[name], known[name])
    assert {name for name in kept if name not in known} == {
        f"{RANKED}.basis.weight",
        f"{RANKED}.mixing.weight",
    }
    with torch.no_grad():
        small = pt2_reader.load(io.BytesIO(bytes_of(runtime, made["pt2"]))).module(images)
    assert torch.nn.functional.cosine_similarity(small, answers).min() > 0.9


def bytes_of(runtime: Runtime, sha256: str) -> bytes:
    path = runtime.scratch_root.parent / "downloaded"
    runtime.store.download_to(sha256, path)
    return path.read_bytes()
