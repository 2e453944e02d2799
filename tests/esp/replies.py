"""SMTP replies at every stage, and what each means. Every row of ``diagnosis.smtp`` is the first for one of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mail_service.outcome import Kind, Scope

from .answers import CONFIGURATION, MAIL, MAILER, PERMANENT, QUOTA_S, RECIPIENT, SENDER, THROTTLED, TRANSIENT, UNKNOWN
from .asking import usual_scope

Stage = Literal["connect", "helo", "starttls", "auth", "mail", "rcpt", "data", "body"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A reply to a mail with one recipient."""

    at: Stage
    reply: str
    kind: Kind
    concerns: Scope
    wait_s: float | None

    def __str__(self) -> str:
        return f"{self.reply[:20]} at {self.at}"


def _of(at: Stage, reply: str, kind: Kind, concerns: Scope | None = None, *, wait_s: float | None = None) -> Case:
    return Case(at=at, reply=reply, kind=kind, concerns=concerns or usual_scope(kind), wait_s=wait_s)


CASES: tuple[Case, ...] = (
    _of("connect", "421 4.7.0 Error: too many connections from 192.0.2.1", THROTTLED),
    _of("auth", "535 5.7.8 Too many connections per account", THROTTLED),
    _of("connect", "421 4.3.2 Shutting down", TRANSIENT, MAILER),
    _of("connect", "554 5.7.1 No service for you", TRANSIENT, MAILER),
    _of("helo", "502 Not implemented", TRANSIENT, MAILER),
    _of("starttls", "454 TLS not available", TRANSIENT, MAILER),
    _of("starttls", "502 No TLS", CONFIGURATION),
    _of("auth", "454 4.7.0 Temporary authentication failure", TRANSIENT, MAILER),
    _of("auth", "432 4.7.12 A password transition is needed", CONFIGURATION),
    _of("auth", "535 5.7.8 Wrong password", CONFIGURATION),
    _of("auth", "504 5.5.4 Unrecognized authentication type", CONFIGURATION),
    _of("mail", "421 4.3.2 Shutting down", TRANSIENT),
    _of("data", "421 Domain example.org is not allowed to send: Account disabled", CONFIGURATION, SENDER),
    _of("mail", "530 5.7.0 Authentication required", CONFIGURATION),
    _of("rcpt", "530 5.7.0 Must issue a STARTTLS command first", CONFIGURATION),
    _of("rcpt", "550 5.7.13 User account disabled", CONFIGURATION),
    _of("mail", "552 Too big", PERMANENT),
    _of("mail", "501 5.1.7 Bad sender syntax", PERMANENT),
    _of("mail", "550 5.4.5 Daily user sending limit exceeded", THROTTLED, wait_s=QUOTA_S),
    _of("body", "550 5.4.5 Daily user sending limit exceeded", THROTTLED, wait_s=QUOTA_S),
    _of("mail", "553 5.7.1 Sender address rejected: not owned by user", CONFIGURATION, SENDER),
    _of("mail", "550 5.7.1 Sending from domain is not allowed", CONFIGURATION, SENDER),
    _of("mail", "451 4.1.8 Domain of sender address not found", TRANSIENT, SENDER),
    _of("mail", "452 4.3.1 Insufficient system storage", TRANSIENT),
    _of("mail", "450 4.7.1 Error: too much mail from 192.0.2.1", THROTTLED),
    _of("mail", "451 4.4.5 System congested", TRANSIENT, MAILER),
    _of(
        "rcpt",
        "450 4.2.1 The user is receiving mail too quickly",
        THROTTLED,
        MAIL,
        wait_s=300,
    ),
    _of("rcpt", "550 5.2.1 The user is receiving mail at a rate that prevents more", THROTTLED, MAIL, wait_s=300),
    _of("rcpt", "450 4.2.1 Peak SMTP relay limit exceeded for customer", THROTTLED),
    _of("rcpt", "450 4.2.0 Greylisted, try again in 5 minutes", TRANSIENT, wait_s=300),
    _of("rcpt", "452 4.2.2 Mailbox full", TRANSIENT),
    _of("rcpt", "450 4.7.1 Recipient rate limited", TRANSIENT),
    _of("rcpt", "451 4.3.2 Not for this one", TRANSIENT),
    _of("rcpt", "552 5.5.3 Too many", TRANSIENT),
    _of("rcpt", "552 Too many recipients", TRANSIENT),
    _of("rcpt", "550 5.1.1 Recipient address rejected: listed by the DNSBL example.net", PERMANENT),
    _of("rcpt", "550 User unknown; your message looks like spam", PERMANENT),
    _of("rcpt", "550 5.1.1 User unknown in local recipient table", PERMANENT, RECIPIENT),
    _of("rcpt", "550 5.1.2 Host unknown", PERMANENT, RECIPIENT),
    _of("rcpt", "551 5.1.6 Moved", PERMANENT, RECIPIENT),
    _of("rcpt", "556 5.1.10 The domain takes no mail", PERMANENT, RECIPIENT),
    _of("rcpt", "550 No such user here", PERMANENT, RECIPIENT),
    _of("rcpt", "553 sorry, no mailbox here by that name", PERMANENT, RECIPIENT),
    _of("rcpt", "550 5.2.1 The user does not exist any more, or is disabled", PERMANENT),
    _of("rcpt", "550 Requested action not taken: mailbox unavailable", PERMANENT),
    _of("body", "550 5.1.1 No such user", PERMANENT),
    _of("rcpt", "550 5.7.1 Blocked", PERMANENT),
    _of("rcpt", "354 Odd", TRANSIENT, MAILER),
    _of("data", "451 4.3.0 Local error", TRANSIENT),
    _of("data", "554 5.5.1 No valid recipients", PERMANENT),
    _of("body", "454 4.7.0 Throttling failure: Maximum sending rate exceeded.", THROTTLED),
    _of("body", "454 4.7.0 Throttling failure: Daily message quota exceeded.", THROTTLED, wait_s=QUOTA_S),
    _of("body", "454 4.5.0 Slower, please", THROTTLED),
    _of("body", "451 4.3.2 Please try again in 10 minutes", TRANSIENT, MAILER, wait_s=600),
    _of("body", "451 4.3.0 Local error", TRANSIENT),
    _of("body", "452 4.2.2 Mailbox over quota, limit exceeded", TRANSIENT),
    _of("body", "554 5.7.1 Looks like spam", PERMANENT),
    _of("body", "550 5.7.26 Unauthenticated mail is not accepted due to DMARC", PERMANENT),
    _of("body", "354 Odd", UNKNOWN, MAILER),
)
