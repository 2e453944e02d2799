"""Reads what is done for those who are mailed, and for what is stored about them: ``hard_bounces``, ``retention``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, cast, get_args

from mail_service.outcome import FINAL
from mail_service.settings.model import Content, HardBounces, Retention
from mail_service.settings.reading import Section, is_tenant, shown

#: days; a hundred years
_LONGEST_DAYS: Final = 36_500
#: seconds between passes
_LONGEST_PAUSE: Final = 86_400 * 31
#: for every final status that is not named
_OTHERS: Final = "all"
_STATUSES: Final = tuple(sorted(str(status) for status in FINAL))


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


def read_retention(mail: Section) -> Retention:
    """How long records and contents are kept."""
    section = mail.section("retention", ["every", "records", "content", "content_days", "tenants"])
    default = Retention()
    return Retention(
        every=section.number("every", default.every, what="seconds", least=1, most=_LONGEST_PAUSE),
        records=_read_records(section.section("records", [*_STATUSES, _OTHERS])),
        content=cast("Content", section.choice("content", default.content, get_args(Content))),
        content_days=_read_days(section, "content_days", default.content_days),
        tenants=_read_tenants(section.section("tenants")),
    )


def _read_records(section: Section) -> Mapping[str, float]:
    days = {status: _read_days(section, status, None) for status in section.values}
    others = days.pop(_OTHERS, None)
    records = {status: days.get(status, others) for status in _STATUSES}
    return MappingProxyType({status: value for status, value in records.items() if value is not None})


def _read_tenants(section: Section) -> Mapping[str, Content]:
    for tenant in section.values:
        if not is_tenant(tenant):
            section.mistakes.add(section.path, f"expected the name of a tenant, got {shown(tenant)}")
    return MappingProxyType(
        {tenant: cast("Content", section.choice(tenant, "keep", get_args(Content))) for tenant in section.values}
    )
