"""What can be done with plans."""

from app.core.errors import known
from app.core.ids import new_id
from app.core.problems import invalid
from app.core.security import Caller
from app.core.unit import Unit
from app.datasets import service as datasets
from app.jobs import checks, from_scratch
from app.jobs.options import JobCreate
from app.keys import quotas
from app.models import service as models
from app.plans import repository
from app.plans.schemas import PlanCreate
from app.plans.tables import Plan


def create(unit: Unit, caller: Caller, request: PlanCreate) -> Plan:
    """A queued plan for what the same job would be asked; its worker is rung for after commit."""
    job = JobCreate(model=request.model, dataset=request.dataset, compression=request.compression)
    from_scratch.check_kind(job)
    model = models.get_ready(unit, caller, request.model)
    dataset = None if request.dataset is None else datasets.get_ready(unit, caller, request.dataset)
    checks.check_data(job, dataset)
    checks.check_outputs(job, model)
    checks.check_layers(request.compression, model)
    _check_foreseeable(request)
    quotas.require_jobs(unit.session, caller, 1, unit.now)
    decided = checks.decide(request.compression, with_images=dataset is not None)
    plan = Plan(
        id=new_id("plan", unit.now),
        owner_id=caller.owner_id,
        model_id=model.id,
        dataset_id=None if dataset is None else dataset.id,
        compression=decided.model_dump(mode="json"),
        status="queued",
        progress={},
        created_at=unit.now,
    )
    unit.session.add(plan)
    unit.session.flush()
    unit.ring("worker.plan", plan)
    return plan


def _check_foreseeable(request: PlanCreate) -> None:
    """Refuse what only doing it can tell."""
    compression = request.compression
    if compression.target.latency is not None:
        raise invalid(
            ("compression", "target", "latency"),
            "A plan times nothing, and so can say nothing of a share of the time.",
            hint="Ask for a share of the operations (macs), or let a job time the network.",
        )
    if compression.target.accuracy_drop is not None and compression.basis == "weights":
        raise invalid(
            ("compression", "basis"),
            "By its weights alone nothing can be said of a network's accuracy.",
            hint="Leave `basis` out: the plan then measures the network's responses.",
        )


def get(unit: Unit, caller: Caller, plan_id: str) -> Plan:
    return known(repository.find(unit.session, caller.owner_id, plan_id), "plan", plan_id)


def delete(unit: Unit, caller: Caller, plan_id: str) -> None:
    """Delete a plan in any state: a worker that makes it finds its row gone and stops."""
    plan = known(repository.find_to_delete(unit.session, caller.owner_id, plan_id), "plan", plan_id)
    unit.session.delete(plan)
