"""
One connection to RabbitMQ: publishes with confirms, many at a time, and receives RPC replies.

Used by one thread at a time. Whatever happens, a wire is afterwards either fit for the next piece of work or dropped,
and the progress of each parcel says what RabbitMQ certainly has, certainly has not, or may have.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any
from urllib.parse import urlsplit

from amqp.exceptions import AMQPError, NotFound
from kombu import Connection, Exchange, Queue

from mail_service import sizes, tls, topology
from mail_service.client import frames
from mail_service.client.bounded import BoundedConnection, Limit, PlainTransport, TLSTransport
from mail_service.client.parcel import Parcel, Progress

#: seconds without use after which a connection is looked at before it is trusted
_TRUSTED_S = 1.0
#: seconds that saying goodbye may take
_GOODBYE_S = 1.0
#: seconds by which a socket may give up before the deadline
_TOLERANCE_S = 0.01
#: As nameko's own: a reply queue outlives its connection by this, so that a reply survives a reconnect. Milliseconds.
_REPLY_QUEUE_EXPIRES_MS = 300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """How to reach RabbitMQ."""

    #: one or several, tried in turn
    uris: tuple[str, ...]
    #: as nameko's AMQP_SSL: True, or py-amqp's options
    ssl: Any = None
    login_method: str | None = None
    rpc_exchange: str = "nameko-rpc"
    #: seconds without an answer after which a connection is given up and a new one tried
    patience_s: float = 3.0

    @property
    def shown(self) -> str:
        """Host and port for people; never the password."""
        return " or ".join(uri.rpartition("@")[2].rpartition("://")[2].partition("/")[0] for uri in self.uris)

    def connection(self, uri: str, limit: Limit, **callbacks: Any) -> Connection:
        """A connection that is not yet established."""
        connection = Connection(
            uri,
            ssl=tls.options(self.ssl, urlsplit(uri).hostname, is_asked_for=uri.startswith("amqps:")),
            login_method=self.login_method,
            transport=TLSTransport if uri.startswith("amqps:") else PlainTransport,
            transport_options={
                "limit": limit,
                "socket_settings": self._socket_settings(),
                "client_properties": {"connection_name": f"mail_service client, process {os.getpid()}"},
                **callbacks,
            },
        )
        # a heartbeat from the URI would have to be kept up, and nobody is here between two mails
        connection.heartbeat = 0
        return connection

    def _socket_settings(self) -> dict[int, int]:
        # when the other side's kernel is silent; py-amqp's own 1 s would end connections that only pause for a moment
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        return {option: int(self.patience_s * 1000)} if option else {}


class Stalled(ConnectionError):
    """RabbitMQ has neither confirmed nor refused."""


class Refused(ConnectionError):
    """RabbitMQ answered basic.nack: a queue has no leader at the moment, or is full."""


class _Guard:
    """``with`` it, an exception breaks the wire off. No generator: it is entered twice for each mail."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if kind is not None:
            self._wire.broke_off()


