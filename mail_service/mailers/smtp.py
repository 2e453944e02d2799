"""
Sends over SMTP, configured as Django's SMTP backend, with what that one lacks: each recipient's own reply, kept
connections, a timeout in every case, and the stage at which an error happened.
"""

from __future__ import annotations

import inspect
import re
import smtplib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured

from mail_service import message
from mail_service.diagnosis import Context, Stage, diagnose
from mail_service.diagnosis.smtp import accepted
from mail_service.mailers import AttemptFailed, Classifier, Email, MailerSettings
from mail_service.mailers.compose import compose
from mail_service.mailers.content import (
    ANYMAIL_FIELDS,
    envelope_address,
    envelope_sender,
    mime_bytes,
    require_expressible,
    sender_of,
)
from mail_service.mailers.conversation import ChunkingRefused, Conversation, Transfer
from mail_service.mailers.django_backend import construct
from mail_service.mailers.replies import Reply
from mail_service.mailers.signing import Sign
from mail_service.outcome import Receipt

#: seconds, when OPTIONS has no timeout; Django's own default is to wait for ever
DEFAULT_TIMEOUT_S: Final = 30.0
#: seconds after which an unused connection is not trusted without asking
ASK_AFTER_S: Final = 10.0
#: seconds after its last mail for which a connection is taken to be there without a doubt
LIVELY_S: Final = 1.0
#: seconds after which an unused connection is given up: long before the five minutes of RFC 5321, 4.5.3.2.7
KEEP_S: Final = 60.0

