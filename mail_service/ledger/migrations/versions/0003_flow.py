"""Who is not mailed, what is paused, and mail that is put off."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TIME = sa.String(32)


def upgrade() -> None:
    op.create_table(
        "suppression",
        sa.Column("address_key", sa.String(400), primary_key=True),
        sa.Column("tenant", sa.String(200), primary_key=True),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("until", _TIME),
    )
    op.create_table(
        "pause",
        sa.Column("mailer", sa.String(200), primary_key=True),
        sa.Column("tenant", sa.String(200), primary_key=True),
        sa.Column("priority", sa.String(8), primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("until", _TIME),
    )
    op.add_column("mail", sa.Column("not_before", _TIME))


def downgrade() -> None:
    op.drop_column("mail", "not_before")
    op.drop_table("pause")
    op.drop_table("suppression")
