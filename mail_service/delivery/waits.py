"""How long a copy waits whose mailer is held or has enough to do, and whether it is worth reading before."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping
from typing import Any

from mail_service import message, topology
from mail_service.delivery.copies import Delivery
from mail_service.delivery.settling import Settled
from mail_service.envelope import Envelope
from mail_service.errors import InvalidMessage
from mail_service.holds import SOONER, Keeper, Pauses
from mail_service.ledger.records import Mail
from mail_service.mailers import Mailer
from mail_service.message.references import has_any
from mail_service.settings import Settings

#: seconds; a provider that asks for more is looked at all the same
LONGEST_HOLD_S = 7 * 86_400


class Waits:
    """
    One for all workers of a process. All answers are milliseconds, 0 for a mail that should ask for an attempt now.
    """

    def __init__(
        self,
        settings: Settings,
        mailers: Callable[[str, str | None], Mailer | None],
        keeper: Keeper,
        pauses: Pauses,
    ) -> None:
        self._settings = settings
        self._mailers = mailers
        self._keeper = keeper
        self._pauses = pauses
        self._holds_ms = topology.hold_levels(settings.hold_probe)

    def still_held(self, delivery: Delivery) -> int:
        """Milliseconds until a mail that is known to be held, or whose mailer has enough to do, looks again."""
        is_held = delivery.headers.get(topology.HELD) is True
        if delivery.has_expired or not (is_held or self._keeper.has_work_to_put_off):
            return 0
        mail = delivery.mail
        if is_held and (pause_s := self._pauses.look(mail)) is not None:
            return self.hold_ms(pause_s)
        key = self.key_of(mail)
        is_waited_for = delivery.envelope.reply_to is not None and not self._keeper.is_crowded(key, mail.priority)
        if not is_held and (is_waited_for or self.may_fail_over(mail)):
            return 0
        return self._wait_for_mailer(key, message.author(delivery.canonical), mail.priority, is_held=is_held)

    def glance(self, body: bytes, headers: Mapping[str, Any]) -> int:
        """
        Milliseconds until a copy comes back that is not worth reading now, its mailer being held; 0 for any other.

        As `still_held`, without checking the message; whatever is unusual is for `attempt`.
        """
        if not self._keeper.has_work_to_put_off or topology.STATE in headers or topology.DUE in headers:
            return 0
        try:
            envelope = Envelope.parse(body)
        except InvalidMessage:
            return 0
        name, tenant = envelope.options.get("mailer"), envelope.options.get("tenant")
        if name is None and not self._settings.routing:
            name = "default"
        if not isinstance(name, str) or not isinstance(tenant, str | None):
            return 0
        if envelope.unrecorded or envelope.reply_to or "expires_at" in envelope.options or has_any(envelope.message):
            return 0
        mailer = self._mailers(name, tenant)
        settings = self._settings.mailers_of(tenant).get(name)
        if mailer is None or settings is None or settings.failover:
            return 0
        return self._wait_for_mailer(mailer.name, "", envelope.lane, is_held=headers.get(topology.HELD) is True)

    def _wait_for_mailer(self, key: str, sender: str, lane: str, *, is_held: bool) -> int:
        """Milliseconds until a mail comes back whose mailer is held or has enough to do; 0 when it should ask."""
        if not is_held and not self._keeper.is_crowded(key, lane) and self._keeper.may_hold_more:
            return 0
        return self.hold_ms(self._keeper.look(key, sender, lane) or 0)

    def hold_ms(self, seconds: float) -> int:
        """
        The wait of held mail in milliseconds: one of a few that are declared at the start, since each is a queue.
        """
        if seconds <= 0:
            return 0
        return self._holds_ms[min(bisect.bisect_left(self._holds_ms, seconds * 1000), len(self._holds_ms) - 1)]

    def key_of(self, mail: Mail) -> str:
        """By which the mail's mailer is held."""
        mailer = self._mailers(mail.mailer, mail.tenant)
        return mailer.name if mailer else mail.mailer

    def may_fail_over(self, mail: Mail) -> bool:
        """Whether another mailer may be asked instead."""
        settings = self._settings.mailers_of(mail.tenant).get(mail.mailer)
        return settings is not None and bool(settings.failover)

    def after(self, settled: Settled, sender: str) -> int:
        """Milliseconds until a mail that was attempted and is held looks again."""
        look_s = self._keeper.look(self.key_of(settled.mail), sender)
        if look_s is not None:
            return self.hold_ms(look_s)
        # it is held alone, for as long as it was told
        return math.ceil(min(settled.wait_s or self._settings.hold_probe * SOONER, LONGEST_HOLD_S) * 1000)
