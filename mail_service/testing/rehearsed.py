"""What the rehearsal mailer of a running service took, read from its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from os import PathLike
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """A mail that a mailer handed over: envelope and content."""

    sender: str
    #: bare addresses
    recipients: tuple[str, ...]
    message_id: str
    #: seconds since the epoch
    at: float
    #: as Python's email package reads it
    email: EmailMessage


def rehearsed(folder: str | PathLike[str]) -> list[Rehearsed]:
    """Return the mails in *folder*, in the order in which they were taken; none if there is no such folder yet."""
    log = Path(folder) / "outbox.jsonl"
    if not log.exists():
        return []
    # the last line may be half written
    lines = [line for line in log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return [_read(Path(folder), json.loads(line)) for line in lines]


def _read(folder: Path, facts: dict[str, object]) -> Rehearsed:
    content = (folder / str(facts["file"])).read_bytes()
    to = facts["to"]
    return Rehearsed(
        sender=str(facts["from"]),
        recipients=tuple(to) if isinstance(to, list) else (),
        message_id=str(facts["message_id"]),
        at=float(str(facts["at"])),
        email=message_from_bytes(content, policy=policy.default),
    )
