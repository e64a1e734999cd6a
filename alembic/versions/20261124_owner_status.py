"""an index for counting an owner's jobs that wait or run

Revision: owner_status, after: plans
"""

from alembic import op

revision = "owner_status"
down_revision = "plans"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_jobs_owner_id_status", "jobs", ["owner_id", "status"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_jobs_owner_id_status", table_name="jobs")
