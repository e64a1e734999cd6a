"""API keys as the contract shows them."""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from app.core.schemas import Moment, Name, Shown
from app.core.security import Scope
from app.keys.tables import ApiKey


class KeyCreate(BaseModel):
    """The body of ``POST /v1/keys``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    scopes: Annotated[list[Scope], Field(max_length=3, description="Empty: all but admin.")] = []
    expires_at: AwareDatetime | None = None
    owner: Literal["new", "self"] = Field(
        "new", description="new: a separate owner who sees nothing of yours. self: shares what is yours."
    )

    @model_validator(mode="after")
    def each_scope_once(self) -> Self:
        if len(set(self.scopes)) != len(self.scopes):
            raise ValueError("`scopes` names a scope twice")
        return self


class KeyOut(Shown):
    id: str
    object: Literal["key"] = "key"
    name: str
    owner: str
    scopes: list[str]
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    last_used_at: Moment | None


class NewKeyOut(KeyOut):
    key: str = Field(description="The secret. It is shown this once.")


def _fields(key: ApiKey) -> dict[str, object]:
    names = ("id", "name", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at")
    return {name: getattr(key, name) for name in names} | {"owner": key.owner_id}


def show_key(key: ApiKey) -> KeyOut:
    return KeyOut.model_validate(_fields(key))
