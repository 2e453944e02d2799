"""Asks the tables one after the other; what no table knows is permanent, so that one mail never stalls the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from mail_service.diagnosis import errors, http, smtp
from mail_service.diagnosis.context import Context
from mail_service.diagnosis.reading import class_name, class_names, described, stage_of
from mail_service.outcome import Diagnosis, Kind

#: a table's question: its answer, or None when it does not know such an error
Family: TypeAlias = Callable[[BaseException, Context], Diagnosis | None]

_FAMILIES: Final[tuple[Family, ...]] = (http.from_error, smtp.from_error, errors.from_error)

#: Anymail puts this around a provider's client library, whose own error says more (anymail/backends/amazon_ses.py)
_WRAPPER: Final = "anymail.exceptions.AnymailAPIError"


def diagnose(error: BaseException, context: Context) -> Diagnosis:
    """
    Say what *error* means for the recipients of the attempt that it ended. Never raises.

    The default of ``mail.classifier``; another one may call it for what it does not want to decide.
    """
    try:
        return _diagnosed(error, context)
    except Exception:  # noqa: BLE001 - an error that cannot be read must not become an error of ours
        return _poison(error)


def _diagnosed(error: BaseException, context: Context) -> Diagnosis:
    if context.stage == "quit":
        return _at_the_end(error, context)
    found = next((answer for family in _FAMILIES if (answer := family(error, context))), None)
    if found is None and error.__cause__ is not None and _WRAPPER in class_names(error):
        return _diagnosed(error.__cause__, context)
    return found or _poison(error)


def _at_the_end(error: BaseException, context: Context) -> Diagnosis:
    """
    Judge an error of the closing QUIT: the mail was accepted, unless an error before it was being handled.

    Django's SMTP backend closes in a ``finally``, so that an error there hides the one of the mail.
    """
    before = error.__context__
    if before is not None and class_names(before) & {"smtplib.SMTPResponseException", "smtplib.SMTPRecipientsRefused"}:
        return _diagnosed(before, Context(mailer=context.mailer, backend=context.backend, stage=stage_of(before)))
    return Diagnosis(
        kind=Kind.ACCEPTED, text=f"Accepted; then the connection failed. {described(error)}", code="smtp quit"
    )


def _poison(error: BaseException) -> Diagnosis:
    """A fault of the mail, its backend or our code: nothing that waiting would heal."""
    return Diagnosis(kind=Kind.PERMANENT, text=described(error), code=class_name(error))
