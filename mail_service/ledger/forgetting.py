"""
Forget a recipient: whatever is stored about one address in mail that is over.

Sent mail is found by nothing but its rows, so all of them are read, a slice at a time; rows are changed a few at a
time, so that the deliveries go on meanwhile. What remains says when a mail was sent and how it went, to nobody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mail_service.ledger import tables
from mail_service.ledger.database import Database
from mail_service.ledger.ledger import recipient_key
from mail_service.ledger.records import RAW
from mail_service.ledger.suppressions import key_of
from mail_service.outcome import FINAL

#: rows that are read at a time, and rows that are changed in one transaction
READ_SLICE, WRITE_SLICE = 2_000, 100
#: what stands where something was
FORGOTTEN = "[forgotten]"
#: RFC 2606, 2: no address in it can exist
_NOBODY = "forgotten-{}@redacted.invalid"

_mail = tables.mail.c
_final = [str(status) for status in FINAL]


@dataclass(frozen=True, slots=True)
class _Wish:
    address: str
    ids: Sequence[str]


def forget(database: Database, address: str) -> int:
    """
    Redact what is stored about *address* in mail that is final; answers in how many mails. Raises StoreDown.

    Each of them loses its content for all its recipients: a message may name anybody. It cannot be replayed any more.
    """
    count, last = 0, ""
    while slice_ := database.read(partial(_slice, after=last)):
        ids = [row.id for row in slice_ if _is_about(row, address)]
        for start in range(0, len(ids), WRITE_SLICE):
            count += database.write(_forget_all, _Wish(address, ids[start : start + WRITE_SLICE]))
        last = slice_[-1].id
    return count


def _slice(connection: Connection, after: str) -> Sequence[Any]:
    # the content of what is no mail is all there is to find it by
    raw = sa.case((_mail.door == RAW, _mail.content), else_=None).label("raw")
    query = sa.select(_mail.id, _mail.recipients, raw).where(_mail.id > after, _mail.status.in_(_final))
    return connection.execute(query.order_by(_mail.id).limit(READ_SLICE)).all()


def _is_about(row: Any, address: str) -> bool:
    wanted = key_of(address)
    if row.raw is not None and address.encode().lower() in bytes(row.raw).lower():
        return True
    return any(key_of(each) == wanted for each in json.loads(row.recipients))


def _forget_all(connection: Connection, wishes: Sequence[_Wish]) -> list[int]:
    return [sum(_forget(connection, mail_id, wish.address) for mail_id in wish.ids) for wish in wishes]


def _forget(connection: Connection, mail_id: str, address: str) -> int:
    query = sa.select(_mail.status, _mail.recipients, _mail.error, _mail.owner).where(_mail.id == mail_id)
    row = connection.execute(query.with_for_update()).first()
    if row is None or row.status not in _final or row.owner is not None:
        # a replay has put it on its way
        return 0
    recipients = json.loads(row.recipients)
    redact = _Redaction(address, recipients)
    values = {"recipients": redact.states(recipients), "error": redact.text(row.error), "content": None}
    connection.execute(sa.update(tables.mail).where(_mail.id == mail_id).values(values))
    attempt = tables.attempt.c
    for each in connection.execute(sa.select(tables.attempt).where(attempt.mail_id == mail_id)).all():
        values = {"recipients": redact.states(json.loads(each.recipients)), "text": redact.text(each.text)}
        connection.execute(sa.update(tables.attempt).where(attempt.n == each.n).values(values))
    found = tables.error_recipient.c
    keys = [recipient_key(each) for each in redact.names]
    connection.execute(sa.delete(tables.error_recipient).where(found.mail_id == mail_id, found.address_key.in_(keys)))
    return 1


class _Redaction:
    """Of one mail: the same name for the same recipient everywhere in it."""

    def __init__(self, address: str, recipients: Mapping[str, Any]) -> None:
        wanted = key_of(address)
        number = sum(each.endswith(_NOBODY.partition("@")[2]) for each in recipients)
        #: what each of the recipient's spellings becomes
        self.names: dict[str, str] = {}
        for each in recipients:
            if key_of(each) == wanted:
                number += 1
                self.names[each] = _NOBODY.format(number)
        spellings = sorted({address, *self.names}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, spellings)), re.IGNORECASE)

    def text(self, text: str | None) -> str | None:
        """*text*, without the address in any case of letters."""
        return None if text is None else self._pattern.sub(FORGOTTEN, text)

    def states(self, states: Mapping[str, Mapping[str, Any]]) -> str:
        """The JSON of recipients' states; the recipient's own keeps nothing but its status."""
        redacted = {
            self.names.get(address, address): {**state, "message_id": None, "detail": FORGOTTEN}
            if address in self.names
            else {**state, "detail": self.text(state.get("detail"))}
            for address, state in states.items()
        }
        return json.dumps(redacted, separators=(",", ":"))
