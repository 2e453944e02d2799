"""
``EmailBackend``: hands Django's messages to the service.

**Several messages.** Without ``WAIT`` all of them go to RabbitMQ at once, and are waited for once. One that cannot be
used does not stop the others: afterwards the first error is raised, each message's ``mail_service_status`` says what
became of it, and what RabbitMQ confirmed stays confirmed. With ``WAIT`` they are delivered one after the other, and the
first that fails ends it, as with Django's SMTP backend.

**The count** is that of the messages that RabbitMQ has confirmed; with ``WAIT``, that were delivered to somebody or are
held by the service; with ``ON_COMMIT``, that wait for the commit; with ``OUTBOX``, that are in the outbox, too.
Messages without recipients are not sent and count 0.

**fail_silently** is about mail: whatever keeps a message from being sent lowers the count. A mistake in the settings is
raised all the same, and so is an error of the database that the outbox is in: it concerns the caller's transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.utils.timezone import is_naive, make_aware

from mail_service.client import MailClient
from mail_service.client.mailclient import UNKNOWN_SENDER
from mail_service.django import settings, statuses
from mail_service.django.clients import client_for
from mail_service.django.committing import AfterCommit
from mail_service.django.errors import as_django_has_it, of_answer, to_answer
from mail_service.errors import DeliveryFailed, InvalidMessage, MailServiceError, Timeout, Unavailable
from mail_service.message import Options
from mail_service.message.checks import Checked
from mail_service.message.dumping import checked_dump


@dataclass(slots=True, kw_only=True)
class _Letter:
    """A message as it was when it was handed in, and how it went."""

    email: EmailMessage
    #: fixed here, so that a message whose outcome is unknown can be handed in again as the same mail
    id: str
    #: None where there is an error
    mail: tuple[Checked, Options] | None = None
    is_done: bool = False
    error: MailServiceError | None = None

    def fail(self, exc: MailServiceError) -> None:
        self.error = as_django_has_it(exc)
        if self.error is not exc:
            self.error.__cause__ = exc
        statuses.note(self.email, to_answer(exc, self.id))


class EmailBackend(BaseEmailBackend):
    """
    Django's door to the service.

    Args:
        fail_silently: As in Django.
        alias: Of the ``MAILERS`` entry.
        options: Names of ``MAIL_SERVICE``, which they override; in lower case too (``get_connection(wait=True)``).
            Others are Django's to judge: an error for an entry of ``MAILERS``, ignored without one.

    Raises ImproperlyConfigured when the settings cannot be used.
    """

    def __init__(self, fail_silently: bool = False, *, alias: str | None = None, **options: Any) -> None:
        ours = {name: value for name, value in options.items() if settings.is_key(name.upper())}
        super().__init__(alias=alias, **{name: value for name, value in options.items() if name not in ours})
        self.alias = alias
        self.fail_silently = fail_silently
        self.settings = _settings(ours, alias)

    @property
    def client(self) -> MailClient:
        """The process's client for these settings; for asking (``status``) or operating (``call``) the service."""
        return client_for(self.settings)

    def send_messages(self, email_messages: Iterable[EmailMessage]) -> int:
        """
        Send *email_messages*; returns how many. See the module for several messages, the count and fail_silently.

        Raises InvalidMessage (a ValueError; for a line break in a header also Django's BadHeaderError), Unavailable (a
        ConnectionError) when RabbitMQ has nothing, Timeout (a TimeoutError) when that is unknown, and with ``WAIT``
        DeliveryFailed or Expired (SMTPExceptions) or Conflict. With ``OUTBOX`` it raises DatabaseError instead of
        Unavailable and Timeout.
        """
        # for the error in the settings, if there is one
        _ = self.client
        self._check_outbox()
        letters = [self._letter(email) for email in email_messages or () if email.recipients()]
        if not letters:
            return 0
        if not self.settings.on_commit:
            return self._send(letters)
        sound = [letter for letter in letters if letter.error is None]
        waiting = AfterCommit(self.settings.on_commit, lambda: self._send(sound))
        self._raise_first(letters)
        return len(sound) if waiting.result is None else waiting.result

    async def asend_messages(self, email_messages: Iterable[EmailMessage]) -> int:
        """Do as ``send_messages`` without blocking the event loop."""
        # the thread that has the caller's transaction, if there may be one; else any, so that none waits for another
        send = sync_to_async(self.send_messages, thread_sensitive=bool(self.settings.on_commit or self.settings.outbox))
        return int(await send(list(email_messages or ())))

    def _letter(self, email: EmailMessage) -> _Letter:
        statuses.note(email, None)
        letter = _Letter(email=email, id=str(uuid.uuid4()))
        try:
            if given := self._options(email):
                letter.id = given.setdefault("id", letter.id)
                options = Options.parse(given)
            else:
                options = Options(id=letter.id)
            checked = checked_dump(
                email,
                default_from=UNKNOWN_SENDER,
                max_size=self.settings.max_size,
                bounds=self.settings.bounds,
            )
            letter.mail = checked, options
        except InvalidMessage as exc:
            letter.fail(exc)
        return letter

    def _options(self, email: EmailMessage) -> dict[str, Any]:
        own = getattr(email, "mail_service", None)
        if own is not None and not isinstance(own, Mapping):
            raise InvalidMessage("options", f"message.mail_service must be a dict, not a {type(own).__name__}")
        merged = {**self.settings.options, **(own or {})}
        return {name: _plain(value) for name, value in merged.items() if name != "id" or value is not None}

    def _send(self, letters: Sequence[_Letter]) -> int:
        # after a commit it may be another one than when the message was handed in
        client = self.client
        if self.settings.wait:
            self._deliver(client, letters)
        elif self.settings.outbox is True:
            self._store([letter for letter in letters if letter.error is None])
        else:
            _hand_over(client, [letter for letter in letters if letter.error is None])
            if self.settings.outbox:
                self._store([letter for letter in letters if isinstance(letter.error, Unavailable | Timeout)])
        return self._raise_first(letters)

    def _store(self, letters: Sequence[_Letter]) -> None:
        """To the outbox, with the same ids: those whose outcome is unknown stay one mail."""
        if not letters:
            return
        # the models of an app that is not installed cannot be imported before Django is set up
        from mail_service.django.outbox.storing import store  # noqa: PLC0415

        mails = [(message.message, options.to_json()) for message, options in _mails(letters)]
        for letter, answer in zip(letters, store(mails, entry=self.alias), strict=True):
            letter.error, letter.is_done = None, True
            statuses.note(letter.email, answer)

    def _check_outbox(self) -> None:
        """A row says which entry of MAILERS it was sent with, and no more: it would go to another broker."""
        if self.settings.outbox and self.alias is None and _broker(self.settings) != _broker(settings.read()):
            raise ImproperlyConfigured(
                "EmailBackend() has OUTBOX and a broker other than that of MAIL_SERVICE, which the outbox cannot know "
                "later. Make it an entry of MAILERS, or give it outbox=False."
            )

    def _deliver(self, client: MailClient, letters: Iterable[_Letter]) -> None:
        """One after the other; what comes after an error is sent with fail_silently only, as in Django."""
        for letter in letters:
            if letter.error is None:
                _deliver_one(client, letter)
            if letter.error is not None and (not self.fail_silently or isinstance(letter.error, Unavailable)):
                return

    def _raise_first(self, letters: Sequence[_Letter]) -> int:
        """How many went well. Raises the first error."""
        errors = [letter.error for letter in letters if letter.error is not None]
        went_well = sum(letter.is_done for letter in letters)
        if errors and not self.fail_silently:
            if len(letters) > 1:
                errors[0].add_note(f"{went_well} of {len(letters)} messages were sent: see their mail_service_status.")
            raise errors[0]
        return went_well


