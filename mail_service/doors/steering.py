"""
Steer the flow of mail: whom not to mail, what to pause, and what becomes of one mail that waits; and explain it.

Everything works at once in all processes: a suppression, a pause and a change of a waiting mail are in the database
when they are answered, and each attempt looks there first.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mail_service import clock
from mail_service.arguments import (
    LARGEST_PAGE,
    as_address,
    as_id,
    as_limit,
    as_moment_after,
    as_name,
    as_reason,
    as_time,
    is_text,
)
from mail_service.delivery.announcing import Announcer
from mail_service.delivery.releasing import Releaser
from mail_service.doors.explaining import explain
from mail_service.errors import InvalidMessage
from mail_service.holds import Pauses
from mail_service.ledger.database import Database, StoreDown
from mail_service.ledger.forgetting import forget
from mail_service.ledger.histories import history
from mail_service.ledger.holdings import Hold
from mail_service.ledger.pauses import Criteria, Pause, PauseList
from mail_service.ledger.records import Suppression
from mail_service.ledger.suppressions import Suppressions
from mail_service.ledger.waiting import WaitingMail
from mail_service.logs import say
from mail_service.settings import Settings
from mail_service.topology import LANES

_log = logging.getLogger(__name__)

#: what an entry of the list may say
_ENTRY = ("address", "tenant", "reason", "since", "until")


class Steering:
    """All methods raise InvalidMessage for an argument that cannot be used, and StoreDown."""

    def __init__(  # noqa: PLR0917 - all that the flow is steered by
        self,
        settings: Settings,
        database: Database,
        pause_list: PauseList,
        pauses: Pauses,
        holds_of: Callable[[str, str | None], Sequence[Hold]],
        releaser: Releaser,
        announcer: Announcer,
    ) -> None:
        self._settings = settings
        self._database = database
        self._pause_list = pause_list
        self._pauses = pauses
        self._holds_of = holds_of
        self._releaser = releaser
        self._announcer = announcer
        self._suppressions = Suppressions(database)
        self._waiting = WaitingMail(database, keeps=settings.content_of)

    def suppress(self, address: Any, reason: Any, tenant: Any, until: Any) -> dict[str, Any]:
        """Put an address, or a domain (``@example.org``), on the list; answers the entry."""
        entry = _entry(address, reason=reason, tenant=tenant, until=until)
        self._suppressions.put([entry])
        # an address is nothing for a log
        say(_log, logging.INFO, "an entry was put on the list of those who are not mailed", event="suppressed")
        return asdict(entry)

    def suppress_many(self, entries: Any) -> list[dict[str, Any]]:
        """Put many on the list at once; an entry or an error for each, in order. A bad one does not stop the others."""
        if not isinstance(entries, list) or len(entries) > LARGEST_PAGE:
            raise InvalidMessage("entries", f"has to be a list of at most {LARGEST_PAGE} objects")
        answers = [_entry_or_error(item) for item in entries]
        good = [answer for answer in answers if isinstance(answer, Suppression)]
        self._suppressions.put(good)
        text = "%(count)d entries were put on the list of those who are not mailed"
        say(_log, logging.INFO, text, event="suppressed", count=len(good))
        return [asdict(answer) if isinstance(answer, Suppression) else answer for answer in answers]

    def unsuppress(self, address: Any, tenant: Any) -> bool:
        """Take an entry off the list. Answers whether it was there."""
        removed = self._suppressions.remove(as_address(address, or_domain=True), as_name("tenant", tenant))
        if removed:
            say(_log, logging.INFO, "an entry was taken off the list of those who are not mailed", event="unsuppressed")
        return removed

    def suppressions(self, limit: Any, after: Any, tenant: Any, domain: Any) -> list[dict[str, Any]]:
        """
        The list, in the order of the addresses; *after* is the last address seen.

        *tenant* and *domain* are for the entries about that tenant's mail alone, and in that domain.
        """
        if after is not None and not is_text(after):
            raise InvalidMessage("after", "has to be an address, the last one seen")
        if is_text(domain):
            domain = as_address(f"@{domain.strip().removeprefix('@')}", or_domain=True)
        elif domain is not None:
            raise InvalidMessage("domain", "has to be a domain such as example.org")
        page = self._suppressions.page(as_limit(limit), after, tenant=as_name("tenant", tenant), domain=domain)
        return [asdict(entry) for entry in page]

    def pause(self, criteria: Mapping[str, Any], seconds: Any, reason: Any) -> dict[str, Any]:
        """Hold what *criteria* (mailer, tenant, priority) name; answers the pause. None of them: all mail."""
        wanted = self._criteria(criteria)
        pause = Pause(
            **asdict(wanted),
            reason=as_reason(reason),
            since=clock.now_iso(),
            until=None if seconds is None else as_moment_after(seconds),
        )
        self._pause_list.put(pause)
        say(_log, logging.WARNING, "paused: %(scope)s", event="paused", scope=wanted.loggable, until=pause.until)
        return asdict(pause)

    def resume(self, criteria: Mapping[str, Any], seconds: Any) -> list[dict[str, Any]]:
        """End the pauses that have all of what *criteria* name, now or in so many seconds; answers them."""
        wanted = self._criteria(criteria)
        if seconds is not None:
            return [asdict(pause) for pause in self._pause_list.end_later(wanted, as_moment_after(seconds))]
        ended = self._pause_list.end(wanted)
        with contextlib.suppress(StoreDown):
            # who lets mail go looks whether it is paused again
            self._pauses.all()
        self._pauses.ended(ended)
        return [asdict(pause) for pause in ended]

    def pauses(self) -> list[dict[str, Any]]:
        """All pauses, oldest first."""
        return [asdict(pause) for pause in self._pauses.all()]

    def cancel(self, mail_id: Any) -> dict[str, Any]:
        """End a mail that waits as ``discarded``; answers its record. Raises NotFound or Conflict."""
        cancelled = self._waiting.cancel(as_id(mail_id))
        self._announcer.change(cancelled.mail, cancelled.waiters)
        return cancelled.mail.record()

    def reschedule(self, mail_id: Any, at: Any) -> dict[str, Any]:
        """Have a mail that waits attempted at *at*, and not before; answers its record. Raises NotFound or Conflict."""
        until = as_time("at", at)
        wanted = as_id(mail_id)
        expires_at = history(self._database, wanted).expires_at
        if expires_at is not None and expires_at <= until:
            raise InvalidMessage("at", f"is not before the mail's expires_at, {expires_at}")
        changed = self._waiting.put_off(wanted, until)
        if changed.content:
            delay_ms = max(0, clock.to_ms(clock.parse(until)) - clock.now_ms())
            self._releaser.bring_later(changed.mail, changed.content, delay_ms)
        return changed.mail.record()

    def explain(self, mail_id: Any) -> dict[str, Any]:
        """The story of a mail. Raises NotFound."""
        known = history(self._database, as_id(mail_id))
        return explain(
            known,
            pauses=self._pauses.all(),
            holds=self._holds_of(known.mail.mailer, known.mail.tenant),
            attempt_timeout_s=self._settings.attempt_timeout,
        )

    def forget(self, address: Any) -> int:
        """Redact what is stored about a recipient in mail that is over; answers in how many mails."""
        count = forget(self._database, as_address(address))
        say(_log, logging.INFO, "a recipient was forgotten in %(count)d mails", event="forgotten", count=count)
        return count

    def _criteria(self, given: Mapping[str, Any]) -> Criteria:
        criteria = Criteria(**{name: as_name(name, value) for name, value in given.items()})
        if criteria.priority not in (None, *LANES):
            raise InvalidMessage("priority", f"has to be one of {', '.join(LANES)}")
        if criteria.mailer is not None and self._is_unknown(criteria.mailer):
            # a pause with a slip of the pen would stop nothing, when it matters most
            raise InvalidMessage("mailer", "there is no mailer of this name in mail.mailers")
        return criteria

    def _is_unknown(self, mailer: str) -> bool:
        settings = self._settings
        known = {*settings.mailers, *(name for mailers in settings.tenants.values() for name in mailers)}
        return mailer not in known and not settings.tenant_mailers


def _entry_or_error(item: Any) -> Suppression | dict[str, Any]:
    try:
        return _read_entry(item)
    except InvalidMessage as exc:
        return {"error": {"type": "InvalidMessage", "message": str(exc), "field": exc.field}}


def _read_entry(item: Any) -> Suppression:
    if not isinstance(item, dict):
        raise InvalidMessage("entry", "has to be an object with an address")
    if unknown := sorted(map(str, item.keys() - _ENTRY)):
        raise InvalidMessage(unknown[0], f"is unknown; an entry has {', '.join(_ENTRY)}")
    return _entry(**{name: item.get(name) for name in _ENTRY})


def _entry(address: Any, *, reason: Any, tenant: Any, until: Any, since: Any = None) -> Suppression:
    return Suppression(
        address=as_address(address, or_domain=True),
        tenant=as_name("tenant", tenant),
        reason=as_reason(reason),
        since=clock.now_iso() if since is None else as_time("since", since),
        until=None if until is None else as_time("until", until),
    )
