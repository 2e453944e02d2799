"""Reads what is done for those who are mailed, and for what is stored about them: ``mail.hard_bounces``."""

from __future__ import annotations

from typing import Final

from mail_service.settings.model import HardBounces
from mail_service.settings.reading import Section

#: days; a hundred years
_LONGEST_DAYS: Final = 36_500


def read_hard_bounces(mail: Section) -> HardBounces:
    """Whether, and for how long, addresses that do not exist are not mailed again."""
    section = mail.section("hard_bounces", ["suppress", "days"])
    default = HardBounces()
    return HardBounces(
        suppress=section.flag("suppress", default=default.suppress), days=_read_days(section, "days", default.days)
    )


def _read_days(section: Section, key: str, default: float | None) -> float | None:
    """Days, or null for no end."""
    if key in section and section.values[key] is None:
        return None
    return section.number(key, default, what="days, or null for no end,", above=True, most=_LONGEST_DAYS)
