"""
Check what callers give with a command: ids, times, addresses, names. Each raises InvalidMessage, naming the argument.
"""

from __future__ import annotations

from typing import Any, TypeGuard

from mail_service import clock
from mail_service.errors import InvalidMessage
from mail_service.message.addresses import BadAddress, addr_spec

#: rows in one answer
LARGEST_PAGE = 20_000
#: characters of an address; a longer one is none that SMTP knows (RFC 5321, 4.5.3.1.3: 256 octets)
LONGEST_ADDRESS = 400
#: characters of a reason, and of a tenant's name
LONGEST_REASON, LONGEST_NAME = 1_000, 200
#: of a pause: a hundred years
LONGEST_PAUSE_S = 100 * 365 * 86_400


def is_text(value: Any) -> TypeGuard[str]:
    """Whether *value* is a string that every database takes: none has NUL or half a surrogate pair."""
    if not isinstance(value, str) or "\x00" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_text(name: str, value: Any) -> str:
    """*value* as a string that every database takes."""
    if not is_text(value):
        raise InvalidMessage(name, "has to be a string")
    return value


def as_id(value: Any) -> str:
    """*value* as the id of a mail."""
    if not is_text(value) or not value:
        raise InvalidMessage("id", "has to be a string that is not empty")
    return value


def as_time(name: str, value: Any) -> str:
    """*value* as a moment, ISO 8601 in UTC."""
    try:
        return clock.iso(clock.parse(value))
    except (ValueError, TypeError, OverflowError):
        raise InvalidMessage(name, "has to be a time in ISO 8601, such as 2026-11-22T03:00:00Z") from None


def as_moment_after(seconds: Any) -> str:
    """The moment so many seconds from now."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_PAUSE_S:
        raise InvalidMessage("seconds", f"has to be a number above 0 and at most {LONGEST_PAUSE_S}")
    return clock.iso(clock.later(seconds))


def as_limit(value: Any) -> int:
    """*value* as a number of rows."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_PAGE:
        raise InvalidMessage("limit", f"has to be a whole number from 1 to {LARGEST_PAGE}")
    return value


def as_address(value: Any, *, or_domain: bool = False) -> str:
    """The bare address; with *or_domain*, ``@example.org`` too."""
    expected = "has to be an address" + (", or a domain such as @example.org" if or_domain else "")
    if not is_text(value) or not value.strip():
        raise InvalidMessage("address", expected)
    value = value.strip()
    is_domain = or_domain and value.startswith("@")
    try:
        bare = addr_spec(f"anybody{value}" if is_domain else value)
    except BadAddress:
        raise InvalidMessage("address", expected) from None
    if len(bare) > LONGEST_ADDRESS:
        raise InvalidMessage("address", f"has to have at most {LONGEST_ADDRESS} characters")
    return bare.removeprefix("anybody") if is_domain else bare


def as_name(field: str, value: Any) -> str | None:
    """*value* as the name of a mailer, a tenant or a priority; None is none."""
    if value is None:
        return None
    if not is_text(value) or not value or len(value) > LONGEST_NAME:
        raise InvalidMessage(field, f"has to be a string of 1 to {LONGEST_NAME} characters")
    return value


def as_reason(value: Any) -> str:
    """*value* as a reason that people give; None is none."""
    if value is None:
        return ""
    if not is_text(value) or len(value) > LONGEST_REASON:
        raise InvalidMessage("reason", f"has to be a string of at most {LONGEST_REASON} characters")
    return value
