"""
Put held mail back on its way when what it waited for is over.

Each held mail has a copy in a delay level, which comes back by itself; that may take as long as a probe's interval, and
longer for a large backlog. A newer copy of each makes it come at once, little by little, and the older one is dropped
when it arrives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import eventlet

from mail_service import clock
from mail_service.amqp.mailqueue import MailQueue
from mail_service.amqp.publisher import PublishFailed
from mail_service.envelope import Envelope
from mail_service.errors import InvalidMessage
from mail_service.ledger import StoreDown
from mail_service.ledger.errorlog import ErrorLog, Filter
from mail_service.ledger.pauses import HELD_BY_A_PAUSE, Criteria
from mail_service.ledger.records import Mail
from mail_service.outcome import Status

_log = logging.getLogger(__name__)

#: copies on their way to the broker at the same time, so that they share confirms and commits
TOGETHER = 50
#: of a pace that is still slow, seconds between looks at it
PACE_S = 0.1


class Releaser:
    """Makes waiting mail come now."""

    def __init__(self, error_log: ErrorLog, queue: MailQueue) -> None:
        self._error_log = error_log
        self._queue = queue

    def release(self, wanted: Filter, rate: Callable[[], float]) -> int:
        """
        Make held mail come, at most *rate* mails a second; a rate of 0 ends it. Answers how many.

        What fails here comes back by itself, so nothing is raised.
        """
        count = 0
        try:
            count = self._release(wanted, rate)
        except (StoreDown, PublishFailed) as exc:
            _log.info("held mail comes back by itself (%s)", type(exc).__name__)
        return count

    def _release(self, wanted: Filter, rate: Callable[[], float]) -> int:
        count, allowed = 0, 0.0
        pool = eventlet.GreenPool(TOGETHER)
        for mail, content in self._error_log.contents(wanted, (Status.HELD,)):
            while allowed < 1:
                if not rate():
                    return count
                eventlet.sleep(PACE_S)
                allowed += rate() * PACE_S
            allowed -= 1
            pool.spawn_n(self._quietly, mail, content)
            count += 1
        pool.waitall()
        return count

    def _quietly(self, mail: Mail, content: bytes) -> None:
        try:
            self.bring(mail, content)
        except (StoreDown, PublishFailed, InvalidMessage) as exc:
            _log.info("a held mail comes back by itself (%s)", type(exc).__name__)

    def bring(self, mail: Mail, content: bytes) -> None:
        """Put a copy of a waiting mail into its lane now. Raises PublishFailed, StoreDown or InvalidMessage."""
        # a time that somebody has set goes before ``send_at``, now too
        not_before = clock.now_iso() if mail.not_before else None
        due = replace(mail, generation=mail.generation + 1, next_attempt_at=None, not_before=not_before)
        self._queue.put(restored(content, due), due)
        self._error_log.put_back(due)

    def bring_later(self, mail: Mail, content: bytes, delay_ms: int) -> None:
        """
        Put a copy of a waiting mail on its way that arrives after *delay_ms*, and not before ``mail.not_before``.

        Raises PublishFailed, StoreDown or InvalidMessage.
        """
        due = replace(mail, generation=mail.generation + 1)
        self._queue.put_later(restored(content, due), due, delay_ms)
        self._error_log.put_back(due)


def restored(content: bytes, mail: Mail) -> Envelope:
    """The envelope of *mail*, who was accepted left out of what is to be done."""
    settled = {address: state for address, state in mail.recipients.items() if state["status"] == Status.SENT}
    return replace(Envelope.parse(content), settled=settled)


def held_by(criteria: Criteria) -> Filter:
    """The mail that a pause of *criteria* holds."""
    return Filter(
        mailer=criteria.mailer,
        tenant=criteria.tenant,
        priority=criteria.priority,
        error_begins=HELD_BY_A_PAUSE,
        status=(str(Status.HELD),),
    )


def only(mailer: str, tenant: str | None = None) -> Filter:
    """The mail that waits for *mailer*, of one tenant or of all."""
    return Filter(mailer=mailer, tenant=tenant, status=(str(Status.HELD),))
