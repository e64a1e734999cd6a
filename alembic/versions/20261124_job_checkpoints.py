"""checkpoints

Revision: job_checkpoints, after: uploads
"""

import sqlalchemy as sa
from alembic import op

revision = "job_checkpoints"
down_revision = "uploads"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('job_checkpoints',
    sa.Column('job_id', sa.String(), nullable=False),
    sa.Column('part', sa.String(), nullable=False),
    sa.Column('key', sa.String(), nullable=False),
    sa.Column('bytes', sa.BigInteger(), nullable=False),
    sa.Column('sha256', sa.String(), nullable=False),
    sa.Column('stage', sa.String(), nullable=False),
    sa.Column('epoch', sa.BigInteger(), nullable=False),
    sa.Column('step', sa.BigInteger(), nullable=False),
    sa.Column('event_seq', sa.BigInteger(), nullable=False),
    sa.Column('warnings', sa.BigInteger(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_job_checkpoints_job_id_jobs'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('job_id', 'part', name=op.f('pk_job_checkpoints'))
    )


def downgrade() -> None:
    op.drop_table('job_checkpoints')
