"""Some hundred messages that nobody's client would send, to every queue that others may publish to, of one service."""

from __future__ import annotations

import itertools
import json
import pickle
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import amqp
import kombu
import pytest

from mail_service import topology
from mail_service.envelope import seal
from mail_service.local.smtp_server import Rule, SmtpServer
from tests.hazards.stacks import Caller, Real, depth
from tests.support.messages import a_message
from tests.support.service import configuration, rss_mb

LANES = [topology.lane_queue_name(lane) for lane in topology.LANES]
JSON: dict[str, Any] = {"content_type": "application/json", "content_encoding": "utf-8"}

#: whatever AMQP can carry in a header
VALUES: list[Any] = [
    None, True, -1, 2**62, 1.5, Decimal("1.5"), "text", "9" * 300, "\r\nBcc: eve@example.org", b"\xff\x00", [], {},
    [[[[]]]], {"a": {"b": [{}]}}, datetime(1970, 1, 1, tzinfo=UTC), "x" * 60_000,
]  # fmt: skip
OURS = [
    topology.ATTEMPTS, topology.GENERATION, topology.SUBMITTED, topology.DEATHS, topology.REPLAY, topology.REDELIVERED,
    topology.HELD, topology.DUE,
]  # fmt: skip
X_DEATHS: list[Any] = [
    5,
    "nonsense",
    [{}],
    [{"count": 10**9, "queue": "mail.send.v1.normal", "reason": "delivery_limit", "exchange": "", "time": None}],
    [{"count": "many", "routing-keys": 5}] * 200,
]
#: properties that lie about the body, and such as trip over their own values
PROPERTIES: dict[str, dict[str, Any]] = {
    "none": {},
    "as JSON": JSON,
    "as a pickle": {"content_type": "application/x-python-serialize", "content_encoding": "binary"},
    "as YAML": {"content_type": "application/x-yaml", "content_encoding": "utf-8"},
    "as msgpack": {"content_type": "application/x-msgpack", "content_encoding": "binary"},
    "in an encoding that is none": {"content_type": "application/json", "content_encoding": "klingon"},
    "in an encoding of bytes": {"content_type": "application/json", "content_encoding": "zlib"},
    "with all the rest": {
        **JSON,
        "reply_to": "nobody/../#",
        "correlation_id": "c" * 255,
        "message_id": "\N{PILE OF POO}" * 50,
        "priority": 255,
        "timestamp": 2**62,
        "type": "x",
        "app_id": "x",
    },
}


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def bodies(trap: Path) -> Iterator[bytes]:
    """None of them is a mail, wherever it arrives."""
    yield from (
        b"",
        b"\0",
        b"null",
        b"5",
        b'"x"',
        b"[]",
        b"{}",
        b"NaN",
        b"\xef\xbb\xbf{}",
        b'{"to": ',
        b"\xff\xfe{\0}\0",
    )
    yield from (
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"v":1,"message":' + b"[" * 30_000,
        b"9" * 5_000,
        b"x" * 1_000_000,
    )
    yield from (pickle.dumps(Trap(trap)), pickle.dumps({"to": "ann@example.org"}), zlib.compress(b"{}"))
    yield from (b"!!python/object/apply:os.system ['true']", b"<x/>", b'{"to": "\xff"}', b'{"to": ["\\ud800"]}')
    yield b'{"to": ["ann@example.org"], "subject": "a\\r\\nBcc: eve@example.org"}'
    yield json.dumps({"to": ["ann@example.org"], "metadata": {"a": nested(500)}}).encode()
    yield json.dumps({"to": [f"person-{number}@example.org" for number in range(10_001)]}).encode()
    yield json.dumps({"to": ["ann@example.org"], "options": {"mailer": "nobody", "id": 5}}).encode()
    yield json.dumps({"to": ["ann@example.org"], "attachments": [{"content": ""}] * 1001}).encode()


def nested(levels: int) -> Any:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def damaged_envelopes() -> Iterator[bytes]:
    """Each part of an envelope in turn missing and of every wrong type, and each header of ours with every value."""
    wrong: list[Any] = [None, 5, "\0", [], {}, [[]], {"a": None}]
    for name, value in itertools.product(json.loads(an_envelope()), wrong):
        facts = json.loads(an_envelope())
        if not (name == "options" and value == {}):
            yield json.dumps(facts | {name: value}).encode()


def an_envelope(**changes: Any) -> bytes:
    return seal(a_message(**changes), {}, door="submit").body()


