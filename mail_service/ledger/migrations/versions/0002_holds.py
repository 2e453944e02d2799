"""Mailers that are held, and the revision by which every process hears of a change."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "hold",
        sa.Column("mailer", sa.String(420), primary_key=True),
        sa.Column("sender", sa.String(400), primary_key=True),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("since", sa.String(32), nullable=False),
        sa.Column("until", sa.String(32), nullable=False),
    )
    shared = op.create_table("shared", sa.Column("revision", sa.Integer, nullable=False))
    op.bulk_insert(shared, [{"revision": 0}])


def downgrade() -> None:
    op.drop_table("shared")
    op.drop_table("hold")
