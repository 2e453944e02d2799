"""From Django to the wire: ``dump``."""

from __future__ import annotations

import datetime as dt
import math
import sys
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.charset import Charset
from email.message import Message
from typing import Any, ClassVar

import django
from django.conf import settings
from django.core.mail import EmailMessage
from django.utils.functional import Promise
from django.utils.timezone import get_current_timezone, is_naive, make_aware

from mail_service.bounds import DEFAULT, Bounds
from mail_service.errors import InvalidMessage
from mail_service.message import kinds, mime
from mail_service.message.checks import SURROGATE, Checked, canonical_form, checked_in_canonical_form
from mail_service.message.overrides import builds_otherwise, knows_other_recipients
from mail_service.message.words import key


class WrongType(InvalidMessage, TypeError):
    """One string where a list belongs: a TypeError from Django and from Anymail, whose words these are."""


def dump(email: EmailMessage) -> dict[str, Any]:
    """
    Return *email* JSON-ready, as CONTRACT has a message; ``load`` makes the same mail of it again.

    Other attributes than those of Django's and Anymail's messages are left out, as is the connection. Addresses are
    carried as they are; whether the mail would be accepted is for ``validate``.

    Raises:
        InvalidMessage: names the attribute that cannot be carried.
    """
    return canonical_form(_Dump(email).fields(), strict=False)


def checked_dump(email: EmailMessage, *, default_from: str, max_size: int, bounds: Bounds = DEFAULT) -> Checked:
    """Do as ``dump`` and ``validate`` in one, for a mail that is handed in now; raises as both do."""
    fields = _Dump(email).fields()
    return checked_in_canonical_form(fields, default_from=default_from, max_size=max_size, bounds=bounds)


