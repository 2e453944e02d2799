"""
Messages into RabbitMQ's hands, and an answer back: reconnects, resends, declares a missing queue, gives up in time.

What is sent again has the same id, so for the service it is the same mail. How far each parcel got stands in its
``progress``; the reason why the rest did not get further is raised.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence

from amqp.exceptions import AccessRefused, AMQPError, NotAllowed, PreconditionFailed

from mail_service.client.parcel import Parcel, Progress
from mail_service.client.wire import Wire
from mail_service.errors import Unavailable
from mail_service.sizes import refused_above

#: A connection that breaks or cannot be made, and whatever RabbitMQ says when it closes a connection or channel.
BROKEN = (OSError, AMQPError)
#: What trying again does not change.
_HOPELESS = (AccessRefused, NotAllowed, ssl.SSLCertVerificationError)

#: seconds between two attempts: 0.05, 0.1, 0.2, 0.4, then 0.5
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5


class Broker:
    """What a client's threads know about RabbitMQ."""

    #: Somebody tried in vain for as long as he was allowed. The next one tries once, so that a web site whose broker is
    #: down is not down as well; the first success ends it.
    is_away = False
    #: bytes; it refused a message that was larger than this
    refused_above: int | None = None

    def largest(self, wire: Wire) -> int:
        """Bytes of the largest message that it takes."""
        return min(wire.largest, self.refused_above or wire.largest)


class Attempts:
    """Tries again until the deadline, a moment of ``time.monotonic``."""

    def __init__(self, deadline: float, broker: Broker) -> None:
        self._deadline = deadline
        self.broker = broker
        self._pause_s = _FIRST_PAUSE_S

    def open(self, wire: Wire) -> None:
        """Connect. Raises OSError or AMQPError when that does not succeed in time."""
        while True:
            try:
                wire.open(self._deadline)
            except BROKEN as exc:
                if self.broker.is_away:
                    raise
                try:
                    self.bear(exc)
                except BROKEN:
                    self.broker.is_away = True
                    raise
            else:
                self.broker.is_away = False
                return

    def bear(self, problem: Exception) -> None:
        """Wait a moment before the next attempt; raise *problem* when there is to be none."""
        if isinstance(problem, _HOPELESS) or time.monotonic() + self._pause_s >= self._deadline:
            raise problem
        time.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)


def hand_over(wire: Wire, mails: Sequence[Parcel], attempts: Attempts) -> None:
    """
    Have RabbitMQ confirm all of *mails*, but for those that are too large for it, or whose later copies would be.

    Raises OSError or AMQPError when that does not succeed in time, and ConfigurationError when a queue has to be
    declared and one of that name exists with other arguments.
    """
    while any(mail.is_open for mail in mails):
        attempts.open(wire)
        waiting = _fitting(mails, attempts.broker.largest(wire))
        if not waiting:
            return
        try:
            wire.publish(wire.unproven(waiting) or waiting)
            for lane in {mail.lane for mail in waiting if mail.lane and mail.progress is Progress.UNROUTABLE}:
                wire.declare_lane(lane)
        except PreconditionFailed as exc:
            _learn_size(attempts.broker, waiting, exc)
        except BROKEN as exc:
            attempts.bear(exc)


def _fitting(mails: Sequence[Parcel], largest: int) -> list[Parcel]:
    """Those that are still to be handed over and may be."""
    for mail in mails:
        mail.fit_into(largest)
    return [mail for mail in mails if mail.is_open]


def _learn_size(broker: Broker, mails: Sequence[Parcel], exc: PreconditionFailed) -> None:
    """RabbitMQ closed the channel at the first message that was too large. Raises *exc* if that was not the reason."""
    limit = refused_above(exc.reply_text)
    if limit is None or all(len(mail.body) <= limit for mail in mails):
        raise exc
    broker.refused_above = limit
    for mail in mails:
        mail.fit_into(limit)


class ReplyLost(ConnectionError):
    """The queue that the reply goes to was lost with its node, and the request must not be made twice."""


def _readdress(request: Parcel, reply_key: str, *, may_repeat: bool) -> None:
    """Have the reply sent to *reply_key*, if it is another one than before. Raises ReplyLost."""
    if request.properties["reply_to"] == reply_key:
        return
    if request.progress is not Progress.WAITING and not may_repeat:
        raise ReplyLost("the reply is lost with its node")
    request.properties = {**request.properties, "reply_to": reply_key}
    request.progress = Progress.WAITING


def ask(wire: Wire, request: Parcel, correlation_id: str, attempts: Attempts, *, may_repeat: bool) -> bytes | str:
    """
    Hand over an RPC *request* and return the body of the reply.

    A connection that breaks while we wait is made again: the reply queue outlives it, unless its node is lost; then the
    request is made again if it *may_repeat*. Raises OSError or AMQPError when no answer comes in time or the request is
    too large, Unavailable when no service has ever listened.
    """
    while True:
        attempts.open(wire)
        try:
            wire.listen(correlation_id)
            _readdress(request, wire.reply_key, may_repeat=may_repeat)
            if request.is_open:
                wire.publish([request])
            if request.progress is Progress.CONFIRMED:
                return wire.wait_for_reply()
        except PreconditionFailed as exc:
            _learn_size(attempts.broker, [request], exc)
            raise
        except ReplyLost:
            raise
        except BROKEN as exc:
            attempts.bear(exc)
        else:
            raise Unavailable("the mail service has never run in this virtual host: start it with `mail-service run`")
