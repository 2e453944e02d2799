"""What the ledger says about a mail, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from mail_service.arguments import LONGEST_ADDRESS
from mail_service.outcome import FINAL, Status, is_state

#: the ``door`` of what could not be used when it came
RAW = "raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """The state of one mail."""

    id: str
    status: Status
    mailer: str
    tenant: str | None = None
    priority: str = "normal"
    door: str = "submit"
    attempts: int = 0
    generation: int = 0
    deaths: int = 0
    digest: str = ""
    #: bare address to {status, message_id, detail}
    recipients: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    submitted_at: str = ""
    updated_at: str = ""
    next_attempt_at: str | None = None
    error: str | None = None
    #: ISO 8601; somebody has rescheduled it
    not_before: str | None = None

    def record(self) -> dict[str, Any]:
        """What callers see (CONTRACT: "A record")."""
        return {
            "id": self.id,
            "status": str(self.status),
            "mailer": self.mailer,
            "tenant": self.tenant,
            "priority": self.priority,
            "attempts": self.attempts,
            "recipients": {address: dict(state) for address, state in self.recipients.items()},
            "submitted_at": self.submitted_at,
            "updated_at": self.updated_at,
            "next_attempt_at": self.next_attempt_at,
            "error": self.error,
        }

    @property
    def is_raw(self) -> bool:
        """The entry of a message that could not be read as a mail; a replay may make it one."""
        return self.door == RAW

    @property
    def open_recipients(self) -> list[str]:
        """Those who still wait for an attempt."""
        return [address for address, state in self.recipients.items() if Status(state["status"]) not in FINAL]

    def with_open(self, status: Status, detail: str | None) -> dict[str, Mapping[str, Any]]:
        """The states of the recipients, with those who still wait in *status*."""
        still = set(self.open_recipients)
        return {
            address: recipient(status, detail=detail or state["detail"]) if address in still else state
            for address, state in self.recipients.items()
        }

    def reopened(self, generation: int) -> Self:
        """The same, as a replay puts it back on its way: everybody who has no acceptance waits again."""
        recipients = {
            address: state if state["status"] == Status.SENT else recipient(Status.QUEUED)
            for address, state in self.recipients.items()
        }
        return replace(
            self,
            status=Status.QUEUED,
            attempts=0,
            deaths=0,
            generation=generation,
            recipients=recipients,
            error=None,
            next_attempt_at=None,
            not_before=None,
        )


def recipient(status: Status, *, message_id: str | None = None, detail: str | None = None) -> dict[str, Any]:
    """A recipient's state as it stands in a record."""
    return {"status": str(status), "message_id": message_id, "detail": detail}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt, as the error log shows it."""

    at: str
    mailer: str
    #: a Kind, or the worst of them where recipients differ
    diagnosis: str
    text: str
    milliseconds: int
    recipients: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """One entry of the list."""

    #: an address, or a domain with an @ before it
    address: str
    #: whose mail it is about; None for all mail
    tenant: str | None = None
    reason: str = ""
    #: ISO 8601
    since: str
    #: ISO 8601; None until somebody ends it
    until: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an attempt (or a decision) made of a mail; written as a whole or not at all."""

    mail: Mail
    #: one for each mailer that was asked
    attempts: Sequence[Attempt] = ()
    #: the envelope's bytes, kept unless the mail was sent
    content: bytes | None = None
    #: who is not to be mailed again
    suppressions: Sequence[Suppression] = ()

    def to_json(self) -> dict[str, Any]:
        """For a copy that carries the change while the database is away. The content is the copy itself."""
        facts = {"mail": asdict(self.mail), "attempts": [asdict(attempt) for attempt in self.attempts]}
        if self.suppressions:
            facts["suppressions"] = [asdict(entry) for entry in self.suppressions]
        return facts

    @classmethod
    def from_json(cls, facts: Mapping[str, Any], content: bytes) -> Self:
        """Raises TypeError, KeyError or ValueError for what `to_json` did not make."""
        mail = Mail(**{**facts["mail"], "status": Status(facts["mail"]["status"])})
        attempts = [Attempt(**each) for each in facts["attempts"]]
        suppressions = [Suppression(**each) for each in facts.get("suppressions", ())]
        parts: list[Mail | Attempt | Suppression] = [mail, *attempts, *suppressions]
        for part in parts:
            _check(part)
        return cls(mail=mail, attempts=attempts, content=content, suppressions=suppressions)


#: Characters of a text that has a column of its own length, and what a count may be: PostgreSQL refuses more.
_LONGEST = {
    "address": LONGEST_ADDRESS,
    "door": 8,
    "priority": 8,
    "status": 12,
    "diagnosis": 16,
    "digest": 64,
} | dict.fromkeys(("at", "submitted_at", "updated_at", "next_attempt_at", "not_before", "since", "until"), 32)
_LARGEST = 2_000_000_000


def _check(part: Mail | Attempt | Suppression) -> None:
    """Raise ValueError for a value of another type, or one that no database takes."""
    for field_ in fields(part):
        value = getattr(part, field_.name)
        if field_.name == "recipients":
            sound = isinstance(value, dict) and all(map(is_state, value.values()))
        elif field_.type == "int":
            sound = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST
        elif field_.name in ("error", "text", "reason"):
            sound = isinstance(value, str) or (value is None and field_.name == "error")
        else:
            optional = value is None and "None" in str(field_.type)
            sound = optional or (isinstance(value, str) and _fits(value, _LONGEST.get(field_.name, 200)))
        if not sound:
            raise ValueError(field_.name)


def _fits(text: str, longest: int) -> bool:
    # an unpaired surrogate makes encode raise a UnicodeEncodeError, which is a ValueError
    return len(text) <= longest and b"\x00" not in text.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A copy of a mail that arrived at a worker and asks to be attempted."""

    #: the mail as this copy knows it: its id, its digest, its recipients, and how far it has come
    mail: Mail
    #: the broker delivered it before, so an attempt may have begun
    redelivered: bool = False
    #: it was put on its way by a replay, and may reopen a mail that is final
    replay: bool = False
    #: by key: attempts in flight that a limit allows
    slots: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """Attempt it."""

    mail: Mail


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """
    A process ended while it attempted this mail; nobody knows how that attempt went. It is the caller's to settle.
    """

    mail: Mail


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """Another worker attempts it at this moment; come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowded:
    """As many attempts as the limit of this key allows are in flight."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Superseded:
    """A newer copy is on its way, or the mail is final: this one is of no use."""

    mail: Mail
    #: it was cancelled before a worker saw it, so that this copy has all there is of its content
    wants_content: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PutOff:
    """Somebody has rescheduled it: not before the mail's ``not_before``."""

    mail: Mail


@dataclass(frozen=True, slots=True, kw_only=True)
class Outstanding:
    """This copy's attempt is on record, but whether its successor was put on its way is not: put it there again."""

    mail: Mail


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherMail:
    """The id belongs to another message."""


Claim = Granted | Interrupted | InFlight | Crowded | Superseded | PutOff | Outstanding | OtherMail
