"""``/v1/keys``: for holders of the scope `admin`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from app.core.errors import IdempotencyConflict, NotFound
from app.core.idempotency import IdempotencyKey, answer_once, fingerprint
from app.core.pagination import Listing, PageQuery, listing, page_query
from app.core.problems import invalid, raises
from app.core.security import Admin, require
from app.core.unit import ServicesOf, UnitOfWork
from app.keys import repository, service
from app.keys.schemas import KeyCreate, KeyOut, NewKeyOut, show_key

router = APIRouter(prefix="/v1/keys", tags=["keys"])
ADMIN_ONLY = [Depends(require("admin"))]


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
        )
        return show_key(key)

    answer = answer_once(unit, caller.owner_id, idempotency_key, "POST /v1/keys", body, make)
    shown = KeyOut.model_validate_json(bytes(answer.body)) if isinstance(answer, Response) else answer
    return NewKeyOut.model_validate(shown.model_dump() | {"key": secret})


@router.get("", dependencies=ADMIN_ONLY, responses=raises())
def list_keys(unit: UnitOfWork, page: Annotated[PageQuery, Depends(page_query)]) -> Listing[KeyOut]:
    """All keys of the service, without their secrets."""
    rows, has_more = repository.page_of(unit.session, page)
    return listing(rows, has_more, show_key)


@router.get("/{key_id}", dependencies=ADMIN_ONLY, responses=raises(NotFound))
def get_key(key_id: str, unit: UnitOfWork) -> KeyOut:
    """One key, without its secret."""
    return show_key(service.get(unit, key_id))


@router.delete(
    "/{key_id}",
    status_code=204,
    response_class=Response,
    dependencies=ADMIN_ONLY,
    responses=raises(NotFound),
)
def revoke_key(key_id: str, unit: UnitOfWork) -> None:
    """Revoke a key: it signs nobody in from now on, and its browser sessions end."""
    service.revoke(unit, key_id)
