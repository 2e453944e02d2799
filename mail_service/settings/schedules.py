"""Reads ``mail.schedules``: the built-in ones, changed or added to by the user."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from mail_service.settings.model import BUILT_IN_SCHEDULES, DynamicSchedule, FixedSchedule, Schedule
from mail_service.settings.reading import Section, as_whole, is_name, shown

_FIXED_KEYS: Final = ("schedule", "limit", "max_age")
_DYNAMIC_KEYS: Final = ("first", "factor", "longest", "limit", "max_age")
_ALL_KEYS: Final = ("schedule", "first", "factor", "longest", "limit", "max_age")
#: retries of a fixed schedule with neither ``limit`` nor ``max_age``: the one that nameko-amqp-retry's Backoff has
_BACKOFF_LIMIT: Final = 20
#: milliseconds in a year of 365 days: above it, somebody mistook the unit
_LONGEST_MS: Final = 31_536_000_000
_MILLISECONDS: Final = "a whole number of milliseconds"
_FACTOR: Final = 4.0
_LONGEST_WAIT_MS: Final = 10_800_000


def read_schedules(section: Section) -> Mapping[str, Schedule]:
    """All schedules by name. A key left out of a built-in one keeps its value, unless the form is changed."""
    schedules = dict(BUILT_IN_SCHEDULES)
    for name in section.values:
        if not is_name(name):
            section.mistakes.add(section.path, f"expected a name for the schedule, got {shown(name)}")
        elif (schedule := _read_schedule(name, section.section(name, _ALL_KEYS))) is not None:
            schedules[name] = schedule
    return MappingProxyType(schedules)


def _read_schedule(name: str, entry: Section) -> Schedule | None:
    built_in = BUILT_IN_SCHEDULES.get(name)
    is_dynamic = any(key in entry for key in ("first", "factor", "longest"))
    if "schedule" in entry and is_dynamic:
        entry.mistakes.add(entry.path, "expected either schedule, or first, factor and longest; got both")
        return None
    if "schedule" in entry or (not is_dynamic and isinstance(built_in, FixedSchedule)):
        return _read_fixed(name, entry, built_in if isinstance(built_in, FixedSchedule) else None)
    if is_dynamic or isinstance(built_in, DynamicSchedule):
        return _read_dynamic(name, entry, built_in if isinstance(built_in, DynamicSchedule) else None)
    entry.mistakes.add(
        entry.path, "expected schedule (a list of milliseconds), or first, factor and longest; got neither"
    )
    return None


def _read_fixed(name: str, entry: Section, built_in: FixedSchedule | None) -> FixedSchedule:
    max_age_ms = _read_max_age(entry, built_in)
    limit = built_in.limit if built_in else _BACKOFF_LIMIT if max_age_ms is None else 0
    return FixedSchedule(
        name=name,
        schedule_ms=_read_waits(entry, built_in),
        limit=entry.whole("limit", limit, what="a whole number of retries, 0 for no limit,"),
        max_age_ms=max_age_ms,
    )


def _read_waits(entry: Section, built_in: FixedSchedule | None) -> tuple[int, ...]:
    if "schedule" not in entry:
        return built_in.schedule_ms if built_in else (1,)
    value, path = entry.values["schedule"], entry.at("schedule")
    if not isinstance(value, (list, tuple)) or not value:
        got = "an empty list" if isinstance(value, (list, tuple)) else shown(value)
        entry.mistakes.add(path, f"expected a list of milliseconds with at least one item, got {got}")
        return (1,)
    for index, item in enumerate(value):
        if as_whole(item, 1, _LONGEST_MS) is None:
            expected = f"{_MILLISECONDS} from 1 to {_LONGEST_MS}"
            entry.mistakes.add(f"{path}[{index}]", f"expected {expected}, got {shown(item)}")
    return tuple(wait for item in value if (wait := as_whole(item, 1, _LONGEST_MS)) is not None) or (1,)


def _read_dynamic(name: str, entry: Section, built_in: DynamicSchedule | None) -> DynamicSchedule:
    if built_in is None and "first" not in entry:
        entry.mistakes.add(entry.at("first"), f"missing; expected {_MILLISECONDS}, the wait before the first retry")
    return DynamicSchedule(
        name=name,
        first_ms=entry.whole(
            "first", built_in.first_ms if built_in else 1, what=_MILLISECONDS, least=1, most=_LONGEST_MS
        ),
        factor=entry.number("factor", _FACTOR, what="a number", least=1, most=1000),
        longest_ms=entry.whole("longest", _LONGEST_WAIT_MS, what=_MILLISECONDS, least=1, most=_LONGEST_MS),
        limit=entry.whole(
            "limit", built_in.limit if built_in else 0, what="a whole number of retries, 0 for no limit,"
        ),
        max_age_ms=_read_max_age(entry, built_in),
    )


def _read_max_age(entry: Section, built_in: Schedule | None) -> int | None:
    default = built_in.max_age_ms if built_in else None
    return entry.whole("max_age", default, what=_MILLISECONDS, least=1, most=_LONGEST_MS)
