"""What becomes of a plan, whatever its child does, and what is kept of a measurement."""

import json
from collections.abc import Callable
from threading import Timer
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, select
from sqlalchemy.orm import Session, sessionmaker

from app.models.tables import Model
from app.plans.tables import Measurement, Plan
from app.storage.references import referenced
from tests.support.processes import wait_until
from tests.worker import networks
from tests.worker.rows import add_dataset, add_model, add_plan, now
from worker.inspections import inspect_dataset, inspect_model
from worker.plans import make_plan
from worker.runtime import Runtime

WithChild = Callable[[str], Runtime]
Sessions = sessionmaker[Session]
NEW = {"status": "inspecting", "canonical_sha256": None, "input": None, "layers": None}
ANSWER: dict[str, Any] = {
    "feasible": True,
    "achievable": 0.2,
    "limits": {"macs": 0.2, "params": 0.2},
    "original": {"macs": 100, "params": 50},
    "predicted": {"macs": 60, "params": 40},
    "layers": [],
    "ranks": {"conv1": 8},
    "warnings": [],
}
GOOD = f"""
open("measured", "w").write("numbers")
say(type="progress", fraction=0.5, message="Measuring responses")
say(type="result", result=dict(plan={ANSWER!r}, measurement="measured"))
"""
AGAIN = f"""
assert open(task["measurement"]).read() == "numbers"
assert "model" not in task and not os.path.exists("model")
say(type="result", result=dict(plan={ANSWER!r}, measurement=None))
"""


@pytest.fixture
def model_id(sessions: Sessions, runtime: Runtime) -> str:
    return add_model(sessions, runtime.store.put_bytes(b"the network").sha256)


@pytest.fixture
def plan_id(sessions: Sessions, model_id: str) -> str:
    return add_plan(sessions, model_id)


def plan_of(sessions: Sessions, plan_id: str) -> Plan:
    with sessions() as session:
        return session.get_one(Plan, plan_id)


def measurements(sessions: Sessions) -> list[Measurement]:
    with sessions() as session:
        return list(session.scalars(select(Measurement)))


def test_a_plan_becomes_ready_and_its_measurement_serves_the_next(
    sessions: Sessions, with_child: WithChild, model_id: str, plan_id: str
) -> None:
    make_plan(with_child(GOOD), plan_id)
    plan = plan_of(sessions, plan_id)
    assert (plan.status, plan.lease_owner, plan.error) == ("ready", None, None)
    assert plan.result is not None
    assert plan.result["ranks"] == {"conv1": 8}
    assert plan.finished_at is not None
    (kept,) = measurements(sessions)
    assert kept.model_id == model_id
    other = {"target": {"params": 0.3}, "basis": "activations", "forms": "basis"}
    again = add_plan(sessions, model_id, compression=other)
    make_plan(with_child(AGAIN), again)
    assert plan_of(sessions, again).status == "ready"


@pytest.mark.parametrize("changed", [{"basis": "weights"}, {"dataset": True}])
def test_what_changes_the_numbers_is_measured_anew(
    sessions: Sessions, runtime: Runtime, with_child: WithChild, model_id: str, plan_id: str, changed: Any
) -> None:
    make_plan(with_child(GOOD), plan_id)
    basis = changed.get("basis", "activations")
    data = None
    if "dataset" in changed:
        data = add_dataset(sessions, runtime.store.put_bytes(b"images").sha256)
    compression = {"target": {"macs": 0.5}, "basis": basis, "forms": "auto"}
    make_plan(with_child(GOOD), add_plan(sessions, model_id, dataset_id=data, compression=compression))
    assert len(measurements(sessions)) == 2


def test_a_problem_fails_the_plan_with_it(sessions: Sessions, with_child: WithChild, plan_id: str) -> None:
    problem = "say(type='problem', problem=dict(code='dataset_mismatch', detail='too many classes'))"
    make_plan(with_child(problem), plan_id)
    plan = plan_of(sessions, plan_id)
    assert plan.status == "failed"
    assert plan.error is not None
    assert (plan.error["code"], plan.error["detail"]) == ("dataset_mismatch", "too many classes")


@pytest.mark.parametrize(
    "answer",
    [
        "{}",
        "dict(plan={}, measurement=None)",
        f"dict(plan={ANSWER!r}, measurement='/etc/hostname')",
        f"dict(plan={ANSWER | {'predicted': {'macs': 'many'}}!r}, measurement=None)",
    ],
)
def test_an_answer_that_cannot_be_used_fails_the_plan(
    sessions: Sessions, with_child: WithChild, plan_id: str, answer: str
) -> None:
    make_plan(with_child(f"say(type='result', result={answer})"), plan_id)
    plan = plan_of(sessions, plan_id)
    assert plan.status == "failed"
    assert plan.error is not None
    assert plan.error["code"] == "internal"
    assert measurements(sessions) == []


