"""
What SMTP replies mean, at every stage of a conversation.

A reply counts by its first digit and by where it was given, as RFC 5321 (4.2 and 4.2.1) asks; enhanced codes (RFC 3463)
and texts only where a row says so. An enhanced code of another class than the reply's (RFC 2034, 4) is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from mail_service.diagnosis import rows, waits
from mail_service.diagnosis.context import BEFORE_CONTENT, Context, Stage
from mail_service.diagnosis.reading import class_names, one_line, reply_text
from mail_service.outcome import Diagnosis, Kind, Scope

#: the server says that we are too fast, or have had enough for today
_TOO_FAST: Final = (
    r"throttl|rate.?limit|ratelimit|(sending|message|connection)\s+rate|too\s+(many|much)\s+(messages|mails?|emails?)|too\s+fast"
    r"|(quota|limit)\s+exceeded|exceeded\s+.{0,40}(quota|limit)|slow\s+down"
)
_QUOTA: Final = r"\b(daily|monthly|per\s+day|24.hours?)\b"
_TOO_MANY_RECIPIENTS: Final = r"too\s+many\s+recipients"
#: the server refuses us or the mail, whatever code it gives to a recipient
_POLICY: Final = (
    r"spam|\bblock|black.?list|\b(rbl|dnsbl)\b|denied|polic(y|ies)|reputation|prohibit|relaying"
    r"|not\s+(allowed|permitted)"
)
#: without an enhanced code in front, which would say more
_NOBODY: Final = (
    r"\A(?![245]\.\d).*("
    r"user\s+unknown|unknown\s+(user|recipient|local.part)|no\s+such\s+(user|recipient|mailbox|address|person)"
    r"|(user|recipient|mailbox|address|account)\s+(does\s+not|doesn't)\s+exist|(user|recipient|mailbox)\s+not\s+found"
    r"|no\s+mailbox\s+here)"
)

_CONTENT: Final[frozenset[Stage | None]] = frozenset({"data", "body"})
_ANYWHERE: Final[frozenset[Stage | None]] = frozenset({*BEFORE_CONTENT, "body", "quit", None})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyRow:
    """One line of the table."""

    #: ``552``, ``4xx``; several with a space between; ``odd`` is anything but 4xx and 5xx
    codes: str
    kind: Kind
    #: who says so
    source: str
    stages: frozenset[Stage | None] = _ANYWHERE
    #: an enhanced code without its class, ``7.8``, or its subject alone, ``6``; several with a space between
    enhanced: str = ""
    #: a regular expression to be found in the reply
    text: str = ""
    #: seconds, where the reply names none
    wait_s: float | None = None
    #: a reply that refuses is the proof that the mail was not accepted
    certainly_not_sent: bool = True
    #: whom it is about; None is the usual of its kind
    scope: Scope | None = None

    def fits(self, reply: Reply, stage: Stage | None) -> bool:
        """Whether this row speaks about *reply*."""
        return (
            stage in self.stages
            and any(_code_fits(code, reply.code) for code in self.codes.split())
            and (not self.enhanced or any(_enhanced_fits(one, reply.enhanced) for one in self.enhanced.split()))
            and (not self.text or re.search(self.text, reply.text, re.IGNORECASE) is not None)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a server said."""

    code: int
    text: str

    @property
    def enhanced(self) -> str:
        """``7.8`` of ``5.7.8``; empty without one, or with one of another class."""
        found = re.match(r"([245])\.(\d{1,3}\.\d{1,3})\b", self.text)
        return found[2] if found and int(found[1]) == self.code // 100 else ""

    @property
    def label(self) -> str:
        """For logs: ``smtp 550 5.1.1``."""
        return f"smtp {self.code} {self.code // 100}.{self.enhanced}" if self.enhanced else f"smtp {self.code}"