def _settings(options: Mapping[str, Any], alias: str | None) -> settings.Settings:
    named = {name.upper(): value for name, value in options.items()}
    if alias is not None:
        return settings.read(named, place=f"MAILERS[{alias!r}]['OPTIONS']")
    # get_connection's callers pass on what they were not given; in settings None would hide a mistake
    given = {name: value for name, value in named.items() if value is not None}
    return settings.read(given, place="EmailBackend()")


def _plain(value: object) -> Any:
    """What programs have at hand: an UUID as id, a datetime without offset, which is in Django's current time zone."""
    match value:
        case uuid.UUID():
            return str(value)
        case datetime():
            return (make_aware(value) if is_naive(value) else value).isoformat()
    return value


def _broker(chosen: settings.Settings) -> tuple[Any, ...]:
    return chosen.amqp_uri, chosen.amqp_ssl, chosen.login_method


def _mails(letters: Iterable[_Letter]) -> Iterator[tuple[Checked, Options]]:
    return (letter.mail for letter in letters if letter.mail is not None)


def _hand_over(client: MailClient, letters: Sequence[_Letter]) -> None:
    if not letters:
        return
    try:
        answers = client.submit_checked(_mails(letters))
    except MailServiceError as exc:
        for letter in letters:
            letter.fail(exc)
        return
    for letter, answer in zip(letters, answers, strict=True):
        if "error" in answer:
            letter.fail(of_answer(answer))
        else:
            statuses.note(letter.email, answer)
            letter.is_done = True


def _deliver_one(client: MailClient, letter: _Letter) -> None:
    ((message, options),) = _mails([letter])
    chosen: dict[str, Any] = options.to_json()
    try:
        statuses.note_record(letter.email, client.send(message.message, **chosen))
        letter.is_done = True
    except DeliveryFailed as exc:
        letter.fail(exc)
        # what became of each recipient; without an answer the error itself has to do
        with suppress(MailServiceError):
            statuses.note_record(letter.email, client.status(letter.id))
    except MailServiceError as exc:
        letter.fail(exc)
