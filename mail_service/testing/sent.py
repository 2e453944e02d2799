"""What was handed in, as messages to be looked at; and what answers in RabbitMQ's place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from mail_service.client.parcel import Parcel, Progress
from mail_service.envelope import Envelope
from mail_service.errors import Expired, MailServiceError, Timeout
from mail_service.message import digest, load, recipients, validate
from mail_service.outcome import Status
from mail_service.testing.failing import Error, Failure

_ANY_SENDER = "unknown@mail-service.invalid"


@dataclass(slots=True, kw_only=True)
class HandedIn:
    """A mail as it was handed in."""

    id: str
    #: the JSON object
    message: dict[str, Any]
    #: the JSON object, the id included
    options: dict[str, Any]
    #: ``client`` (handed to RabbitMQ), ``submit`` or ``send``
    door: str
    #: bare addresses of to, cc and bcc, each once
    recipients: list[str]
    #: the same for the same message
    digest: str
    #: ISO 8601
    submitted_at: str
    #: what became of it
    status: Status = Status.SENT
    #: why it was not delivered
    error: str | None = None
    _email: Any = field(default=None, repr=False)

    @property
    def record(self) -> dict[str, Any]:
        """The answer of ``status``."""
        state = {"status": str(self.status), "message_id": None, "detail": self.error}
        return {
            "id": self.id,
            "status": str(self.status),
            "mailer": self.options.get("mailer", "default"),
            "tenant": self.options.get("tenant"),
            "priority": self.options.get("priority", "normal"),
            "attempts": 1,
            "recipients": {address: dict(state) for address in self.recipients},
            "submitted_at": self.submitted_at,
            "updated_at": self.submitted_at,
            "next_attempt_at": None,
            "error": self.error,
        }

    @property
    def email(self) -> Any:
        """
        The ``EmailMessage`` that a mailer would have got, always the same one. Needs Django's settings.

        It has the options as ``mail_service``, the record as ``mail_service_status``.
        """
        if self._email is None:
            self._email = load(self.message)
            self._email.mail_service = dict(self.options)
        self._email.mail_service_status = self.record
        return self._email


class SentMails(Sequence[Any]):
    """
    The mails that were sent, each as an ``EmailMessage``, in order. The same id is one mail, as with the service.

    A mail is here once RabbitMQ would have had it, whether it was then delivered or, having been told to ``fail``, not.
    """

    def __init__(self) -> None:
        #: each mail once, as JSON; needs no Django settings
        self.handed_in: list[HandedIn] = []
        #: ids in the order in which they were handed in, doubles included
        self.ids: list[str] = []
        #: ids that came again with another message: the service would put those into its error log
        self.conflicts: list[str] = []
        self._failures: list[Failure] = []

    def __len__(self) -> int:
        return len(self.handed_in)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [one.email for one in self.handed_in[index]]
        return self.handed_in[index].email

    def __repr__(self) -> str:
        return f"<SentMails: {[one.message.get('subject', '') for one in self.handed_in]}>"

    def to(self, address: str) -> list[Any]:
        """Those of which *address*, bare, is a recipient: in to, cc or bcc, in any case of letters."""
        return [one.email for one in self.handed_in if address.lower() in map(str.lower, one.recipients)]

    def of_id(self, mail_id: str) -> HandedIn | None:
        """The one with this id."""
        return next((one for one in self.handed_in if one.id == mail_id), None)

    def fail(
        self,
        error: Error,
        *,
        times: int | None = None,
        taken: bool = False,
        method: str | None = None,
        only: Callable[[HandedIn], bool] | None = None,
    ) -> None:
        """
        Have handing in a mail fail.

        Args:
            error: Of ``mail_service.errors``, class or exception. Unavailable: nothing is handed over. Timeout: that is
                unknown. DeliveryFailed and Expired: the mail is handed in and not delivered; ``send`` raises it.
            times: How often; None is until ``recover``.
            taken: For Timeout: the mail got there nevertheless.
            method: Instead the answer to this method of the service fails, such as ``status``.
            only: The mails concerned.
        """
        self._failures.append(Failure(error=error, times=times, taken=taken, method=method, only=only))

    def recover(self) -> None:
        """Everything works again."""
        self._failures.clear()

    def clear(self) -> None:
        """Forget all mails."""
        self.handed_in.clear()
        self.ids.clear()
        self.conflicts.clear()

    def failure(self, *, method: str, about: str) -> MailServiceError | None:
        """What an answer to *method* is to fail with."""
        due = next((one for one in self._failures if one.is_due(method=method, mail=None)), None)
        return due.happen(about) if due else None

    def take(self, parcels: Iterable[Parcel]) -> MailServiceError | None:
        """Stand in for RabbitMQ: note the mails' progress, and return what went wrong."""
        problem = None
        for parcel in parcels:
            error = self.hand_in(Envelope.parse(parcel.body))
            if error is None:
                parcel.progress = Progress.CONFIRMED
            elif isinstance(error, Timeout):
                parcel.progress = Progress.WRITTEN
            problem = problem or error
        return problem

    def hand_in(self, envelope: Envelope) -> MailServiceError | None:
        """Keep a mail unless it is to fail; returns what it fails with on its way."""
        one = _handed_in(envelope)
        due = [each for each in self._failures if each.is_due(method=None, mail=one)]
        on_its_way = next((each for each in due if not each.is_of_delivery), None)
        error = on_its_way.happen(f"the mail {one.id}", mail_id=one.id) if on_its_way else None
        if on_its_way is None or on_its_way.taken:
            self._keep(one, next((each for each in due if each.is_of_delivery), None))
        return error

    def _keep(self, one: HandedIn, failure: Failure | None) -> None:
        self.ids.append(one.id)
        known = self.of_id(one.id)
        if known is None:
            if failure:
                error = failure.happen(f"the mail {one.id}")
                one.status = Status.EXPIRED if isinstance(error, Expired) else Status.FAILED
                one.error = str(error)
            self.handed_in.append(one)
        elif known.digest != one.digest:
            self.conflicts.append(one.id)


def _handed_in(envelope: Envelope) -> HandedIn:
    canonical = validate(envelope.message, default_from=_ANY_SENDER)
    return HandedIn(
        id=envelope.id,
        message=dict(envelope.message),
        options={**envelope.options, "id": envelope.id},
        door=envelope.door,
        recipients=recipients(canonical),
        digest=digest(canonical),
        submitted_at=envelope.submitted_at,
    )
