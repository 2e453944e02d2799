"""
Hands one mail to one configured backend and says how it went for each recipient. What comes next is decided elsewhere.

``smtp`` speaks SMTP itself, ``django_backend`` asks any Django email backend, ``rehearsal`` is such a backend that
plays failures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

from mail_service.diagnosis import Context, Stage, diagnose
from mail_service.outcome import Diagnosis, Receipt

SMTP_BACKEND: Final = "django.core.mail.backends.smtp.EmailBackend"

#: Django's message; Django has no types of its own
Email: TypeAlias = Any
#: what ``mail.classifier`` names
Classifier: TypeAlias = Callable[[BaseException, Context], Diagnosis]


class Mailer(Protocol):
    """
    One configured way to send. Used by many workers at a time.

    One that needs no Django message has a method ``send_canonical`` besides, which is asked instead of ``send``: see
    ``SmtpMailer``.
    """

    #: its name in the configuration
    name: str
    #: dotted path of the backend
    backend: str
    #: ``retry`` or ``give_up``
    on_unknown: str
    #: the provider waits for ``send_at``; else the service does, before the mail is handed over
    keeps_send_at: bool

    def send(self, email: Email, waiting: Sequence[str], *, attempt: int = 0) -> list[Receipt]:
        """
        Hand *email* over for those *waiting*, and return exactly one receipt for each of them.

        Args:
            email: A loaded Django message with all its recipients, Message-ID and Date already in its headers.
            waiting: Bare addresses, as typed, that are still to be mailed.
            attempt: 1 for the first; for the classifier's context.

        Raises:
            AttemptFailed: when nothing can be said about single recipients and the stage is known.
            Exception: whatever a backend raises, when the stage is not known. ``unwrap`` reads both.
        """
        ...

    def check(self) -> str:
        """Return one sentence when the backend can be reached; raise as ``send`` does when not."""
        ...

    def close(self) -> None:
        """Close what is kept open. Never raises. The mailer can be used again."""
        ...


class MailerSettings(Protocol):
    """What a mailer needs of its entry in the configuration."""

    @property
    def name(self) -> str: ...

    @property
    def backend(self) -> str: ...

    @property
    def options(self) -> Mapping[str, object]: ...

    @property
    def on_unknown(self) -> str: ...

    @property
    def limit(self) -> Limit | None: ...

    @property
    def http_retry(self) -> Mapping[str, Any] | None: ...


class Limit(Protocol):
    """How many attempts may be in flight at a time; also how many connections are worth keeping."""

    @property
    def concurrency(self) -> int | None: ...


class AttemptFailed(Exception):
    """An attempt ended in *error* for everybody in it. *stage* says how far the conversation was."""

    def __init__(self, error: BaseException, stage: Stage | None = None) -> None:
        super().__init__(str(stage or "unknown stage"))
        self.error = error
        self.stage = stage


class CannotExpress(ValueError):
    """The message asks for something that this mailer has no words for, and would silently go without."""


def unwrap(error: BaseException) -> tuple[BaseException, Stage | None]:
    """Return the error as its backend raised it, and its stage: what a classifier is asked about."""
    return (error.error, error.stage) if isinstance(error, AttemptFailed) else (error, None)


def open_mailer(
    settings: MailerSettings,
    *,
    classify: Classifier = diagnose,
    attempt_timeout_s: float = 120.0,
    sign: Callable[[Sequence[bytes]], Sequence[bytes]] | None = None,
) -> Mailer:
    """
    Make the mailer of one entry of the configuration. Cheap: nothing is imported or connected before its first use.

    Args:
        classify: Asked about single recipients' refusals, with what smtplib would raise for them. Must not raise.
        attempt_timeout_s: Seconds; no single wait for the other side is longer.
        sign: Puts a signature in front of what goes over SMTP: see ``signing``.
    """
    if settings.backend == SMTP_BACKEND:
        from mail_service.mailers.smtp import SmtpMailer  # noqa: PLC0415 - needs Django, which this module does not

        return SmtpMailer(settings, classify=classify, attempt_timeout_s=attempt_timeout_s, sign=sign)
    from mail_service.mailers.django_backend import DjangoMailer  # noqa: PLC0415 - the same

    return DjangoMailer(settings, classify=classify, attempt_timeout_s=attempt_timeout_s, sign=sign)
