"""Indexes of large ledgers"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_runs_seconds",
        "runs",
        ["task_key", "state", "method_name", "fit_seconds", "score_seconds"],
    )
    op.create_index(
        "ix_trials_best", "trials", ["study_id", "state", "value", "number", "failure"]
    )


def downgrade() -> None:
    op.drop_index("ix_trials_best", "trials")
    op.drop_index("ix_runs_seconds", "runs")
