"""
Offer addresses that do not exist to the list of those who are not mailed: ``mail.hard_bounces``.

What a hard bounce is, the tables of ``diagnosis`` say: a permanent refusal whose scope is the recipient. The entry is
committed with the outcome that it is about, or not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

from mail_service import clock
from mail_service.arguments import LONGEST_ADDRESS
from mail_service.delivery.handover import Round
from mail_service.ledger.records import Mail, Suppression
from mail_service.logs import say
from mail_service.outcome import Status
from mail_service.settings import HardBounces
from mail_service.settings.mailers import TENANT_MARK

_log = logging.getLogger(__name__)

#: characters of what the server said, in an entry's reason
LONGEST_REPLY = 300

#: a mail as it was settled, and what each mailer made of it: who is not to be mailed again
Offers = Callable[[Mail, Sequence[Round]], Sequence[Suppression]]


def offers(settings: HardBounces) -> Offers:
    """What these settings make of an attempt."""
    return partial(_entries, days=settings.days) if settings.suppress else nobody


def nobody(_mail: Mail, _rounds: Sequence[Round]) -> Sequence[Suppression]:
    """Offer nobody."""
    return ()


def _entries(mail: Mail, rounds: Sequence[Round], *, days: float | None) -> list[Suppression]:
    until = None if days is None else clock.iso(clock.now() + timedelta(days=days))
    entries = [
        Suppression(
            address=receipt.address,
            # the word of a tenant's own mailer counts for that tenant alone
            tenant=mail.tenant if TENANT_MARK in round_.mailer else None,
            reason=f"hard bounce of mail {mail.id}: {receipt.diagnosis.text[:LONGEST_REPLY]}",
            since=mail.updated_at,
            until=until,
        )
        for round_ in rounds
        for receipt in round_.receipts
        if receipt.diagnosis.is_hard_bounce
        # no other mailer took it
        and mail.recipients[receipt.address]["status"] == Status.FAILED
        and len(receipt.address) <= LONGEST_ADDRESS
    ]
    if entries:
        text = "%(count)d recipients of mail %(id)s do not exist and are not mailed again"
        say(_log, logging.INFO, text, event="hard_bounce", id=mail.id, count=len(entries))
    return entries