#: RFC 5321, 4.5.3.1.10: the recipients beyond a server's limit get 452 and belong into a further transaction
_TOO_MANY_RECIPIENTS = re.compile(rb"4\.5\.3\b|too many recipients", re.IGNORECASE)
#: the server's own id for the mail: Postfix and aiosmtpd's kin, Exim, Amazon SES
_QUEUE_ID = re.compile(
    rb"queued as ([\w-]{4,100})|\bid=([\w-]{6,100})|^(?:2\.\d\.\d )?Ok ([\w-]{40,100})", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """How one transaction ended."""

    refused: dict[str, Reply]
    #: the server's last word, which accepts the mail for all others if there are any; or what ended it for them
    ending: Reply | AttemptFailed

    @property
    def is_accepted(self) -> bool:
        """Whether somebody got the mail."""
        return isinstance(self.ending, Reply) and self.ending.accepts


@dataclass(slots=True)
class _Pool:
    """
    Connections that wait for their next mail, no more than were in use at a time. The one used last is taken first, so
    that those too many grow old.
    """

    #: None: as many as there are
    size: int | None
    #: seconds, from any beginning
    clock: Callable[[], float]
    #: in the order in which they were put here
    _idle: list[Conversation] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> Conversation | None:
        """Return a connection that may be used, or None."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                conversation = self._idle.pop()
            idle_s = self.clock() - conversation.idle_since
            if conversation.is_quiet and (idle_s < ASK_AFTER_S or (idle_s < KEEP_S and conversation.reset())):
                return conversation
            conversation.drop()

    def put(self, conversation: Conversation) -> None:
        """Keep a connection on which nothing is under way, or close it when there are enough."""
        now = self.clock()
        conversation.is_kept, conversation.idle_since = True, now
        with self._lock:
            is_kept = self.size is None or len(self._idle) < self.size
            if is_kept:
                self._idle.append(conversation)
            old = list(takewhile(lambda idle: now - idle.idle_since >= KEEP_S, self._idle))
            del self._idle[: len(old)]
        if not is_kept:
            conversation.end()
        for idle in old:
            idle.drop()

    def empty(self) -> list[Conversation]:
        """Give all up."""
        with self._lock:
            idle, self._idle = self._idle, []
        return idle


class SmtpMailer:
    """The mailer for ``django.core.mail.backends.smtp.EmailBackend``. See ``Mailer``."""

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
        self.keeps_send_at = False
        self._settings = settings
        self._classify = classify
        self._longest_s = attempt_timeout_s
        self._pool = _Pool(settings.limit.concurrency if settings.limit else None, clock)
        self._configured: Any = None
        #: a small mail goes at once with its content where an unknown outcome is retried, until a server misunderstands
        self._may_chunk = settings.on_unknown == "retry"

    def send(self, email: Email, waiting: Sequence[str], *, attempt: int = 0) -> list[Receipt]:
        """See ``Mailer.send``."""
        require_expressible(email, self.name, ANYMAIL_FIELDS)
        return self._sent(lambda: (envelope_sender(email), [mime_bytes(email)]), waiting, attempt)

    def send_canonical(
        self, canonical: Mapping[str, Any], waiting: Sequence[str], *, message_id: str, date: str, attempt: int = 0
    ) -> list[Receipt]:
        """
        Do what ``send`` does for the message that *canonical* describes, without making a Django message of it.

        Args:
            canonical: A validated message in canonical form.
            waiting: See ``Mailer.send``.
            message_id: With angle brackets; for a message that has none in its headers.
            date: In the form of RFC 5322; the same.
            attempt: See ``Mailer.send``.

        Raises:
            AttemptFailed: See ``Mailer.send``.
            InvalidMessage: when the message cannot be read.
        """
        self._access()  # configures Django, if nobody has
        pieces = None
        if canonical.keys().isdisjoint(ANYMAIL_FIELDS):
            pieces = compose(canonical, message_id=message_id, date=date)
        if pieces is None:
            email = message.load(dict(canonical))
            message.stamp(email, message_id=message_id, date=date)
            return self.send(email, waiting, attempt=attempt)
        sender = sender_of(canonical.get("envelope_sender"), canonical["from_email"])
        return self._sent(lambda: (sender, pieces), waiting, attempt)

    def _sent(
        self, make: Callable[[], tuple[str, Sequence[bytes]]], waiting: Sequence[str], attempt: int
    ) -> list[Receipt]:
        receipts: dict[str, Receipt] = {}
        recipients = self._addressed(waiting, receipts, attempt)
        if recipients:
            sender, content = make()
            if self._sign is not None:
                content = self._sign(content)
        while recipients:
            transfer = Transfer(sender=sender, recipients=recipients, content=content)
            receipts |= self._handed_over(transfer, is_first=not receipts, attempt=attempt)
            recipients = {address: recipient for address, recipient in recipients.items() if address not in receipts}
        return [receipts[address] for address in waiting]

    def check(self) -> str:
        """See ``Mailer.check``."""
        conversation = self._ready()
        try:
            reply = conversation.ask()
        except BaseException as error:
            conversation.drop()
            if isinstance(error, Exception):
                raise AttemptFailed(error, conversation.stage) from error
            raise
        self._keep_or_drop(conversation, reply)
        return f"{self._access().host}:{self._access().port} answers ({reply.code})"

    def close(self) -> None:
        """See ``Mailer.close``."""
        for conversation in self._pool.empty():
            conversation.end()

    def _addressed(self, waiting: Sequence[str], receipts: dict[str, Receipt], attempt: int) -> dict[str, str]:
        """The envelope's addresses; a recipient that cannot be put into an envelope fails alone."""
        recipients = {}
        for address in waiting:
            try:
                recipients[address] = envelope_address(address)
            except ValueError as error:
                receipts[address] = self._receipt(address, error, None, attempt)
        return recipients

    def _handed_over(self, transfer: Transfer, *, is_first: bool, attempt: int) -> dict[str, Receipt]:
        """Hand the mail over once; nothing is said about recipients that the server wants in another transaction."""
        outcome = self._transacted(transfer)
        if isinstance(outcome.ending, AttemptFailed) and is_first and not outcome.refused:
            raise outcome.ending from outcome.ending.error
        receipts = {}
        for address in transfer.recipients:
            reply = outcome.refused.get(address)
            if reply is None:
                receipts[address] = self._told(address, outcome, attempt)
            elif not (outcome.is_accepted and reply.code == 452 and _TOO_MANY_RECIPIENTS.search(reply.text)):
                refusal = smtplib.SMTPRecipientsRefused({address: (reply.code, reply.text)})
                receipts[address] = self._receipt(address, refusal, "rcpt", attempt)
        return receipts

    def _told(self, address: str, outcome: _Outcome, attempt: int) -> Receipt:
        """The receipt of a recipient whom the server did not refuse by name."""
        if isinstance(outcome.ending, AttemptFailed):
            return self._receipt(address, outcome.ending.error, outcome.ending.stage, attempt)
        found = _QUEUE_ID.search(outcome.ending.text)
        queue_id = next(part for part in found.groups() if part).decode("ascii", "replace") if found else None
        return Receipt(address=address, diagnosis=accepted(*outcome.ending), message_id=queue_id)

    def _receipt(self, address: str, error: BaseException, stage: Stage | None, attempt: int) -> Receipt:
        context = Context(mailer=self.name, backend=self.backend, stage=stage, attempt=attempt)
        return Receipt(address=address, diagnosis=self._classify(error, context))

    def _transacted(self, transfer: Transfer) -> _Outcome:
        """
        Hand the mail over on a kept connection or a new one.

        A server may close a kept one at any time, by its own limits of time or number of mails. When that shows before
        it answered to the first command of this mail, nothing has happened yet and the mail goes over a new one.
        """
        conversation = self._ready()
        was_kept = conversation.is_kept
        outcome = self._carried(conversation, transfer)
        if _is(ChunkingRefused, outcome.ending):
            self._may_chunk = False
            outcome = self._carried(self._opened(), transfer)
        elif was_kept and _has_gone(outcome.ending):
            # its neighbours are as old as it is, or older
            for idle in self._pool.empty():
                idle.drop()
            outcome = self._carried(self._opened(), transfer)
        return outcome

    def _carried(self, conversation: Conversation, transfer: Transfer) -> _Outcome:
        refused: dict[str, Reply] = {}
        # a server may have gone since, and then a mail that went at once would count as perhaps accepted
        is_lively = not conversation.is_kept or self._pool.clock() - conversation.idle_since < LIVELY_S
        try:
            reply = conversation.carry(transfer, refused, at_once=self._may_chunk and is_lively)
        except OSError as error:  # all of smtplib's errors are
            stage = conversation.stage
            code, text = getattr(error, "smtp_code", 0), getattr(error, "smtp_error", b"")
            self._keep_or_drop(conversation, Reply(code, text))
            return _Outcome(refused=refused, ending=AttemptFailed(error, stage))
        except BaseException:
            conversation.drop()
            raise
        self._keep_or_drop(conversation, reply)
        return _Outcome(refused=refused, ending=reply)

    def _keep_or_drop(self, conversation: Conversation, reply: Reply) -> None:
        """Keep a connection after a yes and after a clear no, of which the next mail makes an end; else drop it."""
        if conversation.is_open and (reply.accepts or reply.refuses):
            self._pool.put(conversation)
        else:
            conversation.drop()

    def _ready(self) -> Conversation:
        return self._pool.take() or self._opened()

    def _opened(self) -> Conversation:
        access = self._access()
        conversation = Conversation(access, min(access.timeout, self._longest_s))
        try:
            conversation.begin()
        except Exception as error:
            raise AttemptFailed(error, conversation.stage) from error
        return conversation

    def _access(self) -> Any:
        """Django's backend, which reads the OPTIONS and makes the TLS context; it never connects itself."""
        if self._configured is None:
            self._configured = _configured(self._settings)
        return self._configured


def _configured(settings: MailerSettings) -> Any:
    """
    Construct Django's backend with the defaults of its 6.1 on every version: a host of our own and the usual ports.

    Raises:
        ImproperlyConfigured: for OPTIONS that it does not take. Before 6.1 it silently ignored what it did not know.
    """
    options = {"host": "localhost"} | {name: value for name, value in settings.options.items() if value is not None}
    options.setdefault("port", 465 if options.get("use_ssl") else 587 if options.get("use_tls") else 25)
    # an empty user name keeps Django's settings out of it
    options = {"username": "", "password": "", "timeout": DEFAULT_TIMEOUT_S} | options
    if not isinstance(options["timeout"], int | float):
        raise ImproperlyConfigured(f"mailer {settings.name!r}: OPTIONS has a timeout that is not a number of seconds")
    backend = construct(settings.name, settings.backend, options)
    known = inspect.signature(type(backend).__init__).parameters.keys() - {"self", "kwargs"}
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ImproperlyConfigured(
            f"mailer {settings.name!r}: OPTIONS has no {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    return backend


def _is(kind: type[OSError], ending: Reply | AttemptFailed) -> bool:
    return isinstance(ending, AttemptFailed) and isinstance(ending.error, kind)


def _has_gone(ending: Reply | AttemptFailed) -> bool:
    """
    Whether the server had closed before MAIL FROM: without a word, or with 421. A timeout is not that.

    503 is as good as that: to the server, an earlier mail is still under way.
    """
    if isinstance(ending, Reply) or ending.stage != "mail":
        return False
    error = ending.error
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return not isinstance(error.__context__, TimeoutError)
    return getattr(error, "smtp_code", 0) in {421, 503}