def test_a_plan_whose_child_dies_three_times_fails(
    sessions: Sessions, with_child: WithChild, plan_id: str
) -> None:
    runtime = with_child("os.kill(os.getpid(), 11)")

    def due() -> bool:
        waits = plan_of(sessions, plan_id).not_before
        return waits is None or waits <= now()

    for attempt in (1, 2, 3):
        wait_until(due, 5)
        make_plan(runtime, plan_id)
        assert plan_of(sessions, plan_id).attempt == attempt
    plan = plan_of(sessions, plan_id)
    assert plan.status == "failed"
    assert plan.error is not None
    assert plan.error["code"] == "worker_lost"


def test_a_worker_that_stops_hands_the_plan_back(
    sessions: Sessions, with_child: WithChild, plan_id: str
) -> None:
    runtime = with_child("time.sleep(300)")
    Timer(0.5, runtime.stopping.set).start()
    make_plan(runtime, plan_id)
    plan = plan_of(sessions, plan_id)
    assert (plan.status, plan.attempt, plan.lease_owner) == ("queued", 0, None)


def test_a_plan_deleted_while_it_is_made_stops_its_child_and_leaves_nothing(
    sessions: Sessions, with_child: WithChild, model_id: str, plan_id: str
) -> None:
    def forget() -> None:
        with sessions.begin() as session:
            session.execute(delete(Plan).where(Plan.id == plan_id))

    runtime = with_child("time.sleep(300)")
    Timer(0.5, forget).start()
    make_plan(runtime, plan_id)
    assert measurements(sessions) == []


def test_a_measurement_of_a_plan_that_is_gone_is_let_go(
    sessions: Sessions, with_child: WithChild, model_id: str, plan_id: str
) -> None:
    """The child is done, but the model with its plan was deleted in the same moment."""
    runtime = with_child(GOOD)
    put_file = runtime.store.put_file
    stored = []

    def put_and_delete(path: Any, *each: Any) -> Any:
        stored.append(put_file(path, *each))
        with sessions.begin() as session:
            session.execute(delete(Model).where(Model.id == model_id))
        return stored[-1]

    runtime.store.put_file = put_and_delete  # type: ignore[method-assign]
    make_plan(runtime, plan_id)
    assert measurements(sessions) == []
    assert not runtime.store.exists(stored[0].sha256)


def test_a_plan_delivered_twice_is_made_once(sessions: Sessions, with_child: WithChild, plan_id: str) -> None:
    make_plan(with_child(GOOD), plan_id)
    make_plan(with_child("say(type='problem', problem=dict(code='internal', detail=''))"), plan_id)
    assert plan_of(sessions, plan_id).status == "ready"


def test_a_measurement_keeps_its_object_from_being_released(
    sessions: Sessions, with_child: WithChild, plan_id: str
) -> None:
    make_plan(with_child(GOOD), plan_id)
    with sessions() as session:
        kept = measurements(sessions)[0].sha256
        assert referenced(session, {kept}) == {kept}


def test_a_real_network_is_planned_and_planned_again(sessions: Sessions, runtime: Runtime) -> None:
    blob = runtime.store.put_bytes(networks.small_cnn())
    model_id = add_model(sessions, blob.sha256, **NEW | {"requested_input": {"std": [0.25] * 3}})
    inspect_model(runtime, model_id)
    packed = runtime.scratch_root.parent / "images.npz"
    np.savez(packed, x=networks.images(200), y=np.arange(200) % 10)
    new = {"status": "inspecting", "canonical_sha256": None, "labelled": None}
    dataset_id = add_dataset(sessions, runtime.store.put_file(packed).sha256, **new)
    inspect_dataset(runtime, dataset_id)
    plans = []
    for share in (0.6, 0.5):
        compression = {"target": {"macs": share}, "basis": "activations", "forms": "auto"}
        plan_id = add_plan(sessions, model_id, dataset_id=dataset_id, compression=compression)
        make_plan(runtime, plan_id)
        plan = plan_of(sessions, plan_id)
        assert plan.error is None, plan.error
        assert plan.status == "ready"
        assert plan.result is not None
        assert plan.result["predicted"]["macs"] <= share * plan.result["original"]["macs"]
        assert [layer["name"] for layer in plan.result["layers"]] == networks.LAYERS
        plans.append(plan.result)
    (kept,) = measurements(sessions)
    document = json.loads(b"".join(runtime.store.read(kept.sha256, 0, kept.bytes)))
    assert set(document["tables"]) <= set(networks.LAYERS)
    assert plans[0]["predicted"]["error"] < plans[1]["predicted"]["error"]
