"""Drivers, and what they hold"""

import sqlalchemy as sa
from alembic import op

from bhnbench.ledger.models import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "drivers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drivers")),
    )
    op.add_column("studies", sa.Column("driver_id", sa.Integer(), nullable=True))
    op.add_column("runs", sa.Column("driver_id", sa.Integer(), nullable=True))
    op.add_column(
        "runs", sa.Column("n_killed", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )


def downgrade() -> None:
    op.drop_column("runs", "n_killed")
    op.drop_column("runs", "driver_id")
    op.drop_column("studies", "driver_id")
    op.drop_table("drivers")
