"""Lists by cursor: pages stay right while rows come and go, and the last page costs what the first does."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.core.errors import ValidationFailed
from app.core.ids import Prefix, is_id

T = TypeVar("T")
Row = TypeVar("Row")


class PageQuery(BaseModel):
    """`after`, `limit` and `order` of every list."""

    model_config = ConfigDict(frozen=True)

    after: str | None = None
    limit: int = 20
    order: Literal["asc", "desc"] = "desc"


Limit = Annotated[int, Query(ge=1, le=100, description="Most items on a page.")]
After = Annotated[str | None, Query(max_length=64, description="The id after which the page begins.")]
Order = Annotated[Literal["asc", "desc"], Query(description="Oldest first or newest first.")]


async def page_query(after: After = None, limit: Limit = 20, order: Order = "desc") -> PageQuery:
    return PageQuery(after=after, limit=limit, order=order)


class Listing(BaseModel, Generic[T]):
    """One page."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool
    first_id: str | None
    last_id: str | None


def read_page(
    session: Session,
    statement: Select[Row],
    key: InstrumentedAttribute[str],
    prefix: Prefix,
    page: PageQuery,
) -> tuple[Sequence[Row], bool]:
    """A page of rows in the order of their ids, and whether more follow."""
    if page.after is not None:
        require_cursor(page.after, prefix)
        statement = statement.where(key < page.after if page.order == "desc" else key > page.after)
    ordered = statement.order_by(key.desc() if page.order == "desc" else key.asc())
    rows = session.scalars(ordered.limit(page.limit + 1)).all()
    return rows[: page.limit], len(rows) > page.limit


def require_cursor(after: str, prefix: Prefix) -> None:
    """Refuse a cursor that can't be an id of this list."""
    if not is_id(after, prefix):
        raise ValidationFailed(
            f"`after` must be the id of an item of this list, such as {prefix}_01k….",
            errors=[{"parameter": "after", "detail": f"is not an id of the form {prefix}_…"}],
        )


def listing(rows: Sequence[Any], has_more: bool, show: Callable[[Any], T]) -> Listing[T]:
    """Rows as the page the contract describes."""
    return Listing[T](
        data=[show(row) for row in rows],
        has_more=has_more,
        first_id=rows[0].id if rows else None,
        last_id=rows[-1].id if rows else None,
    )