#: first match wins
ROWS: Final[tuple[ReplyRow, ...]] = (
    ReplyRow(
        codes="4xx 5xx",
        text=r"too many (concurrent )?(smtp )?connections",
        stages=frozenset({"connect", "helo", "auth", "mail"}),
        kind=Kind.THROTTLED,
        source="Postfix smtpd, 421 4.7.0; Mailtrap, 535 5.7.8 at AUTH (docs.mailtrap.io, Sending Limits, 2026)",
    ),
    ReplyRow(
        codes="4xx 5xx odd",
        stages=frozenset({"connect", "helo"}),
        kind=Kind.TRANSIENT,
        scope=Scope.MAILER,
        source="RFC 5321, 3.1: no service on this connection; the next may meet another host",
    ),
    ReplyRow(
        codes="421",
        text=r"is not allowed to send:",
        kind=Kind.CONFIGURATION,
        scope=Scope.SENDER,
        source="Mailgun, as users report it, 2026: 421 at DATA, the domain or its account may not send",
    ),
    ReplyRow(
        codes="421",
        kind=Kind.TRANSIENT,
        source="RFC 5321, 3.8: the service closes the channel, at any stage; a new connection",
    ),
    # logging in and what else comes before the first mail says nothing about any mail
    ReplyRow(
        codes="432",
        stages=frozenset({"auth"}),
        kind=Kind.CONFIGURATION,
        source="RFC 4954, 6: a password transition is needed",
    ),
    ReplyRow(
        codes="4xx",
        stages=frozenset({"auth"}),
        kind=Kind.TRANSIENT,
        scope=Scope.MAILER,
        source="RFC 4954, 6: 454 4.7.0, temporary authentication failure",
    ),
    ReplyRow(
        codes="5xx",
        stages=frozenset({"auth"}),
        kind=Kind.CONFIGURATION,
        source="RFC 4954, 6: 535 5.7.8 and 534, 538, 500, 504",
    ),
    ReplyRow(
        codes="4xx",
        stages=frozenset({"starttls"}),
        kind=Kind.TRANSIENT,
        scope=Scope.MAILER,
        source="RFC 3207, 4: 454, TLS is not available for now",
    ),
    ReplyRow(
        codes="5xx",
        stages=frozenset({"starttls"}),
        kind=Kind.CONFIGURATION,
        source="RFC 3207, 4: the server does not do TLS",
    ),
    ReplyRow(
        codes="530 535",
        kind=Kind.CONFIGURATION,
        source="RFC 4954, 6 and RFC 3207, 4: authentication or STARTTLS is required first, given to any command",
    ),
    ReplyRow(
        codes="5xx",
        enhanced="7.8 7.9 7.11 7.13",
        kind=Kind.CONFIGURATION,
        source="RFC 4954, 6 and RFC 5248: the login, its mechanism or its account, told later than at AUTH",
    ),
    # MAIL FROM: says something about us, but for the few codes that speak about this mail's size or address
    ReplyRow(
        codes="552",
        stages=frozenset({"mail"}),
        kind=Kind.PERMANENT,
        source="RFC 1870, 6.1: the message is larger than the server takes",
    ),
    ReplyRow(
        codes="5xx",
        enhanced="1.7 2.3 3.4 6",
        stages=frozenset({"mail"}),
        kind=Kind.PERMANENT,
        source="RFC 3463, 3.2 to 3.4 and 3.7: this sender's syntax, this mail's length or content, not our right",
    ),
    ReplyRow(
        codes="5xx",
        enhanced="4.5",
        text=r"limit|quota",
        stages=frozenset({"mail", "data", "body", None}),
        kind=Kind.THROTTLED,
        wait_s=waits.QUOTA_S,
        source="Gmail: 550 5.4.5, daily user sending limit exceeded (support.google.com/a/answer/3726730, 2026)",
    ),
    ReplyRow(
        codes="5xx",
        stages=frozenset({"mail"}),
        kind=Kind.CONFIGURATION,
        scope=Scope.SENDER,
        source="RFC 5321, 3.3: the server refuses our sender",
    ),
    ReplyRow(
        codes="4xx",
        enhanced="1.7 1.8",
        stages=frozenset({"mail"}),
        kind=Kind.TRANSIENT,
        scope=Scope.SENDER,
        source="RFC 3463, 3.2: the sender's address or domain cannot be looked up for now",
    ),
    ReplyRow(
        codes="4xx 5xx",
        enhanced="2.1",
        text=r"receiving (e?mail|messages) (too quickly|at a rate)",
        kind=Kind.THROTTLED,
        scope=Scope.MAIL,
        wait_s=waits.RECIPIENT_S,
        source="Gmail: 450 4.2.1, 550 5.2.1, this user gets too much mail (support.google.com/a/answer/3726730, 2026)",
    ),
    ReplyRow(
        codes="4xx",
        enhanced="2.1",
        text=r"relay limit exceeded",
        kind=Kind.THROTTLED,
        source="Gmail: 450 4.2.1, peak SMTP relay limit exceeded (support.google.com/a/answer/3726730, 2026)",
    ),
    ReplyRow(
        codes="4xx",
        enhanced="2",
        kind=Kind.TRANSIENT,
        source="RFC 3463, 3.3: about a mailbox, such as a full one; not about our pace",
    ),
    ReplyRow(
        codes="4xx",
        text=rf"(?=.*({_TOO_FAST})).*{_QUOTA}",
        stages=frozenset({"mail", "data", "body", None}),
        kind=Kind.THROTTLED,
        wait_s=waits.QUOTA_S,
        source="Amazon SES: 454, daily message quota exceeded (its manage-sending-quotas-errors page, 2026)",
    ),
    ReplyRow(
        codes="4xx",
        text=_TOO_FAST,
        stages=frozenset({"mail", "data", "body", None}),
        kind=Kind.THROTTLED,
        source="Amazon SES: 454, maximum sending rate exceeded; Postfix anvil(8): 450 4.7.1, too much mail from",
    ),
    ReplyRow(
        codes="454",
        stages=_CONTENT | {None},
        kind=Kind.THROTTLED,
        source="Amazon SES: 454 for every throttle, as it does not queue",
    ),
    # RCPT TO: about one recipient
    ReplyRow(
        codes="552",
        enhanced="5.3",
        stages=frozenset({"rcpt"}),
        kind=Kind.TRANSIENT,
        source="RFC 5321, 4.5.3.1.10: 552 for too many recipients is to be treated as 452",
    ),
    ReplyRow(
        codes="552",
        text=_TOO_MANY_RECIPIENTS,
        stages=frozenset({"rcpt"}),
        kind=Kind.TRANSIENT,
        source="RFC 5321, 4.5.3.1.10: 552 for too many recipients is to be treated as 452",
    ),
    # a hard bounce; only here, where the reply is about one recipient
    ReplyRow(
        codes="5xx",
        text=_POLICY,
        stages=frozenset({"rcpt"}),
        kind=Kind.PERMANENT,
        source="RFC 5321, 4.2.3: 550 also for policy reasons, which some servers give with 5.1.1; no hard bounce",
    ),
    ReplyRow(
        codes="5xx",
        enhanced="1.1 1.2 1.6 1.10",
        stages=frozenset({"rcpt"}),
        kind=Kind.PERMANENT,
        scope=Scope.RECIPIENT,
        source="RFC 3463, 3.2: no such mailbox, no such system, moved without a new address; RFC 7505, 4.2: a null MX",
    ),
    ReplyRow(
        codes="550 553",
        text=_NOBODY,
        stages=frozenset({"rcpt"}),
        kind=Kind.PERMANENT,
        scope=Scope.RECIPIENT,
        source="RFC 5321, 4.2.3: mailbox not found, in the words of Exim, Postfix and qmail without an enhanced code",
    ),
    ReplyRow(
        codes="4xx",
        enhanced="3.2 4.5",
        stages=frozenset({"mail", "data", "body", None}),
        kind=Kind.TRANSIENT,
        scope=Scope.MAILER,
        source="RFC 3463, 3.4 and 3.5: the system takes no mail for now, or is congested",
    ),
    ReplyRow(codes="4xx", kind=Kind.TRANSIENT, source="RFC 5321, 4.2.1: a transient negative completion"),
    ReplyRow(
        codes="5xx",
        kind=Kind.PERMANENT,
        source="RFC 5321, 4.2.1: a permanent negative completion; also 5.7.1, which is about one recipient or mail",
    ),
    ReplyRow(
        codes="odd",
        stages=frozenset(BEFORE_CONTENT),
        kind=Kind.TRANSIENT,
        scope=Scope.MAILER,
        source="RFC 5321, 4.2.1: not a reply to this command; nothing of the content was sent",
    ),
    ReplyRow(
        codes="odd",
        kind=Kind.UNKNOWN,
        scope=Scope.MAILER,
        certainly_not_sent=False,
        source="RFC 5321, 4.2.1: neither yes nor no to a mail that was handed over",
    ),
)

