"""Plans go once they have been kept as long as the settings say; measurements stay with their model."""

from datetime import datetime

import structlog
from sqlalchemy import delete
from sqlalchemy.orm import Session, sessionmaker

from app.plans.tables import Plan

log = structlog.get_logger(__name__)


def expire_plans(sessions: sessionmaker[Session], before: datetime) -> int:
    """Delete the plans that were ready or failed before this moment; how many that were."""
    with sessions.begin() as session:
        gone = session.scalars(delete(Plan).where(Plan.finished_at < before).returning(Plan.id)).all()
    for plan_id in gone:
        log.info("plan.expired", plan=plan_id)
    return len(gone)
