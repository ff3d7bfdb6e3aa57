"""judge calls, labels and anchors"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "judge_calls",
        sa.Column("call_id", sa.String(length=32), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("rubric", sa.String(length=40), nullable=False),
        sa.Column("identity", sa.String(length=16), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("purpose", sa.String(length=10), nullable=False),
        sa.Column("session_id", sa.String(length=255), nullable=False),
        sa.Column("session_ended_at_us", sa.BigInteger(), nullable=False),
        sa.Column("input_digest", sa.String(length=64), nullable=False),
        sa.Column("org_path", sa.String(length=512), nullable=False),
        sa.Column("arm", sa.String(length=64), nullable=False),
        sa.Column("probability", sa.Float(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("batch_id", sa.String(length=128), nullable=False),
        sa.Column("reserved_microusd", sa.BigInteger(), nullable=False),
        sa.Column("cost_microusd", sa.BigInteger(), nullable=True),
        sa.Column("failure", sa.String(length=40), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("verdicts", sa.Text(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("settled_at_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("call_id", name=op.f("pk_judge_calls")),
    )
    op.create_index("ix_judge_calls_day", "judge_calls", ["day"])
    op.create_index("ix_judge_calls_state", "judge_calls", ["state"])
    op.create_index("ix_judge_calls_identity_session_id", "judge_calls", ["identity", "session_id"])
    op.create_table(
        "labels",
        sa.Column("sequence", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("session_id", sa.String(length=255), nullable=False),
        sa.Column("rubric", sa.String(length=40), nullable=False),
        sa.Column("item", sa.String(length=16), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("labeller", sa.String(length=255), nullable=False),
        sa.Column("note", sa.String(length=400), nullable=False),
        sa.Column("probability", sa.Float(), nullable=False),
        sa.Column("source", sa.String(length=40), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_labels")),
    )
    op.create_index("ix_labels_rubric_session_id", "labels", ["rubric", "session_id"])
    op.create_table(
        "judge_anchors",
        sa.Column("rubric", sa.String(length=40), nullable=False),
        sa.Column("session_id", sa.String(length=255), nullable=False),
        sa.Column("input_digest", sa.String(length=64), nullable=False),
        sa.Column("frozen_by", sa.String(length=255), nullable=False),
        sa.Column("frozen_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rubric", "session_id", name=op.f("pk_judge_anchors")),
    )


def downgrade() -> None:
    op.drop_table("judge_anchors")
    op.drop_table("labels")
    op.drop_table("judge_calls")
