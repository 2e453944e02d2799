"""The options that travel beside a message: which mailer, which schedule, how urgent, until when, for whom."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from mail_service.errors import InvalidMessage
from mail_service.message.words import got, nearest

#: characters of an id and of a tenant
MAX_LENGTH = 200
PRIORITIES = ("high", "normal", "bulk")

#: control characters, and lone surrogates, which UTF-8 cannot carry
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was given beside a message. None is "not given" everywhere; the defaults are those of who reads it."""

    #: the caller's own id; the same id is one mail
    id: str | None = None
    #: name of a configured mailer
    mailer: str | None = None
    #: ``high``, ``normal`` or ``bulk``
    priority: str | None = None
    #: name of a configured schedule
    backoff: str | None = None
    #: in UTC; not attempted after it
    expires_at: datetime | None = None
    #: whom the mail is for
    tenant: str | None = None

    @classmethod
    def parse(
        cls,
        given: object,
        *,
        mailers: Collection[str] | None = None,
        schedules: Collection[str] | None = None,
    ) -> Options:
        """
        Check *given*, an object or None; a value of null is "not given".

        Args:
            mailers: Names to choose ``mailer`` from; not checked when None, as in a client.
            schedules: The same for ``backoff``.

        Raises:
            InvalidMessage: names the option, or ``options.<name>`` for one that does not exist.
        """
        if given is None:
            return _NONE
        if not isinstance(given, Mapping):
            raise InvalidMessage("options", f"must be an object, not {got(given)}")
        options = {name: value for name, value in given.items() if value is not None or name not in _NAMES}
        if not options:
            return _NONE
        for name in options:
            if name not in _NAMES:
                raise InvalidMessage(f"options.{str(name)[:100]}", f"there is no such option{nearest(name, _NAMES)}")
        return cls(
            id=_text(options, "id"),
            mailer=_name(options, "mailer", mailers),
            priority=_name(options, "priority", PRIORITIES),
            backoff=_name(options, "backoff", schedules),
            expires_at=_time(options, "expires_at"),
            tenant=_text(options, "tenant"),
        )

    def to_json(self) -> dict[str, str]:
        """Return only what was given, JSON-ready; ``Options.parse`` takes it back."""
        given = {name: value for name in _NAMES if (value := getattr(self, name)) is not None}
        if self.expires_at is not None:
            given["expires_at"] = self.expires_at.isoformat()
        return given


def require_id(value: str) -> None:
    """Raise InvalidMessage for what cannot be the id of a mail."""
    _text({"id": value}, "id")


_NAMES = tuple(field.name for field in fields(Options))
_NONE = Options()


def _text(options: Mapping[str, object], name: str) -> str | None:
    value = options.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidMessage(name, f"must be a string, not {got(value)}")
    if not value:
        raise InvalidMessage(name, "must not be empty")
    if len(value) > MAX_LENGTH:
        raise InvalidMessage(name, f"must have at most {MAX_LENGTH} characters, has {len(value):,}")
    if _CONTROL.search(value):
        raise InvalidMessage(name, "must not contain control characters")
    return value


def _name(options: Mapping[str, object], name: str, known: Collection[str] | None) -> str | None:
    value = _text(options, name)
    if value is None or known is None or value in known:
        return value
    choices = ", ".join(sorted(known) if known is not PRIORITIES else known)
    raise InvalidMessage(name, f"must be one of {choices}; there is no {value[:100]!r}{nearest(value, known)}")


def _time(options: Mapping[str, object], name: str) -> datetime | None:
    value = options.get(name)
    if value is None:
        return None
    if not isinstance(value, str | datetime):
        raise InvalidMessage(name, f"must be a time in ISO 8601, not {got(value)}")
    try:
        return in_utc(datetime.fromisoformat(value) if isinstance(value, str) else value)
    except (ValueError, OverflowError) as error:
        raise InvalidMessage(name, "must be a time in ISO 8601, such as 2030-01-31T12:00:00Z") from error


def in_utc(value: datetime) -> datetime:
    """Return *value* in UTC; without an offset it is taken as UTC already."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
