"""
What operators do with mails that failed or wait: put them back on their way, attempt them now, look after the parts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import eventlet
from kombu import Connection

from mail_service.amqp.mailqueue import MailQueue
from mail_service.arguments import as_id
from mail_service.delivery.releasing import Releaser, restored
from mail_service.doors.accepting import Acceptance
from mail_service.errors import Conflict, InvalidMessage, NotFound
from mail_service.ledger import Ledger
from mail_service.ledger.errorlog import ENTRY_STATUSES, FINAL_STATUSES, ErrorLog, Filter
from mail_service.ledger.holdings import Hold, Holdings
from mail_service.ledger.pauses import Pause
from mail_service.ledger.records import Mail
from mail_service.mailers import Mailer
from mail_service.outcome import Status

#: entries that ``replay(all=True)`` means: who marked one as dealt with does not want it sent
_UNDISCARDED = tuple(status for status in ENTRY_STATUSES if status != Status.DISCARDED)
_WITHOUT_CONTENT = (
    "since nothing of its message is kept: dropped as retention says, or forgotten; or it was cancelled and no worker "
    "has seen it yet"
)
#: of one part's check, seconds
HEALTH_TIMEOUT_S = 5


class Operator:
    """Everything that is asked for by id or by filter."""

    def __init__(  # noqa: PLR0917 - all that an operator may touch
        self,
        ledger: Ledger,
        error_log: ErrorLog,
        queue: MailQueue,
        acceptance: Acceptance,
        holdings: Holdings,
        releaser: Releaser,
    ) -> None:
        self._ledger = ledger
        self._error_log = error_log
        self._queue = queue
        self._acceptance = acceptance
        self._holdings = holdings
        self._releaser = releaser

    def status(self, mail_id: Any) -> dict[str, Any]:
        """The record. Raises NotFound."""
        mail = self._ledger.find(as_id(mail_id))
        if mail is None:
            raise NotFound(f"no mail has the id {mail_id!r}")
        return mail.record()

    def errors(self, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Records of the error log."""
        return self._error_log.find(Filter.parse(filters, also=("limit", "after")))

    def error(self, mail_id: Any) -> dict[str, Any]:
        """One entry, whole. Raises NotFound."""
        return self._error_log.entry(as_id(mail_id))

    def replay(self, mail_id: Any, filters: Mapping[str, Any]) -> list[str]:
        """Put entries back on their way; answers their ids."""
        wanted = _meant(mail_id, filters, "replay")
        return self._replay_one(wanted) if isinstance(wanted, str) else self._replay_all(wanted)

    def _replay_one(self, mail_id: str) -> list[str]:
        for mail, content in self._error_log.contents(mail_id, ENTRY_STATUSES):
            if not content and not mail.is_raw:
                raise Conflict(f"mail {mail_id!r} cannot be replayed, {_WITHOUT_CONTENT}")
            self._put_back(mail, content)
            return [mail.id]
        if self.status(mail_id)["status"] == Status.SENT:
            raise NotFound(f"the error log has no entry for {mail_id!r}: the mail was sent")
        return []

    def _replay_all(self, wanted: Filter) -> list[str]:
        """Entries that were never a mail that could be sent are left out: there is nothing to put on its way."""
        replayed = []
        for mail, content in self._error_log.contents(wanted, ENTRY_STATUSES if wanted.status else _UNDISCARDED):
            with contextlib.suppress(InvalidMessage, Conflict):
                self._put_back(mail, content)
                replayed.append(mail.id)
        return replayed

    def discard(self, mail_id: Any, filters: Mapping[str, Any]) -> list[str]:
        """Mark entries as dealt with; answers their ids."""
        return self._error_log.discard(_meant(mail_id, filters, "discard"))

    def purge(self, older_than_days: Any, status: Any) -> int:
        """Delete old final mails; answers how many."""
        if isinstance(older_than_days, bool) or not isinstance(older_than_days, int | float) or older_than_days < 0:
            raise InvalidMessage("older_than_days", "has to be a number of days, 0 or more")
        if older_than_days > 365_000:
            raise InvalidMessage("older_than_days", "has to be at most 365000")
        if status != "all" and status not in FINAL_STATUSES:
            raise InvalidMessage("status", f"has to be one of {', '.join(FINAL_STATUSES)} or all")
        return self._error_log.purge(older_than_days=older_than_days, status=status)

    def retry_now(self, filters: Mapping[str, Any]) -> int:
        """Attempt waiting mail now; answers how many."""
        wanted = Filter.parse(filters)
        # who asks for an attempt now means those, too, whose mailer is held: the first of them is a probe
        self._holdings.probe_now()
        count = 0
        for mail, content in self._error_log.contents(wanted, (Status.DEFERRED, Status.HELD)):
            self._releaser.bring(mail, content)
            count += 1
        return count

    def _put_back(self, mail: Mail, content: bytes) -> None:
        """The copy first: if nothing else happens, it reopens the mail by itself when it arrives."""
        mail = mail.reopened(mail.generation + 1)
        if mail.is_raw:
            envelope, mail = self._acceptance.again(mail, content)
        else:
            envelope = restored(content, mail)
        if envelope.redacted:
            raise Conflict(f"mail {mail.id!r} cannot be replayed: what it said was redacted when it ended (retention)")
        self._queue.put(envelope, mail, replay=True)
        self._error_log.put_back(mail)