_AT: Mapping[Stage, str] = MappingProxyType(
    {
        "connect": "as greeting",
        "helo": "to EHLO",
        "starttls": "to STARTTLS",
        "auth": "to AUTH",
        "mail": "to MAIL FROM",
        "rcpt": "to RCPT TO",
        "data": "to DATA",
        "body": "to the content",
        "quit": "to QUIT",
    }
)

#: smtplib's errors that tell where they happened
_STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        "smtplib.SMTPConnectError": "connect",
        "smtplib.SMTPHeloError": "helo",
        "smtplib.SMTPAuthenticationError": "auth",
        "smtplib.SMTPSenderRefused": "mail",
        "smtplib.SMTPDataError": "body",
    }
)
#: when recipients were refused for different reasons and only one can be told: the one that keeps the mail waiting
_FIRST_TO_TELL: Final = (Kind.CONFIGURATION, Kind.THROTTLED, Kind.TRANSIENT, Kind.UNKNOWN, Kind.PERMANENT)


def diagnose_reply(code: int, text: object, stage: Stage | None) -> Diagnosis:
    """Say what a reply that refuses means. *text* as smtplib has it, bytes or str, the enhanced code in front."""
    reply = Reply(code=code, text=reply_text(text))
    row = rows.first(ROWS, lambda row: row.fits(reply, stage)) or ROWS[-1]
    wait_s = waits.asked_in_text(reply.text) if row.kind in {Kind.TRANSIENT, Kind.THROTTLED} else None
    where = f" ({_AT[stage]})" if stage else ""
    return Diagnosis(
        kind=row.kind,
        text=one_line(f"{code} {reply.text}{where}"),
        code=reply.label,
        wait_s=row.wait_s if wait_s is None else wait_s,
        certainly_not_sent=row.certainly_not_sent,
        scope=row.scope,
    )


