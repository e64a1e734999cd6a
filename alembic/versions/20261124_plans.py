"""Plans, and the measurements that they are made from.

Revision: plans, after: job_checkpoints
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
revision = "plans"
down_revision = "job_checkpoints"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('measurements',
    sa.Column('model_id', sa.String(), nullable=False),
    sa.Column('key', sa.String(), nullable=False),
    sa.Column('dataset_id', sa.String(), nullable=True),
    sa.Column('sha256', sa.String(), nullable=False),
    sa.Column('bytes', sa.BigInteger(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['dataset_id'], ['datasets.id'], name=op.f('fk_measurements_dataset_id_datasets'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['model_id'], ['models.id'], name=op.f('fk_measurements_model_id_models'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('model_id', 'key', name=op.f('pk_measurements'))
    )
    op.create_index(op.f('ix_measurements_dataset_id'), 'measurements', ['dataset_id'], unique=False)
    op.create_index(op.f('ix_measurements_sha256'), 'measurements', ['sha256'], unique=False)
    op.create_table('plans',
    sa.Column('id', sa.String(), nullable=False),
    sa.Column('owner_id', sa.String(), nullable=False),
    sa.Column('model_id', sa.String(), nullable=False),
    sa.Column('dataset_id', sa.String(), nullable=True),
    sa.Column('compression', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
    sa.Column('status', sa.String(), nullable=False),
    sa.Column('progress', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
    sa.Column('error', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
    sa.Column('result', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('attempt', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('lease_owner', sa.String(), nullable=True),
    sa.Column('lease_expires_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('rung_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('not_before', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['dataset_id'], ['datasets.id'], name=op.f('fk_plans_dataset_id_datasets'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['model_id'], ['models.id'], name=op.f('fk_plans_model_id_models'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_plans'))
    )
    op.create_index(op.f('ix_plans_dataset_id'), 'plans', ['dataset_id'], unique=False)
    op.create_index(op.f('ix_plans_lease_expires_at'), 'plans', ['lease_expires_at'], unique=False)
    op.create_index(op.f('ix_plans_model_id'), 'plans', ['model_id'], unique=False)
    op.create_index('ix_plans_owner_id_id', 'plans', ['owner_id', 'id'], unique=False)
    op.create_index(op.f('ix_plans_status'), 'plans', ['status'], unique=False)


def downgrade() -> None:
    op.drop_index(op.f('ix_plans_status'), table_name='plans')
    op.drop_index('ix_plans_owner_id_id', table_name='plans')
    op.drop_index(op.f('ix_plans_model_id'), table_name='plans')
    op.drop_index(op.f('ix_plans_lease_expires_at'), table_name='plans')
    op.drop_index(op.f('ix_plans_dataset_id'), table_name='plans')
    op.drop_table('plans')
    op.drop_index(op.f('ix_measurements_sha256'), table_name='measurements')
    op.drop_index(op.f('ix_measurements_dataset_id'), table_name='measurements')
    op.drop_table('measurements')
