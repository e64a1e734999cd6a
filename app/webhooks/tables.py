"""Webhooks, and the messages to them: written with what they tell of, sent afterwards."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base


class Webhook(Base):
    __tablename__ = "webhooks"
    __table_args__ = (Index("ix_webhooks_owner_id_id", "owner_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str]
    url: Mapped[str]
    events: Mapped[list[str]]
    description: Mapped[str | None]
    created_at: Mapped[datetime]
    failing_since: Mapped[datetime | None]  # the first failure after the last success
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]


class WebhookMessage(Base):
    __tablename__ = "webhook_messages"
    __table_args__ = (
        Index("ix_webhook_messages_webhook_id_id", "webhook_id", "id"),
        Index("ix_webhook_messages_due", "next_at", postgresql_where=text("status = 'waiting'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)  # the header webhook-id, the same at every attempt
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    type: Mapped[str]
    payload: Mapped[dict[str, Any]]
    status: Mapped[str]  # waiting | delivered | given_up
    attempts: Mapped[int]
    next_at: Mapped[datetime | None]
    last_at: Mapped[datetime | None]
    last_status: Mapped[int | None]  # of the receiver's answer
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(index=True)
