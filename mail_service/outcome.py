"""Every word for how it went: statuses, what a failure means, and the receipt for one recipient."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """The state of a mail and of a recipient."""

    #: accepted, not yet attempted
    QUEUED = "queued"
    #: a transient failure; waits for its next attempt
    DEFERRED = "deferred"
    #: waits for something other than its own retry; costs no attempt
    HELD = "held"
    #: the mailer accepted it
    SENT = "sent"
    #: a mail only: some recipients were accepted, the rest ended otherwise
    PARTLY_SENT = "partly_sent"
    #: permanent, or an outcome that is unknown and must not be repeated
    FAILED = "failed"
    #: the retries or the time were used up
    EXPIRED = "expired"
    #: the recipient is on the list of those who are not mailed
    SUPPRESSED = "suppressed"
    #: somebody decided that it is dealt with
    DISCARDED = "discarded"

    @property
    def is_final(self) -> bool:
        """Nothing more happens by itself."""
        return self not in WAITING


#: a mail in one of these is still on its way
WAITING = frozenset({Status.QUEUED, Status.DEFERRED, Status.HELD})
FINAL = frozenset(Status) - WAITING


def is_state(value: object, statuses: Collection[Status] = frozenset(Status)) -> bool:
    """Whether *value*, from outside, is a recipient's state as a record has it, in one of *statuses*."""
    return (
        isinstance(value, dict)
        and value.keys() <= {"status", "message_id", "detail"}
        and value.get("status") in set(statuses)
        and all(isinstance(value.get(name), str | None) for name in ("message_id", "detail"))
    )


class Kind(StrEnum):
    """What the end of an attempt means. The first is a success, the others say what to do next."""

    #: the mailer took responsibility
    ACCEPTED = "accepted"
    #: try again later, on the schedule
    TRANSIENT = "transient"
    #: the provider asks for a slower pace; waits without using up an attempt
    THROTTLED = "throttled"
    #: somebody has to mend the configuration; waits without using up an attempt
    CONFIGURATION = "configuration"
    #: never going to work
    PERMANENT = "permanent"
    #: it may have been accepted; the mailer's ``on_unknown`` decides
    UNKNOWN = "unknown"


class Scope(StrEnum):
    """Whom a failure is about: who else would fail alike."""

    #: this mail, or one of its recipients
    MAIL = "mail"
    #: all mail to the same recipient, whose address does not exist: a hard bounce, where it is permanent
    RECIPIENT = "recipient"
    #: all mail of the same sender, such as one whose domain the provider does not know
    SENDER = "sender"
    #: all mail through the same mailer: its account, its address, the provider itself
    MAILER = "mailer"


#: of a diagnosis that names none
_SCOPE_OF = {Kind.THROTTLED: Scope.MAILER, Kind.CONFIGURATION: Scope.MAILER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What a failure (or a success) means for the recipients it speaks about."""

    kind: Kind
    #: one sentence for people: the server's reply, or the exception's text. May contain addresses: never logged.
    text: str = ""
    #: the traceback of what nobody foresaw; stands with the attempt in the error log, and nowhere else
    trace: str = ""
    #: a short machine word without addresses, fit for logs: ``smtp 450 4.2.1``, ``TimeoutError``
    code: str = ""
    #: seconds the other side asked us to wait, or None
    wait_s: float | None = None
    #: nothing of the mail can have been accepted, so another mailer may be tried in the same attempt
    certainly_not_sent: bool = False
    #: None is the mailer where it is throttled or wrongly configured, else this mail alone
    scope: Scope | None = None

    @property
    def is_answer(self) -> bool:
        """The other side said so: it is there, and works. Any other failure may be one of ours alone."""
        return self.code.startswith(("smtp", "http"))

    @property
    def is_hard_bounce(self) -> bool:
        """The address does not exist, so that nobody's mail will ever reach it."""
        return self.kind == Kind.PERMANENT and self.scope == Scope.RECIPIENT

    @property
    def concerns(self) -> Scope:
        """Who else would fail alike. A mailer that is held, or a breaker that counts, goes by this."""
        return self.scope or _SCOPE_OF.get(self.kind, Scope.MAIL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """How it went for one recipient."""

    #: bare addr-spec, as typed by whoever handed the mail in
    address: str
    diagnosis: Diagnosis
    #: the provider's id for this recipient's copy, where it has one
    message_id: str | None = None
