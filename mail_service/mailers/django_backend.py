"""
Asks any Django email backend, every Anymail one included: one message at a time, and one receipt per recipient.

A backend answers with a number, or with an exception; Anymail's add a status per recipient, and those made of smtplib
drop what ``sendmail`` returned about refused recipients. All three are read here. Anymail's are kept open between mails
(``sessions``), any other backend is made for each mail.
"""

from __future__ import annotations

import copy
import inspect
import smtplib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import django
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from mail_service.diagnosis import Context, diagnose, diagnose_recipient, stage_of
from mail_service.mailers import AttemptFailed, CannotExpress, Classifier, Email, MailerSettings
from mail_service.mailers.content import (
    ANYMAIL_FIELDS,
    bare,
    envelope_address,
    envelope_sender,
    is_set,
    require_expressible,
    with_crlf,
)
from mail_service.mailers.idempotency import with_key
from mail_service.mailers.kinship import descends_from
from mail_service.mailers.sessions import Sessions, close, connection_of, is_good_after
from mail_service.mailers.signing import Sign
from mail_service.outcome import Diagnosis, Kind, Receipt

#: seconds, for backends made of Django's SMTP one whose OPTIONS have no timeout
DEFAULT_TIMEOUT_S: Final = 30.0

#: Anymail 15.2's table of features; the others refuse a message with ``send_at``
_KEEPS_SEND_AT: Final = frozenset(
    f"anymail.backends.{esp}.EmailBackend"
    for esp in ("brevo", "mailersend", "mailgun", "mandrill", "resend", "sendgrid", "sparkpost", "unisender_go")
)
_ANYMAIL: Final = "anymail.backends.base.AnymailBaseBackend"
_ANYMAIL_ON_REQUESTS: Final = "anymail.backends.base_requests.AnymailRequestsBackend"
_ANYMAIL_ON_BOTO: Final = "anymail.backends.amazon_ses.EmailBackend"
_SESSION: Final = "requests.sessions.Session"
_configuring = threading.Lock()


def configure_django() -> None:
    """
    Configure Django's settings for mail alone, if nobody did: no apps, no database, no translations.

    Backends get everything from their OPTIONS. A program that brings its own settings configures them first.
    """
    with _configuring:
        if not django_settings.configured:
            django_settings.configure(USE_I18N=False, USE_TZ=True, TIME_ZONE="UTC")


def construct(name: str, path: str, options: Mapping[str, object]) -> Any:
    """
    Make an instance of a backend, as Django's own ``MAILERS`` do from 6.1 on and ``get_connection`` does before.

    ``fail_silently`` is not for us: it turns a failure into a mail that nobody ever hears of again.

    Raises:
        ImproperlyConfigured: when it cannot be imported or does not take these options.
    """
    configure_django()
    options = {key: value for key, value in options.items() if key != "fail_silently"}
    try:
        backend_class = with_key(import_string(path))
        return backend_class(**_how_to_call(backend_class, name), **options)
    except ImproperlyConfigured:
        raise
    except ImportError as error:
        raise ImproperlyConfigured(f"mailer {name!r}: BACKEND {path!r} cannot be imported: {error}") from error
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"mailer {name!r}: BACKEND {path!r} does not take these OPTIONS: {error}") from error