def accepted(code: int, text: object) -> Diagnosis:
    """The diagnosis of a reply that takes the mail."""
    return Diagnosis(kind=Kind.ACCEPTED, text=one_line(f"{code} {reply_text(text)}"), code=f"smtp {code}")


def from_error(error: BaseException, context: Context) -> Diagnosis | None:
    """Say what one of smtplib's errors that carry a reply means; None for all others."""
    names = class_names(error)
    if "smtplib.SMTPRecipientsRefused" in names:
        return _all_refused(getattr(error, "recipients", None))
    if "smtplib.SMTPResponseException" not in names:
        return None
    stage = context.stage or next((_STAGES[name] for name in _STAGES if name in names), None)
    return diagnose_reply(int(getattr(error, "smtp_code", -1)), getattr(error, "smtp_error", ""), stage)


def _all_refused(refused: object) -> Diagnosis | None:
    if not isinstance(refused, Mapping) or not refused:
        return None
    diagnoses = [diagnose_reply(int(code), text, "rcpt") for code, text in refused.values()]
    told = min(diagnoses, key=lambda one: _FIRST_TO_TELL.index(one.kind))
    # it stands for all recipients: that one of them does not exist must not be said of the others
    return replace(told, scope=None) if told.is_hard_bounce and len(diagnoses) > 1 else told


def _code_fits(pattern: str, code: int) -> bool:
    if pattern == "odd":
        return code // 100 not in {4, 5}
    return code // 100 == int(pattern[0]) if pattern.endswith("xx") else code == int(pattern)


def _enhanced_fits(pattern: str, enhanced: str) -> bool:
    return enhanced == pattern or ("." not in pattern and enhanced.startswith(f"{pattern}."))
