"""What became of mails, read where nobody can pretend: the logs of the mail servers, and the tables of the ledger."""

from __future__ import annotations

import base64
import re
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mail_service.ledger import tables
from mail_service.local.scripted import LogReader
from mail_service.outcome import FINAL, Status

from .counting import Known

#: an address of the traffic: fate, id
_ADDRESS = re.compile(r"[a-z]+-([a-z0-9-]+)@example\.org")
_MESSAGE_ID = re.compile(rb"^message-id:[ \t\r\n]*(\S+)", re.IGNORECASE | re.MULTILINE)

#: a mail's id, and the Message-ID of the copy
Copy = tuple[str, str | None]


class Taken:
    """The copies that SMTP and HTTP servers took, by the mail's id. The folders are the servers'. For any thread."""

    def __init__(self, *folders: Path) -> None:
        self._logs = [LogReader(folder / "log.jsonl", _copies) for folder in folders]
        self._found: dict[str, list[str | None]] = defaultdict(list)
        self._copies = 0
        self._lock = threading.Lock()

    def count(self) -> int:
        """How many copies there are."""
        self._read()
        return self._copies

    def all(self) -> Mapping[str, Sequence[str | None]]:
        """The Message-ID of each copy."""
        self._read()
        return self._found

    def _read(self) -> None:
        with self._lock:
            for copies in (copies for log in self._logs for copies in log.take()):
                for mail_id, message_id in copies:
                    self._found[mail_id].append(message_id)
                    self._copies += 1


def _copies(entry: dict[str, Any]) -> list[Copy]:
    if entry.get("what") == "accepted":
        found = _MESSAGE_ID.search(base64.b64decode(entry["data"]))
        message_id = found[1].decode() if found else None
        return [(_mail_id(address), message_id) for address in entry["rcpt_tos"]]
    if entry.get("status") == 200:
        return [(_mail_id(base64.b64decode(entry["body"]).decode()), None)]
    return []


def _mail_id(text: str) -> str:
    found = _ADDRESS.search(text)
    assert found, "no mail of ours"
    return found[1]


class Rows:
    """The ledger's tables, at the URL that the service has."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, poolclass=sa.pool.NullPool)

    def count(self, name: str) -> tuple[int, int]:
        """How many mails of a traffic are final, and how many are known."""
        mail = tables.mail.c
        query = sa.select(sa.func.count(), sa.func.count().filter(mail.status.in_(list(map(str, FINAL)))))
        with self._engine.connect() as connection:
            known, final = connection.execute(query.where(mail.id.like(f"{name}-%"))).one()
        return final, known

    def all(self, name: str) -> Mapping[str, Known]:
        """What is known of the mails of a traffic."""
        with self._engine.connect() as connection:
            return known_in(connection, name)


def known_in(connection: sa.Connection, name: str) -> Mapping[str, Known]:
    """What the ledger says of the mails whose ids begin with *name* and a dash."""
    mail, attempt = tables.mail.c, tables.attempt.c
    mails = sa.select(mail.id, mail.status, mail.content.is_not(None)).where(mail.id.like(f"{name}-%"))
    unknown = sa.select(attempt.mail_id, sa.func.count()).where(attempt.diagnosis == "unknown")
    counted: dict[str, int] = dict(iter(connection.execute(unknown.group_by(attempt.mail_id))))
    return {
        mail_id: Known(status=Status(status), unknown=counted.get(mail_id, 0), has_content=has_content)
        for mail_id, status, has_content in connection.execute(mails)
    }
