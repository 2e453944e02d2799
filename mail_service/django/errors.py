"""
The service's errors as Django's backends would raise them, so that a program's ``except`` clauses stay as they are.

    InvalidMessage is a ValueError; BadHeader also Django's BadHeaderError where that is a class of its own (before 6),
        and a TypeError where a string stands in the place of a list
    DeliveryFailed and Expired are smtplib.SMTPExceptions; CannotSend, a DeliveryFailed, is a ValueError too
    Unavailable is a ConnectionError, Timeout a TimeoutError
"""

from __future__ import annotations

import re
import smtplib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import django

from mail_service import errors
from mail_service.errors import InvalidMessage, MailServiceError, Timeout, Unavailable

if django.VERSION >= (6, 0) or TYPE_CHECKING:
    _BadHeaderError = ValueError
else:
    from django.core.mail import BadHeaderError as _BadHeaderError

_ADDRESS_FIELD = re.compile(r"(?:to|cc|bcc|reply_to)(?:\[\d+\])?|from_email|envelope_sender")

#: as the service names what a backend raised, "mail … failed: ValueError: …"; Anymail's are ValueErrors as well
_RAISED_VALUE_ERROR = re.compile(r" failed: (?:ValueError|AnymailInvalidAddress|AnymailUnsupportedFeature): ")


class BadHeader(InvalidMessage, _BadHeaderError):
    """A header has a line break in it: somebody tries to add headers of his own."""


class DeliveryFailed(errors.DeliveryFailed, smtplib.SMTPException):
    """What ``mail_service.errors`` calls so, and what a program that sent over SMTP until now catches."""


class CannotSend(DeliveryFailed, ValueError):
    """
    The mailer's backend raised ValueError: an address or a feature that it has no form for.

    So does Django 6's SMTP backend with letters other than ASCII before the @, which others send.
    """


class Expired(errors.Expired, DeliveryFailed):
    """The retries were used up, or the time."""


def as_django_has_it(exc: MailServiceError) -> MailServiceError:
    """*exc*, or an error that says the same and is also of the class that Django would have raised."""
    match exc:
        case BadHeader() | DeliveryFailed() | TypeError():
            return exc
        case InvalidMessage():
            return _invalid(exc)
        case errors.Expired():
            return Expired(str(exc))
        case errors.DeliveryFailed():
            return CannotSend(str(exc)) if _RAISED_VALUE_ERROR.search(str(exc)) else DeliveryFailed(str(exc))
    return exc


def _invalid(exc: InvalidMessage) -> InvalidMessage:
    problem = exc.problem
    if _ADDRESS_FIELD.fullmatch(exc.field):
        # Django's words
        problem = f"Invalid address; {problem}"
    elif "line break" in problem:
        problem = f"Header values can't contain newlines; it {problem}"
    kind = BadHeader if "line break" in problem else InvalidMessage
    return kind(exc.field, problem)


def of_answer(answer: Mapping[str, Any]) -> MailServiceError:
    """The exception that an *answer* of ``submit_many`` describes, in ``mail_service``'s own form."""
    error = answer["error"]
    text = str(error["message"])
    match error["type"]:
        case "InvalidMessage":
            field = str(error["field"])
            return InvalidMessage(field, text.removeprefix(f"{field}: "))
        case "Timeout":
            return Timeout(text, mail_ids=[answer["id"]])
    return Unavailable(text)


def to_answer(exc: MailServiceError, mail_id: str) -> dict[str, Any]:
    """The other way round, for ``mail_service_status``."""
    described = {"type": type(exc).__name__, "message": str(exc), "field": getattr(exc, "field", None)}
    return {"id": mail_id, "error": described}