@dataclass(slots=True)
class _Dump:
    """One message on its way; ``types`` collects what JSON cannot tell, see ``kinds``."""

    email: EmailMessage
    types: dict[str, Any] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        email = self.email
        self._check_recipients()
        made: dict[str, Any] = {
            "subject": self._text_or_none(email.subject, "subject"),
            "body": self._body(),
            "from_email": self._text_or_none(email.from_email, "from_email"),
            "headers": self._headers(email.extra_headers or {}, "headers"),
            "content_subtype": _text(email.content_subtype, "content_subtype"),
            "encoding": self._encoding(),
            "attachments": self._attachments(),
            "alternatives": self._alternatives(),
            "mime": self._mime(),
        }
        for name in ("to", "cc", "bcc", "reply_to"):
            made[name] = [
                _text(item, f"{name}[{index}]") for index, item in enumerate(_items(getattr(email, name), name))
            ]
        self._add_anymail(made)
        if self.types:
            made["types"] = self.types
        return made

    def _check_recipients(self) -> None:
        """Refuse a message whose own ``recipients()`` knows others than to, cc and bcc."""
        if not knows_other_recipients(self.email):
            return
        fields = (address for name in ("to", "cc", "bcc") for address in getattr(self.email, name))
        if list(map(str, self.email.recipients())) != [str(address) for address in fields if address]:
            raise InvalidMessage(
                "recipients", "is overridden and names others than to, cc and bcc; that cannot be carried"
            )

    def _text_or_none(self, value: object, name: str) -> str | None:
        if value is None:
            self.types[f"/{name}"] = "none"
            return None
        return _text(value, name)

    def _body(self) -> str:
        body: object = self.email.body
        if not body:
            return ""
        if not isinstance(body, bytes):
            return _text(body, "body")
        encoding = self.email.encoding
        try:
            return body.decode(encoding if isinstance(encoding, str) else "utf-8")
        except ValueError as error:
            raise InvalidMessage("body", "is bytes that are not text in the message's encoding") from error

    def _encoding(self) -> str | None:
        """Return the encoding; the project's own DEFAULT_CHARSET too, since the service may have another."""
        encoding = self.email.encoding
        if encoding is None:
            return None if settings.DEFAULT_CHARSET.lower() == "utf-8" else str(settings.DEFAULT_CHARSET)
        if not isinstance(encoding, Charset):
            return _text(encoding, "encoding")
        if (details := kinds.from_charset(encoding)) is None:
            raise InvalidMessage(
                "encoding", "is a Charset that does more than its attributes say; that cannot be carried"
            )
        self.types["/encoding"] = details
        return str(encoding.input_charset)

    def _headers(self, headers: Any, place: str, *path: str) -> dict[str, str]:
        if not isinstance(headers, Mapping):
            raise InvalidMessage(place, f"is a {type(headers).__name__}, not a dict")
        path = path or ("headers",)
        return {
            str(name): self._plain(value, f"{place}{key(name)}", *path, str(name)) for name, value in headers.items()
        }

    def _plain(self, value: object, place: str, *path: str | int) -> str:
        """Return the string for *value* where only strings may stand, and note what it was."""
        if isinstance(value, str) or _is_lazy(value):
            return str(value)
        if (found := kinds.plain_to_text(value)) is None:
            raise _cannot(place, value)
        text, self.types[kinds.pointer(*path)] = found
        return text

    def _anything(self, value: object, place: str, *path: str | int) -> Any:
        """Return *value* as JSON, and note what other types its strings stand for."""
        if value is None or isinstance(value, str | bool | int | float | Promise):
            return _scalar(value, place)
        if len(path) > 70:
            raise InvalidMessage(place[:100], "is nested too deep, or contains itself")
        if isinstance(value, Mapping):
            return {
                _key(name, place): self._anything(item, f"{place}{key(name)}", *path, _key(name, place))
                for name, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._anything(item, f"{place}[{index}]", *path, index) for index, item in enumerate(value)]
        if (found := kinds.to_text(value)) is None:
            raise _cannot(place, value)
        text, self.types[kinds.pointer(*path)] = found
        return text

    def _attachments(self) -> list[dict[str, Any]]:
        return [
            self._attachment(item, f"attachments[{index}]", index)
            for index, item in enumerate(_items(self.email.attachments, "attachments"))
        ]

    def _attachment(self, item: Any, place: str, index: int) -> dict[str, Any]:
        if isinstance(item, Message):
            if (style := mime.style(item)) != "old":
                self.types[f"/attachments/{index}/mime"] = style
            return {"mime": _base64(mime.to_bytes(item))}
        if not isinstance(item, tuple | list) or not 1 < len(item) < 4:
            raise InvalidMessage(place, "is neither a MIME part nor (filename, content, mimetype)")
        filename, content, mimetype = (*item, None)[:3]
        raw, kind = self._content(content, f"{place}.content")
        mimetype = None if mimetype is None else _text(mimetype, f"{place}.mimetype")
        if kind is not None and not (kind == "text" and (mimetype or "").startswith("text/")):
            self.types[f"/attachments/{index}/content"] = kind
        return {
            "filename": _text(filename, f"{place}.filename") if filename else None,
            "content": _base64(raw),
            "mimetype": mimetype or ("message/rfc822" if isinstance(content, EmailMessage | Message) else None),
        }

    def _content(self, content: Any, place: str) -> tuple[bytes, str | None]:
        """Return the bytes of an attachment and what they were, if not bytes."""
        if isinstance(content, EmailMessage):
            content = content.message()
            if django.VERSION < (6, 0):  # Anymail attaches these very bytes, but writes other messages in seven bits
                return content.as_bytes(linesep="\r\n"), None
        if isinstance(content, bytes | bytearray | memoryview):
            return bytes(content), None
        if isinstance(content, Message):
            return mime.to_bytes(content), mime.style(content)
        if not isinstance(content, str) and not _is_lazy(content):
            raise _cannot(place, content)
        try:
            return str(content).encode(), "text"
        except UnicodeEncodeError as error:
            raise InvalidMessage(place, SURROGATE) from error

    def _alternatives(self) -> list[dict[str, Any]]:
        return [
            self._alternative(item, f"alternatives[{index}]", index)
            for index, item in enumerate(_items(getattr(self.email, "alternatives", ()), "alternatives"))
        ]

    def _alternative(self, item: Any, place: str, index: int) -> dict[str, Any]:
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise InvalidMessage(place, "is not (content, mimetype)")
        content, mimetype = item
        made = {"mimetype": _text(mimetype, f"{place}.mimetype")}
        if isinstance(content, str) or _is_lazy(content):
            return {**made, "content": str(content)}
        raw, kind = self._content(content, f"{place}.content")
        self.types[f"/alternatives/{index}/content"] = kind or "base64"
        return {**made, "content": _base64(raw)}

    def _mime(self) -> str | None:
        """Return the whole message where it is not what Django would build of the fields."""
        email = self.email
        if (carried := getattr(email, "carried_mime", None)) is not None and "message" not in vars(email):
            return _base64(carried)
        if not builds_otherwise(email):
            return None
        message: Any = email.message()
        try:
            return _base64(message.as_bytes())
        except AttributeError as error:
            raise InvalidMessage(
                "message", f"message() returned {type(message).__name__}, which is no message"
            ) from error

    def _add_anymail(self, made: dict[str, Any]) -> None:
        for name, convert in self._CONVERTERS.items():
            value = getattr(self.email, name, _MISSING)
            if value is _MISSING or _is_unset(value):
                continue
            if value is None:
                self.types[f"/{name}"] = "none"
            else:
                made[name] = convert(self, value, name)

    def _envelope_sender(self, value: Any, name: str) -> str:
        return _text(value, name)

    def _object(self, value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise InvalidMessage(name, f"is a {type(value).__name__}, not a dict")
        return self._anything(value, name, name)  # type: ignore[no-any-return]  # a dict again

    def _headers_by_recipient(self, value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise InvalidMessage(name, f"is a {type(value).__name__}, not a dict")
        return {
            str(address): self._headers(headers, f"{name}{key(address)}", name, str(address))
            for address, headers in value.items()
        }

    def _tags(self, value: Any, name: str) -> list[str]:
        return [self._plain(item, f"{name}[{index}]", name, index) for index, item in enumerate(_items(value, name))]

    def _flag(self, value: Any, name: str) -> bool:
        if value not in (True, False):
            raise _cannot(name, value)
        return bool(value)

    def _send_at(self, value: Any, name: str) -> str:
        """Return the time as Anymail reads it here, in this project's time zone; a string is for the ESP as it is."""
        if isinstance(value, str) or _is_lazy(value):
            self.types["/send_at"] = "text"
            return str(value)
        try:
            return _aware(value).isoformat()
        except (TypeError, ValueError, OverflowError, OSError) as error:
            raise InvalidMessage(name, "must be a datetime, a date, a timestamp or a string") from error

    def _template_id(self, value: Any, name: str) -> str | int:
        if isinstance(value, int) and not isinstance(value, bool):
            return int(value)
        return self._plain(value, name, name)

    #: Anymail's attributes
    _CONVERTERS: ClassVar[dict[str, Callable[[_Dump, Any, str], Any]]] = {
        "envelope_sender": _envelope_sender,
        "metadata": _object,
        "merge_metadata": _object,
        "tags": _tags,
        "track_opens": _flag,
        "track_clicks": _flag,
        "send_at": _send_at,
        "template_id": _template_id,
        "merge_data": _object,
        "merge_global_data": _object,
        "merge_headers": _headers_by_recipient,
        "esp_extra": _object,
    }


_MISSING = object()


def _scalar(value: Any, place: str) -> str | bool | int | float | None:
    """Return the value JSON's encoder would write for one of a subclass: an enumeration's, say, or a lazy string's."""
    match value:
        case None | bool():
            return value
        case str() | Promise():
            return str(value) if _is_lazy(value) else str.__str__(value)
        case int():
            return int(value)
    if not math.isfinite(value):
        raise InvalidMessage(place, "must be a finite number")
    return float(value)


def _text(value: object, place: str) -> str:
    """Return a string, a lazy one, or what knows itself how it is written (an ``Address``) as a string."""
    if type(value) is str:
        return value
    if value is None or isinstance(value, bytes | bytearray | memoryview):
        raise _cannot(place, value)
    return str(value)


def _cannot(place: str, value: object) -> InvalidMessage:
    return InvalidMessage(place, f"is a {type(value).__name__}, which cannot be carried")


def _items(value: Any, place: str) -> Iterable[Any]:
    if value is None:
        return ()
    # the usual ones, without a question to abstract classes
    if type(value) is list or type(value) is tuple:
        return value
    if isinstance(value, str | bytes | Mapping) or _is_lazy(value) or not isinstance(value, Iterable):
        raise WrongType(place, f'"{place}" attribute must be a list or other iterable, not a {type(value).__name__}')
    return value


def _key(name: object, place: str) -> str:
    """Return a dict's key as JSON has it."""
    match name:
        case str():
            return str(name)
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[name]
        case int():
            return int.__repr__(name)
        case float() if math.isfinite(name):
            return float.__repr__(name)
    if _is_lazy(name):
        return str(name)
    raise _cannot(f"{place}{key(name)}", name)


def _base64(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")


def _is_lazy(value: object) -> bool:
    return isinstance(value, Promise)


def _is_unset(value: object) -> bool:
    """Whether this is Anymail's word for "never set"; then its module is loaded."""
    anymail = sys.modules.get("anymail.utils")
    return anymail is not None and value is anymail.UNSET


def _aware(value: Any) -> dt.datetime:
    """Do what Anymail's ``BasePayload.aware_datetime`` does."""
    if not isinstance(value, dt.datetime):
        if isinstance(value, dt.date):
            value = dt.datetime(value.year, value.month, value.day)  # noqa: DTZ001  # made aware below
        else:
            value = dt.datetime.fromtimestamp(value, dt.UTC)
    aware: dt.datetime = make_aware(value, get_current_timezone()) if is_naive(value) else value
    return aware
