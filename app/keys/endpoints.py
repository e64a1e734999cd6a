"""``/v1/keys``, for holders of the scope `admin`, and ``/v1/usage``."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from app.core.errors import IdempotencyConflict, NotFound
from app.core.idempotency import IdempotencyKey, answer_once, fingerprint
from app.core.pagination import Listing, PageQuery, listing, page_query
from app.core.problems import invalid, raises
from app.core.routes import OneThread
from app.core.security import Admin, Reader
from app.core.unit import ServicesOf, UnitOfWork
from app.keys import quotas, repository, service
from app.keys.schemas import KeyChange, KeyCreate, KeyOut, NewKeyOut, Pace, Share, UsageOut, show_key

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=OneThread)
usage_router = APIRouter(tags=["keys"], route_class=OneThread)


@router.post("", status_code=201, response_model=NewKeyOut, responses=raises(IdempotencyConflict))
def create_key(
    body: KeyCreate,
    unit: UnitOfWork,
    services: ServicesOf,
    caller: Admin,
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """Make an API key. Its secret is in this answer only."""
    if body.expires_at is not None and body.expires_at <= unit.now:
        raise invalid(("expires_at",), "`expires_at` lies in the past.")
    limits = service.inherited(caller, services.settings, body.limits.model_dump())
    secret = service.secret_for(services.settings, caller.owner_id, idempotency_key, fingerprint(body))

    def make() -> BaseModel:
        key = service.create(
            unit,
            services.settings,
            owner_id=caller.owner_id if body.owner == "self" else None,
            name=body.name,
            scopes=list(body.scopes),
            expires_at=body.expires_at,
            secret=secret,
            maker_id=caller.owner_id,
            limits=limits,
        )
        return show_key(key)

    answer = answer_once(unit, caller.owner_id, idempotency_key, "POST /v1/keys", body, make)
    shown = KeyOut.model_validate_json(bytes(answer.body)) if isinstance(answer, Response) else answer
    return NewKeyOut.model_validate(shown.model_dump() | {"key": secret})


@router.get("", responses=raises())
def list_keys(
    unit: UnitOfWork, caller: Admin, page: Annotated[PageQuery, Depends(page_query)]
) -> Listing[KeyOut]:
    """Your keys and those of the owners you made, without their secrets."""
    rows, has_more = repository.page_of(unit.session, caller.owner_id, page)
    return listing(rows, has_more, show_key)


@router.get("/{key_id}", responses=raises(NotFound))
def get_key(key_id: str, unit: UnitOfWork, caller: Admin) -> KeyOut:
    """One key, without its secret."""
    return show_key(service.get(unit, caller, key_id))


@router.patch("/{key_id}", responses=raises(NotFound))
def change_key(key_id: str, body: KeyChange, unit: UnitOfWork, services: ServicesOf, caller: Admin) -> KeyOut:
    """Rename a key, or change its quotas. They hold from its next request on."""
    key = service.get(unit, caller, key_id)
    service.change(unit, services.settings, caller, key, body)
    unit.after_commit(services.recent_keys.forget)
    return show_key(key)


@router.delete("/{key_id}", status_code=204, response_class=Response, responses=raises(NotFound))
def revoke_key(key_id: str, unit: UnitOfWork, services: ServicesOf, caller: Admin) -> None:
    """Revoke a key: it signs nobody in from now on (through other web processes within a second), and its
    browser sessions end."""
    service.revoke(unit, service.get(unit, caller, key_id))
    unit.after_commit(services.recent_keys.forget)


@usage_router.get("/v1/usage", responses=raises())
def get_usage(unit: UnitOfWork, caller: Reader) -> UsageOut:
    """What you use, and what your key may use."""
    limits = caller.limits
    return UsageOut(
        key=caller.key_id,
        owner=caller.owner_id,
        stored_bytes=Share(
            used=quotas.stored_bytes(unit.session, caller.owner_id, unit.now),
            limit=limits.stored_bytes or None,
        ),
        active_jobs=Share(
            used=quotas.active_jobs(unit.session, caller.owner_id), limit=limits.active_jobs or None
        ),
        requests_per_minute=Pace(limit=limits.requests_per_minute or None),
    )
