"""Uploads of the kinds that came later, through a real inspection: its sandbox, its limits, its columns."""

import io
from typing import Any

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
from tests.data.making import zip_of
from tests.data.tables_that_unfold import bomb_of_a_dictionary, bomb_of_a_page, old_python_type
from tests.data.test_parquet import usual
from tests.support import folders, networks
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


def test_weights_of_a_training_script_are_read_in_the_sandbox(sessions: Sessions, runtime: Runtime) -> None:
    torch.manual_seed(0)
    network = networks.CifarResNet(20, 10, "A").eval()
    buffer = io.BytesIO()
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, buffer)
    new = {"format": "weights", "status": "inspecting", "canonical_sha256": None, "layers": None}
    new |= {"architecture": "cifar_resnet20"}
    model_id = add_model(sessions, runtime.store.put_bytes(buffer.getvalue()).sha256, **new)
    inspect_model(runtime, model_id)
    with sessions() as session:
        model = session.get_one(Model, model_id)
    assert (model.status, model.error) == ("ready", None)
    assert model.canonical_sha256 is not None
    images = torch.randn(2, 3, 32, 32)
    ours = pt2_reader.load(io.BytesIO(bytes_of(runtime, model.canonical_sha256))).module
    with torch.no_grad():
        torch.testing.assert_close(ours(images), network(images), rtol=1e-4, atol=1e-5)


def bytes_of(runtime: Runtime, sha256: str) -> bytes:
    path = runtime.scratch_root.parent / "downloaded"
    runtime.store.download_to(sha256, path)
    return path.read_bytes()
