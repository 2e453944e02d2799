"""
``MailClient``: hand mail to the service, and ask it, from any Python program.

``submit`` needs RabbitMQ only, not a running service. Whatever happens, each call ends within its time limit. Where it
is not certain that RabbitMQ has a mail, the error says so, and handing it in again with the same id cannot make it two.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from amqp.exceptions import AccessRefused

from mail_service import sizes, topology, tracing
from mail_service.bounds import DEFAULT as DEFAULT_BOUNDS
from mail_service.bounds import Bounds
from mail_service.client import asking, reading
from mail_service.client.attic import Attic
from mail_service.client.handover import BROKEN, Attempts, Broker, ask, hand_over
from mail_service.client.parcel import Parcel, Progress
from mail_service.client.wire import Wire
from mail_service.client.wires import Wires
from mail_service.envelope import seal
from mail_service.errors import InvalidMessage, MailServiceError, NotFound, Timeout, Unavailable
from mail_service.message import Options
from mail_service.message.checks import Checked, checked_as_given

DEFAULT_TIMEOUT_S = 10.0
DEFAULT_MAX_SIZE = 25_000_000
#: Mails that are handed over before their confirms are waited for. Their confirms fit into a socket's buffer.
_BATCH = 2000
_BATCH_BYTES = 16_000_000
#: A sender for messages that leave it to the service's ``mail.default_from``; never travels, its domain is reserved.
UNKNOWN_SENDER = "unknown@mail-service.invalid"

Answer = dict[str, Any]


class MailClient:
    """
    Hands mail to the service. One object serves all threads of a process, and its forked children.

    Args:
        amqp_uri: Of RabbitMQ; several, separated by ``;``, are tried in turn.
        timeout: Seconds that a call may take, resends included; for ``submit_many``, each 2,000 mails.
        ssl: Nameko's ``AMQP_SSL``. True, as with ``amqps://``, checks the certificate against the system's authorities
            and the host name; a mapping has py-amqp's options, such as ``ca_certs`` or ``server_hostname``.
        login_method: Of AMQP, such as ``EXTERNAL``; nameko's ``LOGIN_METHOD``.
        default_from: Sender of messages without ``from_email``, instead of the service's own ``mail.default_from``.
        max_size: Bytes that a message may take as JSON; the service's ``mail.max_size``.
        bounds: Of everything else; the service's ``mail.max_recipients`` and so on.
        rpc_exchange: Nameko's configuration key of this name.
        blobs: The service's ``mail.blobs``: where attachments are put that are too large for RabbitMQ. It has to be the
            same store, seen from here: a folder on a disk that both share, or a storage of Django's.

    The look-up of RabbitMQ's host name has the resolver's own time limits, not ours.
    """

    def __init__(
        self,
        amqp_uri: str,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        ssl: Any = None,
        login_method: str | None = None,
        default_from: str | None = None,
        max_size: int = DEFAULT_MAX_SIZE,
        bounds: Bounds = DEFAULT_BOUNDS,
        rpc_exchange: str = "nameko-rpc",
        blobs: Mapping[str, Any] | None = None,
    ) -> None:
        self._attic = Attic.of(blobs)
        self._timeout_s = timeout
        self._default_from = default_from
        self._most: dict[str, Any] = {"max_size": max_size, "bounds": bounds}
        address = reading.address(
            amqp_uri, ssl=ssl, login_method=login_method, rpc_exchange=rpc_exchange, timeout_s=timeout
        )
        self._host = address.shown
        self._wires = Wires(lambda: Wire(address))
        self._broker = Broker()

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **changes: Any) -> Self:
        """Build one from nameko's configuration, such as ``config.yaml``. Raises ConfigurationError."""
        return cls(**reading.arguments(config), **changes)

    def submit(self, message: Mapping[str, Any], **options: Any) -> Answer:
        """
        Hand over *message*; returns ``{"id", "status": "queued"}`` once RabbitMQ has it durably.

        Raises InvalidMessage before anything is handed over, Unavailable when RabbitMQ has nothing, and Timeout when
        that is unknown: hand it in again with the ``mail_id`` of that error as *id*.
        """
        mail = self._seal(message, options)
        if problem := self._hand_over([mail]):
            raise problem
        if mail.progress is Progress.TOO_LARGE:
            raise _too_large(mail)
        return {"id": mail.id, "status": "queued"}

    def submit_many(self, messages: Iterable[Mapping[str, Any]]) -> list[Answer]:
        """
        Hand over many at once; a message may have its options under the key ``options``.

        Returns an answer for each, in order: ``{"id", "status": "queued"}`` or ``{"error": {"type", "message",
        "field"}}``; one that was valid has its ``id`` beside the error, to hand it in again. Raises Unavailable or
        Timeout only when RabbitMQ has confirmed none at all; Timeout's ``mail_ids`` are those whose outcome is unknown.
        """
        return self._submit([self._prepare(message) for message in messages])

    def submit_checked(self, mails: Iterable[tuple[Checked, Options]]) -> list[Answer]:
        """Do as ``submit_many`` with mails that were checked already: what our Django backend hands over."""
        return self._submit([self._sealed(message, options) for message, options in mails])

    def _submit(self, prepared: Sequence[Parcel | InvalidMessage]) -> list[Answer]:
        mails = [mail for mail in prepared if isinstance(mail, Parcel)]
        problem = None
        for batch in _batches(mails):
            if problem := self._hand_over(batch):
                break
        if problem and not any(mail.progress is Progress.CONFIRMED for mail in mails):
            raise problem
        return [self._answer(mail, problem) for mail in prepared]

    def send(self, message: Mapping[str, Any], *, timeout: float | None = None, **options: Any) -> Answer:
        """
        Have *message* delivered and wait for it; returns the record.

        Raises what the delivery raised (DeliveryFailed, Expired, Conflict, InvalidMessage), and Timeout when that takes
        longer than *timeout* seconds: the mail goes on all the same, and ``status`` of the error's ``mail_id`` tells.
        """
        chosen = Options.parse(options)
        message = self._with_sender(message)
        checked = checked_as_given(message, default_from=UNKNOWN_SENDER, **self._most)
        # an id of ours: a request that has to be repeated is the same mail
        options = {**chosen.to_json(), "id": chosen.id or str(uuid.uuid4())}
        message = self._attic.without_large(checked, options["id"])
        return dict(self.call("send", message, timeout=timeout, **options))

    def status(self, id: str) -> Answer:  # noqa: A002  # the contract's name
        """
        Return the record of a mail. Raises NotFound.

        That may be too early: a mail from ``submit`` is in RabbitMQ, and known to the service once a worker has taken
        it. The text then says how many mails wait.
        """
        try:
            return dict(self.call("status", id))
        except NotFound as exc:
            if waiting := self._waiting():
                raise NotFound(f"{exc} yet; {waiting:,} mails wait for a worker, and it may be one of them") from None
            raise

    def call(self, method: str, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """
        Call a method of the running service over nameko's RPC protocol.

        Raises the service's own errors (``mail_service.errors``), Unavailable when the service never ran or RabbitMQ
        cannot be reached, and Timeout. A request that nobody waits for any more is not carried out later, but for mail.
        """
        timeout_s = self._timeout_s if timeout is None else timeout
        request, correlation_id = asking.request(method, args, kwargs, timeout_s=timeout_s)
        with self._wires.lent() as wire:
            request = asking.addressed(request, exchange=wire.rpc_exchange, reply_to=wire.reply_key)
            try:
                attempts = Attempts(time.monotonic() + timeout_s, self._broker)
                reply = ask(wire, request, correlation_id, attempts, may_repeat=asking.may_be_repeated(method, kwargs))
            except Unavailable:
                # is a ConnectionError too
                raise
            except BROKEN as exc:
                if request.progress is Progress.TOO_LARGE:
                    raise _too_large(request) from exc
                if isinstance(exc, AccessRefused):
                    raise Unavailable(self._reason(exc, wire)) from exc
                if request.progress is Progress.WAITING:
                    raise Unavailable(f"{self._reason(exc, wire)}. Nothing was asked") from exc
                raise asking.no_answer(method, kwargs, timeout_s) from exc
        return asking.result(reply)

    def is_running(self) -> bool:
        """Look whether a service is there to answer, one that consumes from its RPC queue. Raises Unavailable."""
        with self._wires.lent() as wire:
            try:
                wire.open(time.monotonic() + self._timeout_s)
                _, consumers = wire.look_at(asking.QUEUE)
                return bool(consumers)
            except BROKEN as exc:
                raise Unavailable(self._reason(exc, wire)) from exc

    def _waiting(self) -> int:
        """How many mails wait in the work queues; 0 when that cannot be found out now."""
        with self._wires.lent() as wire:
            try:
                wire.open(time.monotonic() + self._timeout_s)
                return sum(wire.look_at(topology.lane_queue_name(lane))[0] for lane in topology.LANES)
            except BROKEN:
                return 0

    def close(self) -> None:
        """Close this process's connections. The client can be used again; it then makes new ones."""
        self._wires.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _with_sender(self, message: Any) -> Any:
        if self._default_from and isinstance(message, Mapping) and not message.get("from_email"):
            return {**message, "from_email": self._default_from}
        return message

    def _seal(self, message: Any, options: Any) -> Parcel:
        chosen = Options.parse(options)
        message = self._with_sender(message)
        return self._sealed(checked_as_given(message, default_from=UNKNOWN_SENDER, **self._most), chosen)

    def _sealed(self, mail: Checked, options: Options) -> Parcel:
        envelope = seal(mail.message, options.to_json(), door="client", sender=mail.sender)
        if trace := tracing.current():
            envelope = replace(envelope, trace=trace)
        message = self._attic.without_large(mail, envelope.id)
        if message is mail.message:
            return Parcel.of(envelope, mail.text)
        return Parcel.of(replace(envelope, message=message), None)

    def _prepare(self, message: Any) -> Parcel | InvalidMessage:
        try:
            if not isinstance(message, Mapping):
                return InvalidMessage("message", "must be an object")
            bare = {name: value for name, value in message.items() if name != "options"}
            return self._seal(bare, message.get("options"))
        except InvalidMessage as exc:
            return exc

    def _hand_over(self, mails: Sequence[Parcel]) -> MailServiceError | None:
        attempts = Attempts(time.monotonic() + self._timeout_s, self._broker)
        with self._wires.lent() as wire:
            try:
                hand_over(wire, mails, attempts)
            except BROKEN as exc:
                problem = self._failure(exc, wire, mails)
                problem.__cause__ = exc
                return problem
        return None

    def _answer(self, mail: Parcel | InvalidMessage, problem: MailServiceError | None) -> Answer:
        if isinstance(mail, InvalidMessage):
            return {"error": _described(mail)}
        if mail.progress is Progress.CONFIRMED:
            return {"id": mail.id, "status": "queued"}
        if mail.progress is Progress.TOO_LARGE:
            return {"id": mail.id, "error": _described(_too_large(mail))}
        if mail.progress is Progress.WRITTEN:
            return {"id": mail.id, "error": _described(Timeout(str(problem), mail_ids=[mail.id]))}
        return {
            "id": mail.id,
            "error": _described(Unavailable("not handed over, since others before it did not get through")),
        }

    def _failure(self, exc: Exception, wire: Wire, mails: Sequence[Parcel]) -> MailServiceError:
        reason = self._reason(exc, wire)
        unknown = [mail.id for mail in mails if mail.progress is Progress.WRITTEN]
        if not unknown or isinstance(exc, AccessRefused):
            return Unavailable(f"{reason}. Nothing was handed over")
        what = f"the mail {unknown[0]}" if len(unknown) == 1 else f"{len(unknown)} mails"
        return Timeout(
            f"{reason}. Whether it has {what} is unknown: hand it in again with the same id, and it stays one mail",
            mail_ids=unknown,
        )

    def _reason(self, exc: Exception, wire: Wire) -> str:
        if wire.is_blocked:
            return f"RabbitMQ at {self._host} takes no messages now, for lack of memory or disk space"
        return f"RabbitMQ at {self._host} {reading.reason(exc)}"


def _batches(mails: Sequence[Parcel]) -> Iterator[list[Parcel]]:
    """Groups of at most 2,000 mails and, but for a single larger mail, 16 MB."""
    batch: list[Parcel] = []
    size = 0
    for mail in mails:
        if batch and (len(batch) == _BATCH or size + len(mail.body) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(mail)
        size += len(mail.body)
    if batch:
        yield batch


def _too_large(mail: Parcel) -> InvalidMessage:
    return InvalidMessage("message", sizes.too_large(len(mail.body), mail.limit))


def _described(exc: MailServiceError) -> dict[str, Any]:
    return {"type": type(exc).__name__, "message": str(exc), "field": getattr(exc, "field", None)}
