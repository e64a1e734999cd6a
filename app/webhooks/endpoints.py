"""``/v1/webhooks``."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from app.core.errors import IdempotencyConflict, NotFound, QuotaExceeded
from app.core.idempotency import IdempotencyKey, answer_once
from app.core.pagination import Listing, PageQuery, listing, page_query
from app.core.problems import raises
from app.core.routes import OneThread
from app.core.security import Reader, Writer
from app.core.unit import ServicesOf, UnitOfWork
from app.webhooks import repository, service, signing
from app.webhooks.schemas import (
    NewWebhookOut,
    WebhookCreate,
    WebhookMessageOut,
    WebhookOut,
    show_message,
    show_webhook,
)

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=OneThread)
_ROUTE: Final = "POST /v1/webhooks"


@router.post(
    "", status_code=201, response_model=NewWebhookOut, responses=raises(IdempotencyConflict, QuotaExceeded)
)
def create_webhook(
    body: WebhookCreate,
    unit: UnitOfWork,
    services: ServicesOf,
    caller: Writer,
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """Be told of jobs and batches that end. Its secret is in this answer only."""

    def make() -> BaseModel:
        return show_webhook(service.create(unit, services.settings, caller, body))

    answer = answer_once(unit, caller.owner_id, idempotency_key, _ROUTE, body, make)
    shown = WebhookOut.model_validate_json(bytes(answer.body)) if isinstance(answer, Response) else answer
    secret = signing.secret_of(services.settings, shown.model_dump()["id"])  # derived, so stored nowhere
    return NewWebhookOut.model_validate(shown.model_dump() | {"secret": secret})


@router.get("", responses=raises())
def list_webhooks(
    unit: UnitOfWork, caller: Reader, page: Annotated[PageQuery, Depends(page_query)]
) -> Listing[WebhookOut]:
    """Your webhooks, newest first, without their secrets."""
    rows, has_more = repository.page_of(unit.session, caller.owner_id, page)
    return listing(rows, has_more, show_webhook)


@router.get("/{webhook_id}", responses=raises(NotFound))
def get_webhook(webhook_id: str, unit: UnitOfWork, caller: Reader) -> WebhookOut:
    """One webhook, without its secret."""
    return show_webhook(service.get(unit, caller, webhook_id))


@router.get("/{webhook_id}/messages", responses=raises(NotFound))
def list_messages(
    webhook_id: str, unit: UnitOfWork, caller: Reader, page: Annotated[PageQuery, Depends(page_query)]
) -> Listing[WebhookMessageOut]:
    """What was sent or waits to be, newest first; kept for 30 days."""
    webhook = service.get(unit, caller, webhook_id)
    rows, has_more = repository.messages(unit.session, webhook.id, page)
    return listing(rows, has_more, show_message)


@router.post("/{webhook_id}/test", status_code=202, responses=raises(NotFound))
def test_webhook(webhook_id: str, unit: UnitOfWork, caller: Writer) -> WebhookMessageOut:
    """Send a message of the type `webhook.test`, once; the list of messages tells what came of it."""
    return show_message(service.test(unit, caller, webhook_id))


@router.delete("/{webhook_id}", status_code=204, response_class=Response, responses=raises(NotFound))
def delete_webhook(webhook_id: str, unit: UnitOfWork, caller: Writer) -> None:
    """Delete a webhook; what still waits for it is not sent."""
    service.delete(unit, caller, webhook_id)
