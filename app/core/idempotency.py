"""Idempotency-Key: the first answer to a creating POST, given again.

The record is inserted in the same transaction as what the request creates. A second request with the same key
waits at that insert until the first has committed (then it gets the stored answer) or rolled back (then it
is the first). No half-answered state exists.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Response
from pydantic import BaseModel
from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert

from app.core.errors import IdempotencyConflict
from app.core.security import Writer
from app.core.unit import Unit, UnitOfWork
from app.keys.tables import IdempotencyRecord

KEPT: Final = timedelta(hours=24)

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Any text of yours: the same key and body give the first answer again, for 24 hours.",
    ),
]


def fingerprint(body: Any) -> str:
    """A hash of what was asked; the order of JSON members does not count."""
    plain = body.model_dump(mode="json") if isinstance(body, BaseModel) else body
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def answer_once(
    unit: Unit, owner_id: str, key: str | None, route: str, body: Any, make: Callable[[], BaseModel]
) -> BaseModel | Response:
    """What `make` creates, or the answer that this key got before.

    Raises IdempotencyConflict if the key came with another body before.
    """
    if key is None:
        return make()
    digest = fingerprint(body)
    earlier = _begin(unit, owner_id, key, route, digest)
    if earlier is None:
        made = make()
        _record(unit, owner_id, key, route).response = made.model_dump_json()
        return made
    return _again(earlier, digest)


@dataclass(frozen=True)
class Once:
    """A creating request as far as its key goes: who asks, and in which transaction."""

    unit: Unit
    owner_id: str
    key: str | None

    def __call__(self, route: str, body: Any, make: Callable[[], BaseModel]) -> BaseModel | Response:
        return answer_once(self.unit, self.owner_id, self.key, route, body, make)


async def _once(unit: UnitOfWork, caller: Writer, idempotency_key: IdempotencyKey = None) -> Once:
    return Once(unit, caller.owner_id, idempotency_key)


AnswerOnce = Annotated[Once, Depends(_once, scope="function")]


def earlier_answer(unit: Unit, owner_id: str, key: str | None, route: str, body: Any) -> Response | None:
    """The answer that this key got before, if any: for requests that can be made only once, as what they use
    is gone afterwards. Raises IdempotencyConflict as `answer_once` does."""
    if key is None:
        return None
    earlier = unit.session.get(IdempotencyRecord, (owner_id, key, route))
    if earlier is None or earlier.created_at < unit.now - KEPT:
        return None
    return _again(earlier, fingerprint(body))


def _again(earlier: IdempotencyRecord, digest: str) -> Response:
    if earlier.body_sha256 != digest:
        raise IdempotencyConflict(
            f"The Idempotency-Key {earlier.key!r} was used for {earlier.route} with another body.",
            hint="Use a new key for a new request.",
        )
    return Response(
        earlier.response,
        status_code=earlier.status or 201,
        headers={"Idempotency-Replayed": "true"},
        media_type="application/json",
    )


def _begin(unit: Unit, owner_id: str, key: str, route: str, digest: str) -> IdempotencyRecord | None:
    """Claim the key: None if it is ours now, else the record of the request that had it first."""
    expired = IdempotencyRecord.created_at < unit.now - KEPT
    unit.session.execute(delete(IdempotencyRecord).where(IdempotencyRecord.owner_id == owner_id, expired))
    claim = insert(IdempotencyRecord).values(
        owner_id=owner_id, key=key, route=route, body_sha256=digest, status=201, created_at=unit.now
    )
    claimed = unit.session.execute(
        claim.on_conflict_do_nothing().returning(IdempotencyRecord.key)
    ).one_or_none()
    return None if claimed is not None else _record(unit, owner_id, key, route)


def _record(unit: Unit, owner_id: str, key: str, route: str) -> IdempotencyRecord:
    return unit.session.get_one(IdempotencyRecord, (owner_id, key, route))
