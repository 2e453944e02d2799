"""Whether a program's message class builds another mail than its fields say."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.core.mail import EmailMessage

#: the methods by which Django 5.2 and 6 build the MIME message; who overrides one sends other mail than the fields say
_BUILDERS = frozenset(
    {
        "message",
        "_create_message",
        "_create_attachments",
        "_create_alternatives",
        "_create_attachment",
        "_create_mime_attachment",
        "_set_list_header_if_not_empty",
        "_add_bodies",
        "_add_attachments",
        "_add_attachment",
        "_idna_encode_address_header_domains",
    }
)
#: attributes of Django 5.2 that change the MIME message, and what they are there
_SUBTYPES = (("mixed_subtype", "mixed"), ("alternative_subtype", "alternative"))


@lru_cache(maxsize=256)
def _has_standard_recipients(cls: type[Any]) -> bool:
    return defined_by(cls, "recipients")


def knows_other_recipients(email: EmailMessage) -> bool:
    """Whether the class or this very object may name others than those in to, cc and bcc."""
    return "recipients" in vars(email) or not _has_standard_recipients(type(email))  # type: ignore[arg-type]  # hashable


def defined_by(cls: type[Any], name: str) -> bool:
    """Whether *cls* has *name* from Django or Anymail, or not at all."""
    owner = next((base for base in cls.__mro__ if name in vars(base)), None)
    return owner is None or owner.__module__ in ("django.core.mail.message", "anymail.message")


@lru_cache(maxsize=256)
def _is_standard(cls: type[Any]) -> bool:
    return all(defined_by(cls, name) for name in _BUILDERS)


def builds_otherwise(email: EmailMessage) -> bool:
    """Whether the class or this very object changes how the MIME message is built."""
    own = vars(email)
    return (
        not _is_standard(type(email))  # type: ignore[arg-type]  # a class is hashable
        or not _BUILDERS.isdisjoint(own)
        or any(getattr(email, name, usual) != usual for name, usual in _SUBTYPES)
    )
