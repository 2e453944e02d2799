"""Limits: how far each is used, who is under way, and where mail waits for its turn."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "limit_count",
        sa.Column("key", sa.String(420), primary_key=True),
        sa.Column("tat", sa.Float(53), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("used", sa.Integer, nullable=False),
    )
    op.create_table(
        "limit_slot",
        sa.Column("key", sa.String(420), primary_key=True),
        sa.Column("mail_id", sa.String(200), primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("owned_until", sa.String(32), nullable=False),
    )
    op.create_index("ix_limit_slot_mail", "limit_slot", ["mail_id"])
    op.create_table(
        "turn_queue",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("key", sa.String(420), nullable=False),
        sa.Column("lane", sa.String(8), nullable=False),
        sa.Column("part", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("turn_queue")
    op.drop_table("limit_slot")
    op.drop_table("limit_count")