def _how_to_call(backend_class: Any, name: str) -> dict[str, object]:
    if django.VERSION < (6, 1):
        return {"fail_silently": False}
    parameters = inspect.signature(backend_class).parameters.values()
    takes_alias = any(one.name == "alias" or one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
    return {"alias": name} if takes_alias else {}


class DjangoMailer:
    """The mailer for every backend that has none of its own here. See ``Mailer``."""

    def __init__(
        self,
        settings: MailerSettings,
        *,
        classify: Classifier = diagnose,
        attempt_timeout_s: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
        sign: Sign | None = None,
    ) -> None:
        self._sign = sign
        self.name = settings.name
        self.backend = settings.backend
        self.on_unknown = settings.on_unknown
        self.keeps_send_at = settings.backend in _KEEPS_SEND_AT
        self._settings = settings
        self._classify = classify
        self._longest_s = attempt_timeout_s
        self._clock = clock
        self._sessions = Sessions(settings.limit.concurrency if settings.limit else None, clock)
        #: what the OPTIONS say to a backend built on requests, which each attempt may have to make shorter
        self._timeout: Any = None

    def send(
        self, email: Email, waiting: Sequence[str], *, attempt: int = 0, within_s: float | None = None
    ) -> list[Receipt]:
        """
        See ``Mailer.send``.

        Args:
            within_s: Seconds, where less than ``attempt_timeout`` is left of the attempt.
        """
        time_s = self._longest_s if within_s is None else min(within_s, self._longest_s)
        backend = self._sessions.take() or self._made()
        is_anymail = descends_from(backend, _ANYMAIL)
        if not is_anymail:
            require_expressible(email, self.name, ANYMAIL_FIELDS, expresses=getattr(backend, "expresses", ()))
        handed = only_to(email, waiting, complete_headers=not is_anymail)
        answers = _Answers(
            handed, waiting, Context(mailer=self.name, backend=self.backend, attempt=attempt), self._classify
        )
        try:
            self._open(backend)
            self._keep_to(time_s, backend)
            answers.listen(backend, None if is_anymail else self._sender(email, backend), self._sign)
            receipts = answers.to(backend.send_messages([handed]))
        except Exception as error:  # noqa: BLE001 - raised again by to_error, where it is about everybody
            self._leave(backend, error)
            return answers.to_error(error)
        except BaseException:
            _abandon(backend)
            raise
        self._leave(backend)
        return receipts

    def check(self) -> str:
        """See ``Mailer.check``."""
        backend = self._made()
        if hasattr(backend, "file_path"):
            # Django's filebased one opens a new file each time, which would stand empty among the mails
            return f"writes to {backend.file_path}"
        try:
            self._open(backend)
        finally:
            close(backend)
        return f"{self.backend} can be opened"

    def close(self) -> None:
        """See ``Mailer.close``."""
        self._sessions.empty()

    def _made(self) -> Any:
        backend = construct(self.name, self.backend, self._settings.options)
        if descends_from(backend, _ANYMAIL_ON_REQUESTS):
            self._timeout = backend.timeout
        elif descends_from(backend, _ANYMAIL_ON_BOTO):
            # it brings botocore, which others need not
            from mail_service.mailers import ses  # noqa: PLC0415

            ses.tame(backend, self._longest_s)
        elif getattr(backend, "timeout", 0) is None:
            backend.timeout = min(DEFAULT_TIMEOUT_S, self._longest_s)
        return backend

    def _keep_to(self, time_s: float, backend: Any) -> None:
        """Let no wait for an API exceed *time_s*, and repeat as ``http_retry`` says, on whatever has such a session."""
        session: Any = getattr(backend, "session", None)
        if not descends_from(session, _SESSION):
            return
        from mail_service.mailers import http  # noqa: PLC0415 - requests is there

        is_anymail = descends_from(backend, _ANYMAIL_ON_REQUESTS)
        timeout = http.timeouts(self._timeout if is_anymail else getattr(backend, "timeout", None), time_s)
        if is_anymail and timeout is not None:
            backend.timeout = timeout
        if self._settings.http_retry:
            http.mount(session, self._settings.http_retry, http.budget_of(timeout or (0, 0), time_s, self._clock))

    def _leave(self, backend: Any, error: Exception | None = None) -> None:
        """Keep the backend for the next mail where it has something to keep, and nothing is in doubt; else close it."""
        if connection_of(backend) is not None and (error is None or is_good_after(error)):
            self._sessions.put(backend)
        elif error is None:
            close(backend)
        else:
            _abandon(backend)

    def _open(self, backend: Any) -> None:
        """Open on its own what ``send_messages`` would open itself: an error here comes before any mail."""
        if not hasattr(backend, "open"):
            return
        try:
            backend.open()
        except Exception as error:
            raise AttemptFailed(error, stage_of(error) or "connect") from error

    def _sender(self, email: Email, backend: Any) -> str | None:
        """The envelope's sender, where it is not the From and the backend has an envelope."""
        if not is_set(getattr(email, "envelope_sender", None)):
            return None
        if "envelope_sender" not in getattr(backend, "expresses", ()) and not _sendmail(backend):
            raise CannotExpress(f"mailer {self.name!r} cannot express envelope_sender: use SMTP or an Anymail backend")
        return envelope_sender(email)


class _Answers:
    """Everything that a backend lets us know about one message, put together as receipts."""

    def __init__(self, email: Email, waiting: Sequence[str], context: Context, classify: Classifier) -> None:
        self._email = email
        self._waiting = waiting
        self._context = context
        self._classify = classify
        #: by address in the envelope, what sendmail returned; None when it was not called or raised
        self._refused: Mapping[str, tuple[int, bytes]] | None = None
        #: Anymail's name of the provider
        self._esp_name = ""

    def listen(self, backend: Any, sender: str | None, sign: Sign | None) -> None:
        """Note what smtplib's ``sendmail`` returns, put *sender* into its envelope, and *sign* what it sends."""
        self._esp_name = str(getattr(backend, "esp_name", ""))
        sendmail = _sendmail(backend)
        if sendmail is None:
            return

        def listening(from_addr: str, to_addrs: Any, msg: Any, *args: Any, **kwargs: Any) -> Any:
            if sign is not None:
                # the form in which smtplib sends it
                content = msg.encode("ascii") if isinstance(msg, str) else bytes(msg)
                msg = b"".join(sign([with_crlf(content)]))
            returned = sendmail(from_addr if sender is None else sender, to_addrs, msg, *args, **kwargs)
            self._refused = returned if isinstance(returned, Mapping) else {}
            return returned

        with suppress(AttributeError, TypeError):
            backend.connection.sendmail = listening

    def to(self, count: object) -> list[Receipt]:
        """Return the receipts for a number that ``send_messages`` returned."""
        if not _counts(count):
            text = f"The backend accepted no message: it returned {str(count)[:40]}."
            refusal = Diagnosis(kind=Kind.PERMANENT, text=text, code="not accepted", certainly_not_sent=True)
            return [Receipt(address=address, diagnosis=refusal) for address in self._waiting]
        return self._accepted()

    def to_error(self, error: Exception) -> list[Receipt]:
        """Return the receipts for an exception of ``send_messages``, or raise it where it speaks about all alike."""
        if isinstance(error, smtplib.SMTPRecipientsRefused) and isinstance(error.recipients, Mapping):
            return [self._of_refusal(address, error.recipients, error) for address in self._waiting]
        if self._refused is not None or self._statuses():
            # taken before the error, by the server's or the provider's word, as when a receiver of post_send raises
            return self._accepted(error)
        if isinstance(error, AttemptFailed):
            raise error
        raise AttemptFailed(error, stage_of(error)) from error

    def _accepted(self, error: Exception | None = None) -> list[Receipt]:
        statuses = self._statuses()
        refused = self._refused or {}
        return [
            self._of_status(address, statuses, error) if statuses else self._of_refusal(address, refused, None)
            for address in self._waiting
        ]

    def _statuses(self) -> Mapping[str, Any]:
        found = getattr(getattr(self._email, "anymail_status", None), "recipients", None)
        return {_key(address): status for address, status in found.items()} if isinstance(found, Mapping) else {}

    def _of_status(self, address: str, statuses: Mapping[str, Any], error: Exception | None) -> Receipt:
        status = statuses.get(_key(address))
        if status is None and type(error).__name__ == "AnymailRecipientsRefused" and error is not None:
            return Receipt(address=address, diagnosis=self._classify(error, self._context))
        message_id = getattr(status, "message_id", None)
        return Receipt(
            address=address,
            diagnosis=diagnose_recipient(
                address,
                getattr(status, "status", None),
                self._email.anymail_status,
                self._context,
                esp_name=self._esp_name,
                to=[bare(one) for one in self._email.to],
            ),
            message_id=None if message_id is None else str(message_id),
        )

    def _of_refusal(self, address: str, refused: Mapping[str, Any], error: Exception | None) -> Receipt:
        """The receipt of a recipient that may be among the refused; whoever is not shares *error*, or was accepted."""
        reply = {_key(each): reply for each, reply in refused.items()}.get(_key(address))
        if reply is not None:
            error = smtplib.SMTPRecipientsRefused({address: reply})
        if error is None:
            return Receipt(address=address, diagnosis=Diagnosis(kind=Kind.ACCEPTED, text="The backend took the mail."))
        context = Context(
            mailer=self._context.mailer, backend=self._context.backend, stage="rcpt", attempt=self._context.attempt
        )
        return Receipt(address=address, diagnosis=self._classify(error, context))


def only_to(email: Email, waiting: Sequence[str], *, complete_headers: bool) -> Email:
    """
    Return *email* for those *waiting* alone: the message itself when that is everybody, else a copy.

    Args:
        complete_headers: The header fields To and Cc still name everybody. Right for backends that send MIME; one that
            builds an API request takes such a header for a forged one.
    """
    keep = set(waiting)
    fields = {name: [one for one in getattr(email, name) if bare(one) in keep] for name in ("to", "cc", "bcc")}
    if all(len(kept) == len(getattr(email, name)) for name, kept in fields.items()):
        return email
    handed = copy.copy(email)
    if complete_headers:
        complete = {"To": ", ".join(map(str, email.to)), "Cc": ", ".join(map(str, email.cc))}
        handed.extra_headers = {name: value for name, value in complete.items() if value} | email.extra_headers
    for name, kept in fields.items():
        setattr(handed, name, kept)
    return handed


def _counts(count: object) -> bool:
    """Whether what ``send_messages`` returned means that the message was accepted: None does, 0 does not."""
    return count is None or (count > 0 if isinstance(count, int | float) else bool(count))


def _sendmail(backend: Any) -> Callable[..., Any] | None:
    """The open smtplib connection's ``sendmail``, of backends that have one as Django's SMTP backend has."""
    sendmail = getattr(getattr(backend, "connection", None), "sendmail", None)
    return sendmail if callable(sendmail) else None


def _abandon(backend: Any) -> None:
    """Close without a good-bye, which a server that hangs would not answer."""
    for name in ("connection", "_partial_connection"):  # Django's SMTP backend has the second while it logs in
        connection: Any = getattr(backend, name, None)
        if callable(getattr(connection, "sendmail", None)):
            with suppress(Exception):
                connection.close()
                setattr(backend, name, None)
    close(backend)


def _key(address: str) -> str:
    """A form of *address* in which its spellings meet: typed, IDNA-encoded, in any case."""
    try:
        return envelope_address(address).lower()
    except ValueError:
        return address.lower()
