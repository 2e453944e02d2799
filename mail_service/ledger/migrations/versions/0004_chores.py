"""What one process of many does from time to time."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TIME = sa.String(32)


def upgrade() -> None:
    op.create_table(
        "chore",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("done_at", _TIME),
        sa.Column("owner", sa.String(200)),
        sa.Column("owned_until", _TIME),
    )


def downgrade() -> None:
    op.drop_table("chore")
