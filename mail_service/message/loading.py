"""From the wire to Django: ``load``."""

from __future__ import annotations

from base64 import b64decode
from datetime import datetime
from email import policy as policies
from typing import Any

import django
from django.core.mail import EmailAttachment, EmailMessage, EmailMultiAlternatives

from mail_service.message import kinds, mime
from mail_service.message.checks import canonical_form
from mail_service.message.fields import ANYMAIL_FIELDS

#: Django 5.2 takes only the old classes as attachments; 6 takes both, and Anymail reads the two in different ways
_DJANGO_6 = django.VERSION >= (6, 0)
#: of the messages that ``EmailMessage.message()`` returns; Django 5.2 has the old class, which has no other policy
_DEFAULT_POLICY = policies.default if _DJANGO_6 else None


def load(payload: dict[str, Any], connection: object = None) -> EmailMessage:
    """
    Return the mail that *payload* describes: a message as accepted, in canonical form, or from ``dump``.

    It is an ``EmailMultiAlternatives`` that has of Anymail's attributes those which were given. Django's settings must
    be configured. *connection* becomes the message's own.

    Raises:
        InvalidMessage: names the field that cannot be read. Addresses and line breaks are not looked at here.
    """
    message = canonical_form(payload, strict=False)
    types = message.get("types", {})
    if types:
        _restore(message, types)
    email = _new_email(message)
    email.attachments = [_attachment(item, types, index) for index, item in enumerate(message.get("attachments", ()))]
    for index, item in enumerate(message.get("alternatives", ())):
        email.attach_alternative(_alternative(item, types, index), item["mimetype"])
    _set_attributes(email, message, types)
    if connection is not None:
        _connect(email, connection)
    return email


def _new_email(message: dict[str, Any]) -> EmailMultiAlternatives:
    make = _carrying(b64decode(message["mime"])) if "mime" in message else EmailMultiAlternatives
    return make(
        subject=message.get("subject", ""),
        body=message.get("body", ""),
        from_email=message.get("from_email"),
        to=message.get("to"),
        cc=message.get("cc"),
        bcc=message.get("bcc"),
        reply_to=message.get("reply_to"),
        headers=message.get("headers"),
    )


def _carrying(raw: bytes) -> type[EmailMultiAlternatives]:
    """Return a class whose ``message()`` is *raw*, parsed anew each time, in the style of the installed Django."""

    class CarriedMessage(EmailMultiAlternatives):
        #: the whole message as it was when it was dumped
        carried_mime = raw

        def message(self, *, policy: Any = None) -> Any:
            return mime.to_verbatim(raw, policy or _DEFAULT_POLICY)

    return CarriedMessage


def _restore(message: dict[str, Any], types: dict[str, Any]) -> None:
    """Put the Python objects back into the places of a message that hold strings for them."""
    for pointer, kind in types.items():
        path = kinds.steps(pointer)
        if isinstance(kind, str) and path[0] not in ("attachments", "alternatives", "send_at") and kind != "none":
            holder, last = kinds.find(message, path)
            holder[last] = kinds.from_text(holder[last], kind)


def _attachment(item: dict[str, str], types: dict[str, Any], index: int) -> Any:
    if "mime" in item:
        style = types.get(f"/attachments/{index}/mime", "old") if _DJANGO_6 else "old"
        return mime.to_part(b64decode(item["mime"]), style)
    kind = types.get(f"/attachments/{index}/content")
    content: Any = b64decode(item["content"])
    if kind == "text" or (kind is None and item["mimetype"].startswith("text/")):
        content = content.decode()
    elif kind is not None:
        content = mime.to_message(content, kind)
    return EmailAttachment(item.get("filename"), content, item["mimetype"])


def _alternative(item: dict[str, str], types: dict[str, Any], index: int) -> Any:
    match types.get(f"/alternatives/{index}/content"):
        case None:
            return item["content"]
        case "base64":
            return b64decode(item["content"])
        case style:
            return mime.to_message(b64decode(item["content"]), style)


def _set_attributes(email: EmailMultiAlternatives, message: dict[str, Any], types: dict[str, Any]) -> None:
    """Set what Django's constructor does not take, and only what was given."""
    if message.get("from_email") == "":
        email.from_email = ""  # the constructor puts the default in its place
    if "content_subtype" in message:
        email.content_subtype = message["content_subtype"]
    if "encoding" in message:
        details = types.get("/encoding")
        encoding = message["encoding"]
        email.encoding = kinds.to_charset(encoding, details) if details else encoding
    for name in ANYMAIL_FIELDS & message.keys():
        setattr(email, name, message[name])
    if "send_at" in message and "/send_at" not in types:
        email.send_at = datetime.fromisoformat(message["send_at"])
    for pointer, kind in types.items():
        if kind == "none":
            setattr(email, pointer[1:], None)


def _connect(email: EmailMessage, connection: object) -> None:
    """Set the connection. Django 6.1 deprecates the attribute for others but reads it under another name."""
    setattr(email, "_connection" if hasattr(email, "_connection") else "connection", connection)


def stamp(email: EmailMessage, *, message_id: str, date: str) -> None:
    """
    Make the MIME message that *email* builds carry these two headers, unless the program has given its own.

    Django makes new ones each time ``message()`` is called; with these every attempt sends the same. ``extra_headers``,
    which a backend for an API reads, stays as it is, and so do the bytes of a message that came with its own MIME.

    Args:
        message_id: With angle brackets.
        date: As RFC 5322, 3.3 has it, such as ``email.utils.format_datetime`` returns.
    """
    # for providers that take an idempotency key instead of a Message-ID
    email.stamped_message_id = message_id
    if hasattr(email, "carried_mime"):
        # these very bytes are what its program wants sent
        return
    build = email.message
    own = {name.lower() for name in email.extra_headers}

    def message(*args: Any, **options: Any) -> Any:
        made = build(*args, **options)
        for name, value in (("Message-ID", message_id), ("Date", date)):
            if name not in made:
                made[name] = value
            elif name.lower() not in own:
                made.replace_header(name, value)
        return made

    email.message = message
