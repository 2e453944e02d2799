"""
What a hook of ``mail.hooks`` works with, and the two that are ready made: ``per_recipient`` and ``per_domain``.

A hook is a function ``(message, context) -> answer``, called before each attempt to hand a mail to its mailer; see
docs/hooks.md. Importing this needs no eventlet and no nameko.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mail_service.settings.routing import domain


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The mail that a hook is asked about."""

    id: str
    #: whom it is for, as the option ``tenant`` said
    tenant: str | None
    #: which mailer it is going to be handed to; others may stand in for that one
    mailer: str
    priority: str
    #: how it came: ``send``, ``submit``, ``event``, ``client``; ``bounce`` is a report of ours to a sender
    door: str
    #: 1 for the first
    attempt: int
    #: who still waits for this message, as bare addresses; whoever got it before is not among them
    recipients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A message for some recipients of the mail, which is handed over on its own."""

    message: Mapping[str, Any]
    #: bare addresses; None: all that the message names
    recipients: Sequence[str] | None = None


class Refused(Exception):
    """Raised by a hook: the message is not to be sent. The text is what its record says."""


#: None is the message that was given, as it is then
Answer = Mapping[str, Any] | Part | Iterable["Mapping[str, Any] | Part"] | None
Hook = Callable[[dict[str, Any], Context], Answer]


def per_recipient(message: dict[str, Any], context: Context) -> Answer:
    """
    Hand the message over once for each recipient, as slimta's RecipientSplit.

    Over SMTP each copy names everybody in To and Cc, as the message does; a provider's API gets one recipient alone.
    """
    return [Part(message, [address]) for address in context.recipients]


def per_domain(message: dict[str, Any], context: Context) -> Answer:
    """Hand the message over once for the recipients of each domain, as slimta's RecipientDomainSplit."""
    by_domain: dict[str, list[str]] = {}
    for address in context.recipients:
        by_domain.setdefault(domain(address.rpartition("@")[2]), []).append(address)
    return [Part(message, addresses) for addresses in by_domain.values()]
