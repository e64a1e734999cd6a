"""Indices for lists and sweeps among very many ended jobs; three that nothing asked go.

Revision: job_indices, after: owner_status
"""

from alembic import op

revision = "job_indices"
down_revision = "owner_status"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_jobs_owner_id_status_id", "jobs", ["owner_id", "status", "id"])
    op.create_index("ix_jobs_status_created_at", "jobs", ["status", "created_at"])
    op.create_index("ix_jobs_finished_at", "jobs", ["finished_at"])
    for name in ("ix_jobs_owner_id_status", "ix_jobs_status_rung_at", "ix_jobs_status", "ix_jobs_created_at"):
        op.drop_index(name, table_name="jobs")


def downgrade() -> None:
    op.create_index("ix_jobs_created_at", "jobs", ["created_at"])
    op.create_index("ix_jobs_status", "jobs", ["status"])
    op.create_index("ix_jobs_status_rung_at", "jobs", ["status", "rung_at"])
    op.create_index("ix_jobs_owner_id_status", "jobs", ["owner_id", "status"])
    for name in ("ix_jobs_finished_at", "ix_jobs_status_created_at", "ix_jobs_owner_id_status_id"):
        op.drop_index(name, table_name="jobs")
