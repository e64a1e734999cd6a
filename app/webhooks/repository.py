"""Queries over webhooks and their messages. What belongs to another owner does not exist."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from sqlalchemy import Select, delete, func, or_, select, update
from sqlalchemy.orm import Session

from app.core.ids import is_id
from app.core.pagination import PageQuery, read_page
from app.webhooks.tables import Webhook, WebhookMessage

TEST: Final = "webhook.test"
_LOOKED_AT: Final = 400  # due messages, to find some for every webhook


def find(session: Session, owner_id: str, webhook_id: str) -> Webhook | None:
    if not is_id(webhook_id, "webhook"):
        return None
    return session.scalar(_owned(owner_id).where(Webhook.id == webhook_id))


def page_of(session: Session, owner_id: str, page: PageQuery) -> tuple[Sequence[Webhook], bool]:
    return read_page(session, _owned(owner_id), Webhook.id, "webhook", page)


def number(session: Session, owner_id: str) -> int:
    count = select(func.count()).select_from(Webhook).where(Webhook.owner_id == owner_id)
    return session.scalar(count) or 0


def messages(session: Session, webhook_id: str, page: PageQuery) -> tuple[Sequence[WebhookMessage], bool]:
    statement = select(WebhookMessage).where(WebhookMessage.webhook_id == webhook_id)
    return read_page(session, statement, WebhookMessage.id, "message", page)


def take_due(
    session: Session, now: datetime, most: int, most_of_one: int, lease: timedelta
) -> list[tuple[WebhookMessage, Webhook]]:
    """Messages whose time has come, counted as tried: who is killed while sending tries again after `lease`.

    A few of each webhook, so that one that answers slowly does not keep the others' waiting.
    """
    due = (
        select(WebhookMessage, Webhook)
        .join(Webhook)
        .where(WebhookMessage.status == "waiting", WebhookMessage.next_at <= now)
        .where(or_(Webhook.disabled_at.is_(None), WebhookMessage.type == TEST))
        .order_by(WebhookMessage.next_at)
        .limit(_LOOKED_AT)
    )
    found = sorted(session.execute(due).all(), key=lambda row: row[1].id)
    taken = []
    for _, rows in groupby(found, key=lambda row: row[1].id):
        taken += [(row[0], row[1]) for row in list(rows)[:most_of_one]]
    taken = sorted(taken, key=lambda pair: pair[0].next_at or now)[:most]
    for message, _webhook in taken:
        message.attempts += 1
        message.next_at = now + lease
    return taken


def give_up_all(session: Session, webhook_id: str) -> None:
    """What still waits for a webhook that was disabled."""
    waiting = update(WebhookMessage).where(
        WebhookMessage.webhook_id == webhook_id, WebhookMessage.status == "waiting"
    )
    session.execute(waiting.values(status="given_up", next_at=None))


def forget(session: Session, before: datetime) -> None:
    """Delete messages that have had their time."""
    old = delete(WebhookMessage).where(WebhookMessage.created_at < before, WebhookMessage.status != "waiting")
    session.execute(old)


def _owned(owner_id: str) -> Select[Webhook]:
    return select(Webhook).where(Webhook.owner_id == owner_id)
