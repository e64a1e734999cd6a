"""API keys: made, listed, revoked. The secret is shown once and kept as a keyed hash."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

from sqlalchemy.orm import Session

from app.core.clock import Clock
from app.core.errors import known
from app.core.ids import new_id
from app.core.problems import invalid
from app.core.security import ALL_SCOPES, Caller, digest_of, new_secret
from app.core.settings import Settings
from app.core.unit import Unit
from app.keys import repository
from app.keys.limits import NAMES
from app.keys.schemas import KeyChange
from app.keys.tables import ApiKey


def create(
    unit: Unit,
    settings: Settings,
    *,
    owner_id: str | None,
    name: str,
    scopes: list[str],
    expires_at: datetime | None,
    secret: str,
    maker_id: str | None = None,
    limits: Mapping[str, int | None] | None = None,
) -> ApiKey:
    """A key for this owner, or, without one, for a new owner whose keys its maker may manage."""
    key = ApiKey(
        id=new_id("key", unit.now),
        owner_id=owner_id or new_id("owner", unit.now),
        maker_id=maker_id if owner_id is None else None,
        name=name,
        digest=digest_of(settings, secret),
        scopes=scopes,
        created_at=unit.now,
        expires_at=expires_at,
        **(limits or {}),
    )
    unit.session.add(key)
    unit.session.flush()
    return key


def secret_for(settings: Settings, owner_id: str, idempotency_key: str | None, body_hash: str) -> str:
    """The secret of a key to be made: random, or, to be given again for the same Idempotency-Key, derived.

    A stored first answer would hold the secret in clear; deriving it under ``secret_key`` needs no storage.
    """
    if idempotency_key is None:
        return new_secret()
    seed = "\n".join(("api-key", owner_id, idempotency_key, body_hash)).encode()
    return "bc_" + hmac.new(settings.secret_key.get_secret_value().encode(), seed, hashlib.sha256).hexdigest()


def get(unit: Unit, caller: Caller, key_id: str) -> ApiKey:
    return known(repository.find(unit.session, caller.owner_id, key_id), "key", key_id)


def revoke(unit: Unit, key: ApiKey) -> None:
    """End a key. Its row stays, so that its id never means another key; revoking again is no error."""
    key.revoked_at = key.revoked_at or unit.now


def change(unit: Unit, settings: Settings, caller: Caller, key: ApiKey, body: KeyChange) -> None:
    """Another name, other limits."""
    if body.name is not None:
        key.name = body.name
    if body.limits is not None:
        limits = {name: getattr(key, name) for name in NAMES} | body.limits.model_dump(exclude_unset=True)
        for name, value in inherited(caller, settings, limits).items():
            setattr(key, name, value)
    unit.session.flush()


def inherited(caller: Caller, settings: Settings, asked: Mapping[str, int | None]) -> dict[str, int | None]:
    """The limits of a key that this caller makes: whose own key has a limit cannot give away more."""
    given = dict(asked)
    for name, own in asdict(caller.limits).items():
        usual, wanted = getattr(settings, f"max_{name}"), given[name]
        if own in (0, usual):
            continue
        if wanted is None and not 0 < usual < own:
            given[name] = own
        elif wanted is not None and not 0 < wanted <= own:
            raise invalid(("limits", name), f"Your own key may use at most {own:,}, and so may this one.")
    return given


def ensure_owner_key(
    session: Session, settings: Settings, clock: Clock, *, renew: bool = False
) -> str | None:
    """The secret of a new owner key that may do everything, or None if there is one already.

    With `renew`, for when ``var/api-key`` was lost, the old one is revoked and the same owner gets another.
    The caller commits, then writes the secret where only the owner reads it.
    """
    now = clock.now()
    existing = repository.oldest_admin(session, now)
    if existing is not None and not renew:
        return None
    if existing is not None:
        existing.revoked_at = now
    secret = new_secret()
    create(
        Unit(session, now),
        settings,
        owner_id=repository.first_owner(
            session
        ),  # also where all its keys were revoked: its data stay its own
        name="owner",
        scopes=list(ALL_SCOPES),
        expires_at=None,
        secret=secret,
    )
    return secret
