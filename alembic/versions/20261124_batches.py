"""batches, and whose turn it is

Revision: batches, after: job_indices
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "batches"
down_revision = "job_indices"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("owner_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("on_error", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("invalid", sa.BigInteger(), nullable=False),
        sa.Column("errors", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
    )
    op.create_index("ix_batches_owner_id_id", "batches", ["owner_id", "id"], unique=False)
    op.create_table(
        "turns",
        sa.Column("owner_id", sa.String(), nullable=False),
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("served_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "batch_id", name=op.f("pk_turns")),
    )
    op.create_index(op.f("ix_turns_served_at"), "turns", ["served_at"], unique=False)
    op.add_column("jobs", sa.Column("batch_line", sa.BigInteger(), nullable=True))
    op.drop_index("ix_jobs_batch_id", table_name="jobs")
    op.create_index("ix_jobs_batch_id_id", "jobs", ["batch_id", "id"], unique=False)
    op.create_index("ix_jobs_batch_id_status", "jobs", ["batch_id", "status"], unique=False)
    op.create_index(
        "ix_jobs_waiting",
        "jobs",
        ["owner_id", "batch_id", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.create_foreign_key(op.f("fk_jobs_batch_id_batches"), "jobs", "batches", ["batch_id"], ["id"])


def downgrade() -> None:
    op.drop_constraint(op.f("fk_jobs_batch_id_batches"), "jobs", type_="foreignkey")
    op.drop_index("ix_jobs_waiting", table_name="jobs")
    op.drop_index("ix_jobs_batch_id_status", table_name="jobs")
    op.drop_index("ix_jobs_batch_id_id", table_name="jobs")
    op.create_index("ix_jobs_batch_id", "jobs", ["batch_id"], unique=False)
    op.drop_column("jobs", "batch_line")
    op.drop_index(op.f("ix_turns_served_at"), table_name="turns")
    op.drop_table("turns")
    op.drop_index("ix_batches_owner_id_id", table_name="batches")
    op.drop_table("batches")
