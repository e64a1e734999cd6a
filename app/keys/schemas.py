"""API keys as the contract shows them."""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from app.core.schemas import Moment, Name, Shown
from app.core.security import Scope
from app.keys.tables import ApiKey

Limit = Annotated[int, Field(ge=0, le=2**53)]


class KeyLimits(BaseModel):
    """What a key may use; null: what the service's settings say, 0: no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stored_bytes: Limit | None = Field(None, description="Bytes that the key's owner may have stored.")
    active_jobs: Limit | None = Field(
        None, description="Jobs and plans of the owner that may wait or run at once."
    )
    requests_per_minute: Limit | None = Field(None, description="Requests with this key.")


class KeyCreate(BaseModel):
    """The body of ``POST /v1/keys``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    scopes: Annotated[list[Scope], Field(max_length=3, description="Empty: all but admin.")] = []
    expires_at: AwareDatetime | None = None
    owner: Literal["new", "self"] = Field(
        "new", description="new: a separate owner who sees nothing of yours. self: shares what is yours."
    )
    limits: KeyLimits = Field(KeyLimits(), description="The key's own quotas.")

    @model_validator(mode="after")
    def each_scope_once(self) -> Self:
        if len(set(self.scopes)) != len(self.scopes):
            raise ValueError("`scopes` names a scope twice")
        return self


class KeyChange(BaseModel):
    """The body of ``PATCH /v1/keys/{key_id}``: what is left out stays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name | None = None
    limits: KeyLimits | None = Field(None, description="Those given; null is the service's own again.")


class KeyOut(Shown):
    id: str
    object: Literal["key"] = "key"
    name: str
    owner: str
    scopes: list[str]
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    last_used_at: Moment | None = Field(description="To the minute.")
    limits: KeyLimits


class NewKeyOut(KeyOut):
    key: str = Field(description="The secret. It is shown this once.")


def show_key(key: ApiKey) -> KeyOut:
    names = ("id", "name", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at")
    limits = {name: getattr(key, name) for name in KeyLimits.model_fields}
    return KeyOut.model_validate(
        {name: getattr(key, name) for name in names} | {"owner": key.owner_id, "limits": limits}
    )


class Share(Shown):
    used: int
    limit: int | None = Field(description="null: none.")


class Pace(Shown):
    limit: int | None = Field(description="null: none. The header RateLimit tells what is left.")


class UsageOut(Shown):
    """What an owner uses of what the asking key may use."""

    object: Literal["usage"] = "usage"
    key: str
    owner: str
    stored_bytes: Share = Field(
        description="Uploads, their checked copies, job files and uploads on their way; equal files once."
    )
    active_jobs: Share
    requests_per_minute: Pace