class Publisher:
    """Publishes whatever it is given, over one connection, confirmed; and counts it."""

    def __init__(self, amqp_uri: str) -> None:
        self._connection = kombu.Connection(amqp_uri, connect_timeout=10, transport_options={"confirm_publish": True})
        self._channel = self._connection.default_channel
        self.count = 0

    def put(
        self,
        queue: str,
        body: bytes,
        properties: Mapping[str, Any],
        *,
        exchange: str = "",
        headers: Mapping[str, Any] | None = None,
    ) -> None:
        message = amqp.Message(body, application_headers=dict(headers or {}), delivery_mode=2, **properties)
        self._channel.basic_publish(message, exchange, queue, mandatory=True, timeout=20)
        self.count += 1

    def close(self) -> None:
        self._connection.release()


def forged_headers() -> Iterator[dict[str, Any]]:
    for name, value in itertools.product(OURS, VALUES):
        if name != topology.DUE or not isinstance(value, int) or value < 2**40:
            yield {name: value}
    for value in X_DEATHS:
        yield {"x-death": value, "x-first-death-queue": "mail.send.v1.normal", "x-delivery-count": 10**6}
    yield {"compression": "application/x-gzip"}
    yield {"BCC": [], "CC": []}
    yield {f"h{number}": "x" * 100 for number in range(500)}
    yield {"deep": _deep_table(60)}


def _deep_table(levels: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for _ in range(levels):
        table = {"a": table}
    return table


@pytest.mark.slow
def test_whatever_is_published_ends_somewhere_and_a_good_mail_is_delivered(
    amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    trap = tmp_path / "sprung"
    smtp_server.script(Rule(at="rcpt", to="later@*", reply="450 4.2.0 later", times=1))
    config = configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port, event_sources=["shop"])
    with Real(config, tmp_path) as service, Caller(amqp_uri) as caller:
        pid, before_mb = service.pid, rss_mb(service.pid)
        publisher = Publisher(amqp_uri)
        lanes = itertools.cycle(LANES)
        for body, properties in itertools.product(bodies(trap), PROPERTIES.values()):
            publisher.put(next(lanes), body, properties)
        for body in damaged_envelopes():
            publisher.put(next(lanes), body, JSON)
        for headers in forged_headers():
            # a mail that is refused once, so that the header travels on with a retry
            publisher.put(next(lanes), an_envelope(to=["later@example.org"]), JSON, headers=headers)
        for body in bodies(trap):
            for properties in (JSON, PROPERTIES["as a pickle"], {}):
                publisher.put("send_email", body, properties, exchange="shop.events")
        asked = list(_requests(caller, bodies(trap)))
        assert publisher.count > 400

        service.until(lambda: _ended(service, smtp_server) >= publisher.count, 60)
        for correlation_id in asked:
            assert caller.reply(correlation_id, service)["error"]["exc_type"] in {"MalformedRequest", "InvalidMessage"}

        assert service.rpc.send(a_message(subject="good"))["status"] == "sent"
        assert service.pid == pid
        assert service.is_alive
        assert _ended(service, smtp_server) == publisher.count + 1
        assert all(depth(amqp_uri, queue) == 0 for queue in [*LANES, topology.EVENTS, topology.PARKED])
        assert not trap.exists()
        assert "stays in" not in service.log
        assert "Traceback" not in service.log
        assert not [mail for mail in smtp_server.accepted() if b"eve@" in mail.data or "eve@" in str(mail.rcpt_tos)]
        # 30 MB of bodies came in meanwhile
        assert rss_mb(service.pid) < before_mb + 150
        publisher.close()


def _requests(caller: Caller, those: Iterable[bytes]) -> Iterator[str]:
    for body in those:
        for name in ("as JSON", "none", "as a pickle"):
            yield caller.request("mail_service.submit", body=body, **PROPERTIES[name])
    for args, kwargs in [
        ([], {}),
        ([5], {}),
        ([{}], {"id": []}),
        ([{"to": 5}], {}),
        ([{}, {}], {}),
        ([], {"x" * 500: 1}),
    ]:
        yield caller.request("mail_service.submit", body=json.dumps({"args": args, "kwargs": kwargs}).encode(), **JSON)
    for method in ("status", "error", "cancel", "explain", "forget"):
        yield caller.request(f"mail_service.{method}", {"a": ["\0"]})


def _ended(service: Real, smtp_server: SmtpServer) -> int:
    """Mails that the mail server has, and entries of the error log."""
    return len(smtp_server.accepted()) + len(service.rpc.call("errors", limit=20_000, timeout=30))
