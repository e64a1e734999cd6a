"""The page of webhooks: what there is, what was sent, and a form for another one. It needs no scripts."""

from typing import Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from app.core.errors import Problem
from app.core.pagination import PageQuery
from app.core.problems import validation_problem
from app.core.routes import OneThread
from app.core.security import Caller, Reader, Writer
from app.core.unit import Services, ServicesOf, Unit, UnitOfWork, transaction
from app.web.rendering import render
from app.web.shown import Document, plain
from app.webhooks import repository, service, signing
from app.webhooks.schemas import WebhookCreate, show_message, show_webhook

router = APIRouter(include_in_schema=False, route_class=OneThread)
SENT: Final = 5  # of each webhook's messages
EVENTS: Final = {
    "job.succeeded": "a job finished",
    "job.failed": "a job failed",
    "job.cancelled": "a job was cancelled",
    "batch.completed": "a batch finished",
}


@router.get("/webhooks")
def webhook_list(unit: UnitOfWork, caller: Reader) -> Response:
    return _page(unit, caller)


@router.post("/webhooks")
async def create_webhook(request: Request, services: ServicesOf, caller: Writer) -> Response:
    """The form's answer is the page with the secret: nowhere else will it be shown."""
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    return await run_in_threadpool(_create, services, caller, fields)


def _create(services: Services, caller: Caller, fields: dict[str, list[str]]) -> Response:
    wish = {"url": fields.get("url", [""])[0].strip(), "events": fields.get("events", [])}
    if description := fields.get("description", [""])[0].strip():
        wish["description"] = description
    try:
        asked = WebhookCreate.model_validate(wish)
        with transaction(services) as unit:
            webhook = service.create(unit, services.settings, caller, asked)
        secret = signing.secret_of(services.settings, webhook.id)
        with transaction(services) as unit:
            return _page(unit, caller, new={"id": webhook.id, "secret": secret})
    except ValidationError as error:
        problem: Problem = validation_problem(error.errors(), ("body",))
    except Problem as error:
        problem = error
    with transaction(services) as unit:
        return _page(unit, caller, problem=problem, wish=wish)


@router.post("/webhooks/{webhook_id}/test")
def test_webhook(webhook_id: str, unit: UnitOfWork, caller: Writer) -> Response:
    service.test(unit, caller, webhook_id)
    return RedirectResponse(f"/webhooks#{webhook_id}", status_code=303)


@router.post("/webhooks/{webhook_id}/delete")
def delete_webhook(webhook_id: str, unit: UnitOfWork, caller: Writer) -> Response:
    service.delete(unit, caller, webhook_id)
    return RedirectResponse("/webhooks", status_code=303)


def _page(
    unit: Unit,
    caller: Caller,
    *,
    new: Document | None = None,
    problem: Problem | None = None,
    wish: Document | None = None,
) -> Response:
    rows, _ = repository.page_of(unit.session, caller.owner_id, PageQuery(limit=service.MOST))
    hooks = []
    for row in rows:
        sent, _ = repository.messages(unit.session, row.id, PageQuery(limit=SENT))
        messages = [plain(show_message(one)) for one in sent]
        hooks.append(plain(show_webhook(row)) | {"messages": messages})
    recent = [one for hook in hooks for one in hook["messages"]]
    return render(
        "webhooks.html",
        200 if problem is None else problem.status,
        here="/webhooks",
        hooks=hooks,
        busy=any(one["status"] == "waiting" and one["last_at"] is None for one in recent),
        events=EVENTS,
        may_write=caller.may("write"),
        new=new,
        problem=None if problem is None else problem.document(),
        wish=wish or {"url": "", "events": ["job.succeeded", "job.failed", "batch.completed"]},
    )
