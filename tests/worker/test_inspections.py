"""What becomes of an upload, whatever the child that looks at it does."""

from collections.abc import Callable
from dataclasses import replace
from threading import Timer

import numpy as np
import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.datasets.tables import Dataset
from app.models.tables import Model
from tests.support.processes import wait_until
from tests.worker import networks
from tests.worker.rows import add_dataset, add_model, now
from worker.inspections import inspect_dataset, inspect_model
from worker.runtime import Runtime

WithChild = Callable[[str], Runtime]
Sessions = sessionmaker[Session]
NEW = {"status": "inspecting", "canonical_sha256": None, "input": None, "layers": None}
GOOD = """
open("canonical", "wb").write(b"safe")
say(type="result", result=dict(canonical="canonical", input={}, summary={}, layers=[], details={}))
"""


@pytest.fixture
def model_id(sessions: Sessions, runtime: Runtime) -> str:
    return add_model(sessions, runtime.store.put_bytes(b"an upload").sha256, **NEW)


def model_of(sessions: Sessions, model_id: str) -> Model:
    with sessions() as session:
        return session.get_one(Model, model_id)


def test_a_good_answer_makes_the_model_ready_and_stores_its_canonical_form(
    sessions: Sessions, with_child: WithChild, model_id: str
) -> None:
    runtime = with_child(GOOD)
    inspect_model(runtime, model_id)
    model = model_of(sessions, model_id)
    assert (model.status, model.lease_owner, model.layers) == ("ready", None, [])
    assert model.canonical_sha256 is not None
    assert b"".join(runtime.store.read(model.canonical_sha256, 0, 4)) == b"safe"


def test_a_problem_rejects_the_model_with_it(
    sessions: Sessions, with_child: WithChild, model_id: str
) -> None:
    inspect_model(
        with_child("say(type='problem', problem=dict(code='malformed_model', detail='bad'))"), model_id
    )
    model = model_of(sessions, model_id)
    assert model.status == "rejected"
    assert model.error is not None
    assert (model.error["code"], model.error["detail"]) == ("malformed_model", "bad")


@pytest.mark.parametrize(
    "child",
    [
        "say(type='problem', problem=dict(code='out_of_memory', detail='too large'))",
        "time.sleep(300)",
    ],
    ids=["memory", "time"],
)
def test_an_upload_that_needs_too_much_is_rejected_for_that(
    sessions: Sessions, with_child: WithChild, model_id: str, child: str
) -> None:
    runtime = with_child(child)
    settings = runtime.settings.model_copy(update={"inspection_seconds": 1})
    inspect_model(replace(runtime, settings=settings), model_id)
    model = model_of(sessions, model_id)
    assert model.status == "rejected"
    assert model.error is not None
    assert model.error["code"] == "resource_limit"


@pytest.mark.parametrize(
    "answer",
    ["dict(canonical='/etc/hostname', input={}, summary={}, layers=[])", "dict(canonical='canonical')", "{}"],
)
def test_an_answer_that_cannot_be_used_rejects_the_model(
    sessions: Sessions, with_child: WithChild, model_id: str, answer: str
) -> None:
    inspect_model(with_child(f"say(type='result', result={answer})"), model_id)
    assert model_of(sessions, model_id).status == "rejected"


def test_an_upload_whose_child_dies_three_times_is_rejected(
    sessions: Sessions, with_child: WithChild, model_id: str
) -> None:
    runtime = with_child("os.kill(os.getpid(), 9)")

    def due() -> bool:
        waits = model_of(sessions, model_id).not_before
        return waits is None or waits <= now()

    for attempt in (1, 2, 3):
        wait_until(due, 5)
        inspect_model(runtime, model_id)
        assert model_of(sessions, model_id).attempt == attempt
    model = model_of(sessions, model_id)
    assert model.status == "rejected"
    assert model.error is not None
    assert model.error["code"] == "worker_lost"


def test_a_worker_that_stops_leaves_the_upload_to_the_next(
    sessions: Sessions, with_child: WithChild, model_id: str
) -> None:
    runtime = with_child("time.sleep(300)")
    Timer(1, runtime.stopping.set).start()
    inspect_model(runtime, model_id)
    model = model_of(sessions, model_id)
    assert (model.status, model.attempt, model.lease_owner) == ("inspecting", 0, None)


def test_an_inspected_upload_is_not_inspected_again(
    sessions: Sessions, with_child: WithChild, model_id: str
) -> None:
    inspect_model(with_child(GOOD), model_id)
    inspect_model(with_child("say(type='problem', problem=dict(code='internal', detail=''))"), model_id)
    assert model_of(sessions, model_id).status == "ready"


def test_a_real_network_and_real_images_become_ready(sessions: Sessions, runtime: Runtime) -> None:
    model = networks.small_cnn()
    blob = runtime.store.put_bytes(model)
    model_id = add_model(sessions, blob.sha256, **NEW)
    inspect_model(runtime, model_id)
    found = model_of(sessions, model_id)
    assert (found.status, found.error) == ("ready", None)
    assert [layer["name"] for layer in found.layers or []] == networks.LAYERS

    packed = runtime.scratch_root.parent / "images.npz"
    np.savez(packed, x=networks.images(20), y=np.arange(20) % 10)
    new = {"status": "inspecting", "canonical_sha256": None, "labelled": None}
    dataset_id = add_dataset(sessions, runtime.store.put_file(packed).sha256, **new)
    inspect_dataset(runtime, dataset_id)
    with sessions() as session:
        dataset = session.get_one(Dataset, dataset_id)
    assert (dataset.status, dataset.error) == ("ready", None)
    assert (dataset.examples, dataset.classes) == ({"train": 16, "test": 4}, 10)


def test_a_file_that_is_no_network_is_rejected_with_a_reason(sessions: Sessions, runtime: Runtime) -> None:
    model_id = add_model(sessions, runtime.store.put_bytes(b"\x08\x07 not a network").sha256, **NEW)
    inspect_model(runtime, model_id)
    found = model_of(sessions, model_id)
    assert found.status == "rejected"
    assert found.error is not None
    assert found.error["code"] in ("malformed_model", "unsupported_format")