def _meant(mail_id: Any, filters: Mapping[str, Any], verb: str) -> Filter | str:
    """An id, a filter, or everything; by mistake everything is never meant."""
    everything = filters.get("all")
    filters = {name: value for name, value in filters.items() if name != "all" and value is not None}
    if everything not in (None, True, False):
        raise InvalidMessage("all", "has to be true or false")
    if mail_id is not None:
        if filters or everything:
            raise InvalidMessage("id", "cannot be combined with a filter")
        return as_id(mail_id)
    if not filters and not everything:
        raise InvalidMessage("id", f"is missing: name one, a filter, or all=True to {verb} every entry")
    return Filter.parse(filters)


def health(
    connect: Callable[[], Connection],
    check_database: Callable[[], None],
    mailers: Mapping[str, Mailer],
    holds: Sequence[Hold] = (),
    pauses: Sequence[Pause] = (),
    *,
    limits: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """
    Ask every part at once how it is: ``{"broker": {"ok", "text"}, "database": …, "mailer default": …}``.

    A mailer that is held is not asked: its next mail is. Where something is paused, or waits because of a limit, the
    parts ``pauses`` and ``limits`` say so, which is no fault.
    """
    checks: dict[str, Callable[[], str]] = {
        "broker": lambda: _check_broker(connect),
        "database": lambda: _check_database(check_database),
    }
    held = {f"mailer {hold.mailer}": _as_part(hold) for hold in holds if not hold.sender}
    checks |= {f"mailer {name}": mailer.check for name, mailer in mailers.items() if f"mailer {name}" not in held}
    greenlets = {name: eventlet.spawn(_checked, check) for name, check in checks.items()}
    return {name: greenlet.wait() for name, greenlet in greenlets.items()} | held | _paused(pauses) | _limited(limits)


def _as_part(hold: Hold) -> dict[str, Any]:
    return {"ok": False, "text": f"held since {hold.since} ({hold.reason}): {hold.text[:300]}"}


def _paused(pauses: Sequence[Pause]) -> dict[str, dict[str, Any]]:
    return {"pauses": {"ok": True, "text": "; ".join(pause.text for pause in pauses)}} if pauses else {}


def _limited(limits: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {"limits": {"ok": True, "text": "; ".join(limits)}} if limits else {}


def _check_database(check: Callable[[], None]) -> str:
    check()
    return "answers"


def _check_broker(connect: Callable[[], Connection]) -> str:
    with connect() as connection:
        connection.connect()
        version = connection.connection.server_properties.get("version", "")
    return f"RabbitMQ {version} answers"


def _checked(check: Callable[[], str]) -> dict[str, Any]:
    try:
        with eventlet.Timeout(HEALTH_TIMEOUT_S, TimeoutError(f"no answer within {HEALTH_TIMEOUT_S} s")):
            return {"ok": True, "text": check()}
    except Exception as exc:
        error = getattr(exc, "error", exc)
        return {"ok": False, "text": f"{type(error).__name__}: {str(error)[:300]}"}
