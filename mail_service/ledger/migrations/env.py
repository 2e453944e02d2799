"""Runs inside the transaction that mail_service.ledger.database opened for it."""

from alembic import context

from mail_service.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
