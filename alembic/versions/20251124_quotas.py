"""quotas: whose keys an owner may manage, limits of a key, sizes that count, room for uploads on their way

Revision: quotas, after: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "quotas"
down_revision = "0001"
branch_labels = None
depends_on = None

LIMITS = ("stored_bytes", "active_jobs", "requests_per_minute")
INSPECTED = ("models", "datasets")

# Keys made before belong to owners that the first owner made: nobody else could make any.
MADE_BY_THE_FIRST = """
UPDATE api_keys SET maker_id = first.owner_id
FROM (SELECT owner_id FROM api_keys WHERE scopes @> '["admin"]' ORDER BY id LIMIT 1) AS first
WHERE api_keys.owner_id <> first.owner_id
"""


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("maker_id", sa.String(), nullable=True))
    op.create_index(op.f("ix_api_keys_maker_id"), "api_keys", ["maker_id"], unique=False)
    op.execute(MADE_BY_THE_FIRST)
    for name in LIMITS:
        op.add_column("api_keys", sa.Column(name, sa.BigInteger(), nullable=True))
    for table in INSPECTED:
        op.add_column(table, sa.Column("canonical_bytes", sa.BigInteger(), nullable=True))
        op.create_index(op.f(f"ix_{table}_canonical_sha256"), table, ["canonical_sha256"], unique=False)
    op.create_table(
        "reservations",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("owner_id", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reservations")),
    )
    op.create_index(op.f("ix_reservations_owner_id"), "reservations", ["owner_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_reservations_owner_id"), table_name="reservations")
    op.drop_table("reservations")
    for table in INSPECTED:
        op.drop_index(op.f(f"ix_{table}_canonical_sha256"), table_name=table)
        op.drop_column(table, "canonical_bytes")
    for name in LIMITS:
        op.drop_column("api_keys", name)
    op.drop_index(op.f("ix_api_keys_maker_id"), table_name="api_keys")
    op.drop_column("api_keys", "maker_id")
