"""
Who may use a mailer now: a mailer that is wrongly configured, throttled or down keeps its mail waiting, not failing.

``gate`` decides for one mailer in one process, without a clock or a database; ``keeper`` shares what was decided
between processes, tells people, and lets waiting mail go when it is over. ``pauses`` is the same for what somebody
paused.
"""

from mail_service.holds.keeper import SOONER, Held, Keeper, Ticket
from mail_service.holds.pauses import Pauses

__all__ = ["SOONER", "Held", "Keeper", "Pauses", "Ticket"]
