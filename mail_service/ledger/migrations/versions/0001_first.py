"""The first tables: mails, their attempts, who to find them by, and who waits for them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.String(32)


def upgrade() -> None:
    op.create_table(
        "mail",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("mailer", sa.String(200), nullable=False),
        sa.Column("tenant", sa.String(200)),
        sa.Column("priority", sa.String(8), nullable=False),
        sa.Column("door", sa.String(8), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("deaths", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("recipients", sa.Text, nullable=False),
        sa.Column("submitted_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("next_attempt_at", _TIME),
        sa.Column("error", sa.Text),
        sa.Column("owner", sa.String(200)),
        sa.Column("owned_until", _TIME),
        sa.Column("content", sa.LargeBinary),
        sa.Column("intake", sa.String(64)),
    )
    op.create_index("ix_mail_status_updated", "mail", ["status", "updated_at"])
    op.create_index("ix_mail_updated", "mail", ["updated_at"])
    op.create_index("ix_mail_intake", "mail", ["intake"])
    op.create_table(
        "attempt",
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("mail_id", sa.String(200), sa.ForeignKey("mail.id", ondelete="CASCADE"), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("mailer", sa.String(200), nullable=False),
        sa.Column("diagnosis", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("milliseconds", sa.Integer, nullable=False),
        sa.Column("recipients", sa.Text, nullable=False),
    )
    op.create_index("ix_attempt_mail_at", "attempt", ["mail_id", "at"], unique=True)
    op.create_table(
        "error_recipient",
        sa.Column("mail_id", sa.String(200), sa.ForeignKey("mail.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("address_key", sa.String(400), primary_key=True),
    )
    op.create_index("ix_error_recipient_address", "error_recipient", ["address_key"])
    op.create_table(
        "waiter",
        sa.Column("mail_id", sa.String(200), primary_key=True),
        sa.Column("routing_key", sa.String(255), primary_key=True),
        sa.Column("correlation_id", sa.String(255), primary_key=True),
    )


def downgrade() -> None:
    for table in ("waiter", "error_recipient", "attempt", "mail"):
        op.drop_table(table)