class Wire:
    """A connection with one channel in confirm mode; opened when first used, and again after it broke."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._guard = _Guard(self)
        self._uri_number = 0
        self._limit = Limit()
        self._connection: Any = None
        self._amqp: BoundedConnection | None = None
        self._channel: Any = None
        self._last_tag = 0
        self._pending: dict[int, Parcel] = {}
        #: a part of a message may be missing on the connection
        self._is_writing = False
        #: message id and routing key of what came back
        self._returned: set[tuple[str, str]] = set()
        self._used_at = time.monotonic()
        #: lanes whose queue took a mail on this connection
        self.proven_lanes: set[str] = set()
        #: RabbitMQ told us that it takes no messages now, for lack of memory or disk
        self.is_blocked = False
        #: where replies find us, also after a reconnect
        self.reply_key = str(uuid.uuid4())
        self._listens = False
        self._awaited: str | None = None
        self._reply: bytes | str | None = None

    @property
    def is_open(self) -> bool:
        return self._channel is not None

    @property
    def rpc_exchange(self) -> str:
        return self._address.rpc_exchange

    @property
    def largest(self) -> int:
        """Bytes of the largest message that a RabbitMQ of this version takes, if nobody changed that."""
        return sizes.largest_of(self._amqp_connection.server_properties.get("version", ""))

    @property
    def idle_s(self) -> float:
        """Seconds since it was last used."""
        return time.monotonic() - self._used_at

    def open(self, deadline: float) -> None:
        """Connect where needed; all work until the next ``open`` ends by *deadline*. Raises OSError or AMQPError."""
        self._limit.deadline = deadline
        with self._guard:
            if self.is_open and self.idle_s > _TRUSTED_S:
                self._look_for_news()
            if not self.is_open:
                self._connect()
        self._used_at = time.monotonic()

    def publish(self, parcels: Sequence[Parcel]) -> None:
        """Write all of *parcels*, then wait for RabbitMQ's word on each. Raises OSError or AMQPError."""
        with self._guard:
            self._wait_while_blocked()
            self._write(parcels)
            self._wait_for_confirms()
        self._used_at = time.monotonic()
        if any(parcel.progress is Progress.WAITING for parcel in parcels):
            # A channel that was opened while a queue had no leader goes on refusing when there is one: RabbitMQ asks
            # the node that is gone (3.10). So the next attempt gets another.
            self.drop()
            raise Refused("RabbitMQ refused to store the message")

    def unproven(self, parcels: Iterable[Parcel]) -> list[Parcel]:
        """One parcel for each lane that may not exist: a whole batch that comes back would be carried twice."""
        first: dict[str, Parcel] = {}
        for parcel in parcels:
            if parcel.lane and parcel.lane not in self.proven_lanes:
                first.setdefault(parcel.lane, parcel)
        return list(first.values())

    def declare_lane(self, lane: str) -> None:
        """Make the work queue of *lane*, on a channel of its own. Raises ConfigurationError, OSError or AMQPError."""
        with self._guard:
            topology.declare_lane(self._connection, lane)

    def look_at(self, queue: str) -> tuple[int, int]:
        """How many messages wait in *queue* now, and how many consume from it; none where there is no such queue."""
        with self._guard:
            # on a channel of its own: "not found" closes it
            channel = self._amqp_connection.channel()
            try:
                found = channel.queue_declare(queue, passive=True)
            except NotFound:
                return 0, 0
            channel.close()
            return found.message_count, found.consumer_count

    def listen(self, correlation_id: str) -> None:
        """Be ready for the reply to *correlation_id*; earlier ones that come late are dropped."""
        self._awaited, self._reply = correlation_id, None
        if self._listens:
            return
        with self._guard:
            exchange = Exchange(self._address.rpc_exchange, type="topic", durable=True)
            queue = Queue(self._reply_queue, exchange, self.reply_key, expires=_REPLY_QUEUE_EXPIRES_MS / 1000)
            try:
                queue(self._channel).declare()
            except NotFound:
                # of a cluster, the node that it was on is gone, and as long as that is the queue can be neither used
                # nor made anew
                self.reply_key = str(uuid.uuid4())
                raise
            self._channel.basic_consume(self._reply_queue, callback=self._on_reply)
            self._listens = True

    def wait_for_reply(self) -> bytes | str:
        """The body of the reply that ``listen`` announced. Raises TimeoutError, other OSErrors or AMQPError."""
        try:
            while self._reply is None:
                self._drain()
        except TimeoutError:
            if not self._limit_is_over():
                self.drop()
            raise
        except BaseException:
            self.drop()
            raise
        reply, self._reply, self._awaited = self._reply, None, None
        return reply

    def close(self) -> None:
        """Say goodbye, within a second, and close."""
        with contextlib.suppress(OSError, AMQPError):
            if self._amqp is not None:
                self._limit.deadline = time.monotonic() + _GOODBYE_S
                if self._listens:
                    self._channel.queue_delete(self._reply_queue)
                self._amqp.close()
        self.drop()

    def drop(self) -> None:
        """Close the socket without a word: the connection is broken, or nobody knows what state it is in."""
        if self._amqp is not None:
            self._amqp.abandon()
        self._amqp = self._connection = self._channel = None
        self._pending.clear()
        self._returned.clear()
        self.proven_lanes.clear()
        self._listens = self._is_writing = False

    @property
    def _amqp_connection(self) -> BoundedConnection:
        if self._amqp is None:
            raise ConnectionError("the connection is closed")
        return self._amqp

    @property
    def _reply_queue(self) -> str:
        return f"rpc.reply-mail_service_client-{self.reply_key}"

    def broke_off(self) -> None:
        """Work was ended by an exception: drop the connection, unless it is certainly as good as before."""
        # A publisher that an alarm holds up is whole: all was written, only the confirm is missing. To connect again
        # would not help, and this connection knows that it is blocked.
        if not (self.is_blocked and self._limit_is_over() and not self._is_writing):
            self.drop()
        self._pending.clear()

    def _limit_is_over(self) -> bool:
        return time.monotonic() > self._limit.deadline - _TOLERANCE_S

    def _connect(self) -> None:
        uris = self._address.uris
        uri = uris[self._uri_number % len(uris)]
        # the next attempt goes to the next one
        self._uri_number += 1
        self._connection = self._address.connection(
            uri, self._limit, on_blocked=self._on_blocked, on_unblocked=self._on_unblocked
        )
        deadline = self._limit.deadline
        if len(uris) > 1:
            # a host that does not even refuse must not use up the time of the others
            self._limit.deadline = min(deadline, time.monotonic() + self._address.patience_s)
        self._connection.connect_timeout = self._limit.left_s
        self._connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
        self._limit.deadline = deadline
        self._amqp = self._connection.connection
        channel = self._amqp_connection.channel()
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        self._channel, self._last_tag, self.is_blocked = channel, 0, False

    def _look_for_news(self) -> None:
        """Notice that the other side closed the connection meanwhile, before anything is written to it."""
        try:
            self._drain(0.001)
        except TimeoutError as exc:
            # ETIMEDOUT, a dead connection, is of the same class and has an errno
            if exc.errno is not None:
                self.drop()
        except (OSError, AMQPError):
            self.drop()

    def _drain(self, timeout_s: float | None = None) -> None:
        self._amqp_connection.drain_events(timeout=timeout_s)

    def _wait_while_blocked(self) -> None:
        while self.is_blocked:
            self._drain()

    def _write(self, parcels: Sequence[Parcel]) -> None:
        transport = self._amqp_connection.transport
        channel, largest = self._channel.channel_id, self._amqp_connection.frame_max
        self._is_writing = True
        transport.hold_back()
        for parcel in parcels:
            self._last_tag += 1
            self._pending[self._last_tag] = parcel
            parcel.progress = Progress.WRITTEN
            # Not channel.basic_publish: it polls the socket before each message, and turns in circles on half a frame.
            for frame in frames.publish(parcel, channel=channel, largest=largest):
                transport.write(frame)
        transport.release()
        self._is_writing = False

    def _wait_for_confirms(self) -> None:
        while self._pending:
            try:
                self._drain(self._address.patience_s)
            except TimeoutError:
                if self._limit_is_over():
                    raise
                # The other side may be gone where TCP cannot see it, behind a proxy. And after a crash RabbitMQ 3.10
                # can drop what comes before a quorum queue has a leader ("Command is dropped", says its log). In an
                # alarm a new connection would not help.
                if not self.is_blocked:
                    raise Stalled("RabbitMQ does not confirm") from None

    def _settle(self, tag: int, multiple: bool, progress: Progress) -> None:
        tags = list(takewhile(lambda pending: pending <= tag, self._pending)) if multiple else [tag]
        for settled in tags:
            # a tag from before a blocked connection's time limit is not known any more
            if parcel := self._pending.pop(settled, None):
                returned = (parcel.amqp_id, parcel.routing_key)
                parcel.progress = Progress.UNROUTABLE if returned in self._returned else progress
                self._returned.discard(returned)
                if parcel.lane and parcel.progress is Progress.CONFIRMED:
                    self.proven_lanes.add(parcel.lane)

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._settle(tag, multiple, Progress.CONFIRMED)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._settle(tag, multiple, Progress.WAITING)

    def _on_return(self, _exc: Exception, _exchange: str, routing_key: str, message: Any) -> None:
        # comes before the message's own confirm
        self._returned.add((message.properties.get("message_id"), routing_key))

    def _on_blocked(self, _reason: str) -> None:
        self.is_blocked = True

    def _on_unblocked(self) -> None:
        self.is_blocked = False

    def _on_reply(self, message: Any) -> None:
        message.channel.basic_ack(message.delivery_tag)
        if message.properties.get("correlation_id") == self._awaited:
            self._reply = message.body
