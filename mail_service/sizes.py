"""
How large a message RabbitMQ takes: the one rule by which clients and the service refuse what could not be retried.

A broker closes the channel at a message that is too large, and cannot be asked for its ``max_message_size``. So its
version's default is believed, until it has refused something smaller. A limit that somebody raised is not made use of:
what one process knows of it, the next one, which has to put the mail's next copy into a queue, does not.
"""

from __future__ import annotations

import re

#: bytes, unless ``max_message_size`` says otherwise
LARGEST = 16 * 1024 * 1024
_LARGEST_BEFORE_4 = 128 * 1024 * 1024
#: Bytes by which a mail's later copies may be larger than its first one: outcomes of recipients, and what the database
#: could not take.
ROOM_TO_GROW = 256 * 1024

#: RabbitMQ 3.10: "message size 17 is larger than max size 16"; 4.0: "... larger than configured max size 16"
_REFUSED = re.compile(r"larger than .*?max size (\d+)")


def largest_of(version: object) -> int:
    """Bytes of the largest message that a RabbitMQ of this *version* takes; of an unknown one, the least."""
    major = str(version).partition(".")[0]
    return _LARGEST_BEFORE_4 if major.isdigit() and int(major) < 4 else LARGEST


def refused_above(reply_text: str | None) -> int | None:
    """The limit that RabbitMQ names when it refuses a message for its size; None when it says something else."""
    found = _REFUSED.search(reply_text or "")
    return int(found[1]) if found else None


def too_large(size: int, largest: int) -> str:
    """The end of a sentence about a message of *size* bytes that has no place in a queue."""
    return (
        f"takes {size:,} bytes in a queue, and the broker takes at most {largest:,} (max_message_size), of which "
        f"{ROOM_TO_GROW:,} are for what retries add: configure mail.blobs, make its attachments smaller, or send links"
    )
