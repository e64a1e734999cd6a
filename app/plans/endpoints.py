"""``/v1/plans``."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response

from app.core.errors import IdempotencyConflict, InvalidState, NotFound, QuotaExceeded
from app.core.idempotency import AnswerOnce
from app.core.ids import is_id
from app.core.pagination import Listing, PageQuery, listing, page_query
from app.core.problems import raises
from app.core.routes import OneThread
from app.core.security import Reader, Writer
from app.core.unit import UnitOfWork
from app.plans import repository, service
from app.plans.schemas import PlanCreate, PlanOut, show_plan, show_row

router = APIRouter(prefix="/v1/plans", tags=["plans"], route_class=OneThread)


@router.post(
    "",
    status_code=201,
    response_model=PlanOut,
    responses=raises(NotFound, InvalidState, IdempotencyConflict, QuotaExceeded),
)
def create_plan(body: PlanCreate, unit: UnitOfWork, caller: Writer, once: AnswerOnce) -> Any:
    """Ask what a job would choose, and what to expect of it. The network is measured once; plans with other
    targets then take a moment."""
    return once("POST /v1/plans", body, lambda: show_plan(service.create(unit, caller, body)))


@router.get("", responses=raises())
def list_plans(
    unit: UnitOfWork,
    caller: Reader,
    page: Annotated[PageQuery, Depends(page_query)],
    status: Annotated[Literal["queued", "ready", "failed"] | None, Query()] = None,
    model: Annotated[str | None, Query(max_length=64)] = None,
) -> Listing[PlanOut]:
    """Your plans, newest first, without the curves of their layers."""
    if model is not None and not is_id(model, "model"):
        return listing([], False, show_row)
    rows, has_more = repository.page_of(unit.session, caller.owner_id, page, status, model)
    return listing(rows, has_more, show_row)


@router.get("/{plan_id}", responses=raises(NotFound))
def get_plan(plan_id: str, unit: UnitOfWork, caller: Reader) -> PlanOut:
    """One plan, with every layer."""
    return show_plan(service.get(unit, caller, plan_id))


@router.delete("/{plan_id}", status_code=204, response_class=Response, responses=raises(NotFound))
def delete_plan(plan_id: str, unit: UnitOfWork, caller: Writer) -> None:
    """Delete a plan, also one that is not ready yet. What was measured for it stays with the model."""
    service.delete(unit, caller, plan_id)
