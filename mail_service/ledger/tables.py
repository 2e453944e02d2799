"""
The tables. Times are text (ISO 8601, UTC, fixed width), so that they read and sort the same in SQLite and PostgreSQL.
"""

from __future__ import annotations

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()

_TIME = String(32)

#: One row per mail. A row with an ``owner`` is being attempted right now, or was when its process ended.
mail = Table(
    "mail",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("status", String(12), nullable=False),
    Column("mailer", String(200), nullable=False),
    Column("tenant", String(200)),
    Column("priority", String(8), nullable=False),
    Column("door", String(8), nullable=False),
    #: attempts since it was accepted or last replayed
    Column("attempts", Integer, nullable=False),
    #: grows with each copy that is put on its way; a copy of an older one is dropped when it arrives
    Column("generation", Integer, nullable=False),
    #: how often its process ended during an attempt, in a row
    Column("deaths", Integer, nullable=False),
    #: of the canonical message: the same id with another digest is a Conflict
    Column("digest", String(64), nullable=False),
    #: JSON, as in a record
    Column("recipients", Text, nullable=False),
    Column("submitted_at", _TIME, nullable=False),
    Column("updated_at", _TIME, nullable=False),
    Column("next_attempt_at", _TIME),
    #: set by ``reschedule``, and then goes before ``send_at``
    Column("not_before", _TIME),
    Column("error", Text),
    #: the process that attempts it, as ``host/pid/start``
    Column("owner", String(200)),
    #: when an owner on another host is given up
    Column("owned_until", _TIME),
    #: the envelope, for every mail that is neither fresh nor sent: retry_now, replay and error() need it
    Column("content", LargeBinary),
    #: while an event is being accepted: what it is recognised by when it is delivered again
    Column("intake", String(64)),
    Index("ix_mail_status_updated", "status", "updated_at"),
    Index("ix_mail_updated", "updated_at"),
    Index("ix_mail_intake", "intake"),
)

#: One row per attempt, sent or not.
attempt = Table(
    "attempt",
    metadata,
    Column("n", Integer, primary_key=True, autoincrement=True),
    Column("mail_id", String(200), ForeignKey("mail.id", ondelete="CASCADE"), nullable=False),
    Column("at", _TIME, nullable=False),
    Column("mailer", String(200), nullable=False),
    Column("diagnosis", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("milliseconds", Integer, nullable=False),
    #: JSON: address to {status, message_id, detail}
    Column("recipients", Text, nullable=False),
    Index("ix_attempt_mail_at", "mail_id", "at", unique=True),
)

#: Finds mails that were not sent at once by recipient, in any case of letters.
error_recipient = Table(
    "error_recipient",
    metadata,
    Column("mail_id", String(200), ForeignKey("mail.id", ondelete="CASCADE"), primary_key=True),
    Column("address_key", String(400), primary_key=True),
    Index("ix_error_recipient_address", "address_key"),
)

#: Callers of ``send`` who joined the wait for a mail that was already on its way.
waiter = Table(
    "waiter",
    metadata,
    Column("mail_id", String(200), primary_key=True),
    Column("routing_key", String(255), primary_key=True),
    Column("correlation_id", String(255), primary_key=True),
)

#: Mailers whose mail waits: see ``holds``.
hold = Table(
    "hold",
    metadata,
    Column("mailer", String(420), primary_key=True),
    #: empty for all mail of the mailer
    Column("sender", String(400), primary_key=True),
    Column("reason", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("since", _TIME, nullable=False),
    Column("until", _TIME, nullable=False),
)

#: Who is not mailed: see ``suppressions``.
suppression = Table(
    "suppression",
    metadata,
    #: of an address; of a domain it begins with the @
    Column("address_key", String(400), primary_key=True),
    #: empty for mail of all tenants and of none
    Column("tenant", String(200), primary_key=True),
    #: as typed
    Column("address", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", _TIME, nullable=False),
    Column("until", _TIME),
)

#: What is not attempted: see ``pauses``. Empty for whatever does not matter.
pause = Table(
    "pause",
    metadata,
    Column("mailer", String(200), primary_key=True),
    Column("tenant", String(200), primary_key=True),
    Column("priority", String(8), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("since", _TIME, nullable=False),
    Column("until", _TIME),
)

#: What one process of many does from time to time: see ``chores``.
chore = Table(
    "chore",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("done_at", _TIME),
    #: the process that does it, as ``host/pid/start``
    Column("owner", String(200)),
    #: when somebody else may
    Column("owned_until", _TIME),
)

#: What all processes share about a limit that is in use: see ``limits.bucket``.
limit_count = Table(
    "limit_count",
    metadata,
    #: such as ``mailer:default``
    Column("key", String(420), primary_key=True),
    #: seconds since the epoch
    Column("tat", Float(53), nullable=False),
    Column("day", String(10), nullable=False),
    Column("used", Integer, nullable=False),
)

#: Attempts in flight under a limit on how many there may be.
limit_slot = Table(
    "limit_slot",
    metadata,
    Column("key", String(420), primary_key=True),
    Column("mail_id", String(200), primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("owned_until", _TIME, nullable=False),
    Index("ix_limit_slot_mail", "mail_id"),
)

#: Queues in which mail may wait for its turn, so that every process takes it out of them.
turn_queue = Table(
    "turn_queue",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("key", String(420), nullable=False),
    Column("lane", String(8), nullable=False),
    Column("part", Integer, nullable=False),
)

#: One row, whose number grows with every change of what all processes have to know.
shared = Table("shared", metadata, Column("revision", Integer, nullable=False))
