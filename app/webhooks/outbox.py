"""Messages for webhooks, in the transaction that makes true what they tell: none is lost, none is wrong."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from app.batches.tables import Batch
from app.core.ids import new_id
from app.core.schemas import utc_text
from app.jobs.states import JobStatus
from app.jobs.tables import Job
from app.webhooks.tables import Webhook, WebhookMessage


def jobs_ended(session: Session, job_ids: Sequence[str], status: JobStatus, now: datetime) -> None:
    """`job.succeeded`, `job.failed` or `job.cancelled` for each webhook that wants it."""
    type_ = f"job.{status.value}"
    rows = session.execute(
        select(Webhook.id.label("webhook"), Job.id, Job.kind, Job.name, Job.model_id, Job.batch_id, Job.error)
        .join(Webhook, Webhook.owner_id == Job.owner_id)
        .where(Job.id.in_(job_ids), Webhook.events.contains([type_]), Webhook.disabled_at.is_(None))
    )
    messages = []
    for row in rows:
        data = {
            "id": row.id,
            "object": "job",
            "kind": row.kind,
            "name": row.name,
            "model": row.model_id,
            "batch": row.batch_id,
            "status": status.value,
            "error": None if row.error is None else row.error.get("code"),
        }
        messages.append(message(row.webhook, type_, data, now))
    _add(session, messages)


def batch_completed(session: Session, batch: Batch, counts: dict[str, int], now: datetime) -> None:
    """`batch.completed` for each webhook that wants it."""
    type_ = "batch.completed"
    wanting = select(Webhook.id).where(
        Webhook.owner_id == batch.owner_id, Webhook.events.contains([type_]), Webhook.disabled_at.is_(None)
    )
    data = {
        "id": batch.id,
        "object": "batch",
        "name": batch.name,
        "status": batch.status,
        "counts": counts | {"total": batch.total, "invalid": batch.invalid},
    }
    _add(session, [message(webhook_id, type_, data, now) for webhook_id in session.scalars(wanting)])


def message(webhook_id: str, type_: str, data: dict[str, Any], now: datetime) -> dict[str, Any]:
    """A row; its payload is the body that Standard Webhooks proposes."""
    return {
        "id": new_id("message", now),
        "webhook_id": webhook_id,
        "type": type_,
        "payload": {"type": type_, "timestamp": utc_text(now), "data": data},
        "status": "waiting",
        "attempts": 0,
        "next_at": now,
        "created_at": now,
    }


def _add(session: Session, messages: list[dict[str, Any]]) -> None:
    if messages:
        session.execute(insert(WebhookMessage), messages)
