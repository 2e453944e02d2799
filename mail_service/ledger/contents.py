"""What is kept of a mail's content once the mail is over: all of it, its form without what it says, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from mail_service.envelope import Envelope
from mail_service.errors import InvalidMessage
from mail_service.ledger.records import Mail
from mail_service.settings import Content

#: what is to be kept, by mailer and tenant: ``Settings.content_of``
Keeps = Callable[[str, str | None], Content]

#: what stands where something was
REDACTED: Final = "[redacted]"
#: fields that say how and to whom, not what; addresses stand in the record too
_FORM: Final = frozenset(
    {
        *("from_email", "to", "cc", "bcc", "reply_to", "envelope_sender"),
        *("content_subtype", "encoding", "template_id", "tags", "send_at", "track_opens", "track_clicks"),
    }
)
#: the same inside of attachments and alternatives
_FORM_OF_A_PART: Final = "mimetype"


def everything(_mailer: str, _tenant: str | None) -> Content:
    """Keep everything."""
    return "keep"


def kept(mail: Mail, content: bytes | None, keeps: Keeps) -> bytes | None:
    """What is stored of *content*: a mail that is on its way needs it whole."""
    if content is None or not mail.status.is_final:
        return content
    match keeps(mail.mailer, mail.tenant):
        case "keep":
            return content
        case "redact":
            return redacted(content)
        case "drop":
            return None


def redacted(content: bytes) -> bytes | None:
    """An envelope whose message has kept its form alone; None for what is no envelope, whose form nobody knows."""
    try:
        envelope = Envelope.parse(content)
    except InvalidMessage:
        return None
    message = envelope.message if isinstance(envelope.message, Mapping) else {}
    message = {name: value if name in _FORM else _hidden(value) for name, value in message.items()}
    return replace(envelope, message=message, redacted=True).body()


def _hidden(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: each if name == _FORM_OF_A_PART else _hidden(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_hidden(each) for each in value]
    return value if value is None or isinstance(value, bool) else REDACTED
