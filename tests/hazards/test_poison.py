"""Hazards 10 to 14: what anybody can put into a queue, and what it must not do to the process or to other mail."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from kombu.compression import compress

from mail_service import topology
from mail_service.envelope import Envelope, seal
from mail_service.local.node import Node
from mail_service.local.smtp_server import Rule, SmtpServer
from tests.support.messages import a_message
from tests.support.service import configuration
from tests.support.waiting import eventually

from .stacks import Caller, Probe, Real, both, depth, put

LANE = topology.lane_queue_name("normal")


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def undecodable(kind: str, folder: Path) -> tuple[bytes, dict[str, Any]]:
    """A body that cannot be used, and the properties and headers that come with it."""
    json_type: dict[str, Any] = {"content_type": "application/json", "content_encoding": "utf-8"}
    return {
        "bad JSON": (b'{"to": ', json_type),
        "bad UTF-8": (b'{"subject": "\xff\xfe"}', json_type),
        "deep JSON": (b"[" * 200_000, json_type),
        "plain text": (b"please mail this", {"content_type": "text/plain", "content_encoding": "utf-8"}),
        "pickle": (
            pickle.dumps(Trap(folder / "sprung")),
            {"content_type": "application/x-python-serialize", "content_encoding": "binary"},
        ),
        "unknown type": (b"\x00\x01\x02", {"content_type": "application/x-nobody-knows"}),
        "unknown encoding": (b"[]]", {"content_type": "application/json", "content_encoding": "klingon"}),
        "not gzip": (b"\x1f\x8bnot", {**json_type, "headers": {"compression": "application/x-gzip"}}),
        "unknown compression": (b"\x07squeezed", {**json_type, "headers": {"compression": "application/x-squeezed"}}),
    }[kind]


KINDS = [
    "bad JSON",
    "bad UTF-8",
    "deep JSON",
    "plain text",
    "pickle",
    "unknown type",
    "unknown encoding",
    "not gzip",
    "unknown compression",
]

#: what comes with a message whose handler raises a Backoff
RETRY_KILLERS: dict[str, dict[str, Any]] = {
    "expiration": {"expiration": "60000"},
    "malformed x-death": {"headers": {"x-death": "nonsense"}},
    "x-death of nothing": {"headers": {"x-death": [{"count": "many"}]}},
    "malformed call id stack": {"headers": {"nameko.call_id_stack": 5}},
}

#: method, request, and what is missing or wrong
RPC_KILLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "no reply_to": ("probe.ask", {"body": {"args": [{"id": "killer"}], "kwargs": {}}, "reply_to": None}),
    "no reply_to, bad arguments": ("probe.ask", {"body": {"args": [], "kwargs": {"who": 1}}, "reply_to": None}),
    "no reply_to, unknown method": ("probe.nothing", {"reply_to": None}),
    "no content type": ("probe.ask", {"body": b'{"args": [{"id": "killer"}], "kwargs": {}}'}),
    "malformed call id stack": (
        "probe.ask",
        {"body": {"args": [{"id": "killer"}], "kwargs": {}}, "headers": {"nameko.call_id_stack": 5}},
    ),
}


@pytest.fixture(scope="module")
def shared(rabbitmq: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    """The probe on our stack, for all tests: none of them may end it."""
    rabbitmq.add_vhosts("poison")
    with Probe("ours", rabbitmq.uri("poison"), tmp_path_factory.mktemp("poison")) as probe:
        yield probe
    rabbitmq.delete_vhosts("poison")


@pytest.fixture
def probe(stack: str, request: pytest.FixtureRequest) -> Iterator[Probe]:
    """The probe on *stack*; a new one for each test on the stock packages."""
    if stack == "ours":
        yield request.getfixturevalue("shared")
        return
    with Probe(stack, request.getfixturevalue("amqp_uri"), request.getfixturevalue("tmp_path")) as probe:
        yield probe


@both("10: exceptions in handle_result end the process, and then the next one")
@pytest.mark.parametrize("killer", RETRY_KILLERS)
def test_a_retry_of_a_poisonous_message_leaves_the_process_alive(killer: str, probe: Probe) -> None:
    put(probe.amqp_uri, "probe", {"id": killer, "retries": 1}, **RETRY_KILLERS[killer])
    probe.until(lambda: probe.noted("done", killer))

    put(probe.amqp_uri, "probe", {"id": f"after {killer}"})

    probe.until(lambda: probe.noted("done", f"after {killer}"))
    assert probe.noted("started", killer) == 2


@both("10: exceptions in handle_result end the process, and then the next one")
@pytest.mark.parametrize("killer", RPC_KILLERS)
def test_a_poisonous_rpc_request_leaves_the_process_alive(killer: str, probe: Probe) -> None:
    method, request = RPC_KILLERS[killer]
    with Caller(probe.amqp_uri) as caller:
        # the process dies of it a moment later: a second request may still be answered
        for _ in range(3):
            caller.request(method, **request)
            asked = caller.request("probe.ask", {"id": f"after {killer}"})

            assert caller.reply(asked, probe)["result"] == "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What a stack made of everything undecodable."""

    #: raw bodies in the error log
    stored: Collection[bytes]
    #: by kind, the exception that its sender was told of
    told: Mapping[str, str]
    #: the pickle was loaded
    sprung: bool


@pytest.fixture(scope="module")
def remains(rabbitmq: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Remains]]:
    """Give one process of a stack everything undecodable, at once, and answer what remains of it."""
    rabbitmq.add_vhosts("undecodable-stock", "undecodable-ours")
    found: dict[str, Remains] = {}

    def of(stack: str) -> Remains:
        if stack not in found:
            found[stack] = _remains(stack, rabbitmq.uri(f"undecodable-{stack}"), tmp_path_factory.mktemp(stack))
        return found[stack]

    yield of
    rabbitmq.delete_vhosts("undecodable-stock", "undecodable-ours")


def _remains(stack: str, amqp_uri: str, folder: Path) -> Remains:
    with Probe(stack, amqp_uri, folder) as probe, Caller(amqp_uri) as caller:
        asked = {}
        for kind in KINDS:
            body, properties = undecodable(kind, folder)
            put(amqp_uri, "probe", body, **properties)
            asked[kind] = caller.request("probe.ask", body=body, **properties)
        put(amqp_uri, "probe", {"id": "later"})
        last = caller.request("probe.ping")

        probe.until(lambda: probe.noted("done", "later"))
        caller.reply(last, probe)
        with suppress(AssertionError):
            probe.until(lambda: len(probe.stored()) >= len(KINDS) and len(caller.order()) > len(KINDS), 3)
        return Remains(
            stored=[body for status, body in probe.stored() if status == "failed"],
            told={
                kind: caller.reply(asked[kind], probe)["error"]["exc_type"]
                for kind in KINDS
                if asked[kind] in caller.order()
            },
            sprung=(folder / "sprung").exists(),
        )


@both("11: what cannot be decoded is acknowledged and gone")
@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_decoded_is_kept_whole(
    stack: str, kind: str, remains: Callable[[str], Remains], tmp_path: Path
) -> None:
    kept = remains(stack)

    assert not kept.sprung
    if kind == "pickle":
        # it names a folder of its own
        assert any(body.startswith(b"\x80\x04") for body in kept.stored)
    else:
        assert undecodable(kind, tmp_path)[0] in kept.stored


@both("11: a caller whose request cannot be decoded waits for ever")
@pytest.mark.parametrize("kind", KINDS)
def test_who_sends_a_request_that_cannot_be_decoded_is_told(
    stack: str, kind: str, remains: Callable[[str], Remains]
) -> None:
    assert remains(stack).told.get(kind) == "MalformedRequest"


@both("12: a compressed message is lost at its first retry")
@pytest.mark.parametrize("compression", ["gzip", "bzip2"])
def test_a_compressed_message_survives_its_retries(compression: str, probe: Probe) -> None:
    body, content_type = compress(json.dumps({"id": compression, "retries": 2}), compression)
    put(
        probe.amqp_uri,
        "probe",
        body,
        content_type="application/json",
        content_encoding="utf-8",
        headers={"compression": content_type},
    )

    probe.until(lambda: probe.noted("done", compression), 3)
    assert probe.noted("started", compression) == 3


@both("13: a request with empty headers loses its method at its first retry")
def test_a_request_without_headers_survives_its_retries(
    stack: str, amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    """The work of either is a mail that is refused twice; ours comes back to a lane, never to the rpc queue."""
    smtp_server.script(Rule(at="rcpt", reply="450 4.2.0 later", times=2))
    service: Real
    if stack == "stock":
        service = Probe(stack, amqp_uri, tmp_path, environment={"SMTP_PORT": str(smtp_server.port)})
        method, argument = "probe.ask", {"id": "mail", "mail": "ann@example.org"}
    else:
        service = Real(configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port), tmp_path)
        method, argument = "mail_service.send", a_message()
    with service, Caller(amqp_uri) as caller:
        reply = caller.reply(caller.request(method, argument), service)

        assert reply["error"] is None
        assert len(smtp_server.fired()) == 2
        assert len(smtp_server.accepted()) == 1


@both("14: an exception that is no Backoff is acknowledged and gone")
def test_a_message_whose_handler_has_a_mistake_is_kept(probe: Probe) -> None:
    body = json.dumps({"id": "bad", "fails": True}).encode()
    put(probe.amqp_uri, "probe", body, content_type="application/json", content_encoding="utf-8")

    probe.until(lambda: ("failed", body) in probe.stored(), 3)
    assert probe.noted("started", "bad") == 1


@both("14: with requeue_on_error it is handled over and over")
def test_a_message_whose_handler_has_a_mistake_is_handled_once(stack: str, probe: Probe) -> None:
    put(probe.amqp_uri, "careless" if stack == "stock" else "probe", {"id": "worse", "fails": True})
    probe.until(lambda: probe.noted("started", "worse"))

    put(probe.amqp_uri, "probe", {"id": "after worse", "seconds": 1})

    probe.until(lambda: probe.noted("done", "after worse"))
    assert probe.noted("started", "worse") == 1


@pytest.fixture
def service(amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer) -> Real:
    """The real service, not started."""
    return Real(configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port, event_sources=["shop"]), tmp_path)


def as_shown(body: bytes) -> Any:
    """How the error log shows a raw body."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"raw": base64.b64encode(body).decode()}


@pytest.mark.parametrize("door", ["lane", "event"])
def test_the_error_log_shows_the_raw_body_of_what_cannot_be_decoded(
    door: str, service: Real, amqp_uri: str, tmp_path: Path
) -> None:
    """Hazard 11, on each queue that others publish to."""
    bodies = {kind: undecodable(kind, tmp_path) for kind in KINDS}
    with service:
        for body, properties in bodies.values():
            if door == "lane":
                put(amqp_uri, LANE, body, **properties)
            else:
                put(amqp_uri, "send_email", body, exchange="shop.events", **properties)

        service.until(lambda: len(service.rpc.call("errors")) == len(bodies))
        shown = [service.rpc.call("error", record["id"]) for record in service.rpc.call("errors")]
        assert {json.dumps(entry["message"]) for entry in shown} == {
            json.dumps(as_shown(body)) for body, _ in bodies.values()
        }
        assert {entry["record"]["status"] for entry in shown} == {"failed"}
        assert not (tmp_path / "sprung").exists()
        assert service.rpc.send(a_message())["status"] == "sent"


@pytest.mark.parametrize("compression", ["gzip", None])
def test_a_compressed_mail_is_delivered_through_its_retries(
    compression: str | None, service: Real, amqp_uri: str, smtp_server: SmtpServer
) -> None:
    """Hazard 12, on a lane."""
    smtp_server.script(Rule(at="rcpt", reply="450 4.2.0 later", times=2))
    body, content_type = seal(a_message(), {}, door="submit").body(), None
    if compression:
        body, content_type = compress(body, compression)
    with service:
        put(
            amqp_uri,
            LANE,
            body,
            headers={"compression": content_type} if content_type else {},
            content_type="application/json",
            content_encoding="utf-8",
        )

        service.until(smtp_server.accepted)
        assert len(smtp_server.fired()) == 2


def test_every_poison_at_once_holds_up_no_mail(
    service: Real, amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    """Hazard 10, on the lanes, the event queue and the rpc queue of the real service."""
    smtp_server.script(Rule(at="rcpt", to="later@*", reply="450 4.2.0 later", times=1))
    with service, Caller(amqp_uri) as caller:
        for number, properties in enumerate(RETRY_KILLERS.values()):
            message = a_message(to=["later@example.org"], subject=f"killer {number}")
            put(amqp_uri, LANE, seal(message, {}, door="submit").body(), content_type="application/json", **properties)
            put(amqp_uri, "send_email", message, exchange="shop.events", **properties)
        for method, request in RPC_KILLERS.values():
            for name in ("send", "submit", "nothing"):
                caller.request(
                    method.replace("probe.ask", f"mail_service.{name}").replace("probe", "mail_service"), **request
                )
            caller.request("mail_service.submit", a_message(subject="alone"), reply_to=None)

        assert service.rpc.send(a_message(subject="good"))["status"] == "sent"
        delivered = 2 * len(RETRY_KILLERS) + len(RPC_KILLERS) + 1
        service.until(lambda: len(smtp_server.accepted()) >= delivered)
        assert eventually(lambda: depth(amqp_uri, LANE) == 0)
        assert len(smtp_server.accepted()) == delivered


def forged(name: str) -> tuple[bytes, dict[str, Any]]:
    """An envelope that no door of ours would make, and its headers; delivered or not, it has to come to an end."""
    envelope = seal(a_message(), {}, door="submit")
    facts = json.loads(envelope.body())
    change: dict[str, Any] = {
        "mail": {"id": envelope.id, "status": "deferred", "mailer": "default", "recipients": {}},
        "attempt": None,
    }
    headers: dict[str, dict[str, Any]] = {
        "huge generation": {topology.GENERATION: 2**62},
        "huge attempts": {topology.ATTEMPTS: 2**62},
        "negative attempts": {topology.ATTEMPTS: -5},
        "attempts of text": {topology.ATTEMPTS: "many"},
        "due in a million years": {topology.DUE: 2**62},
        "due of text": {topology.DUE: "soon"},
        "only to record": {topology.STATE: topology.STATE_LOG},
        "only to record, forged error": {
            topology.STATE: topology.STATE_LOG,
            topology.ERROR: "\x00",
            topology.STATUS: 5,
        },
        "replay of text": {topology.REPLAY: "yes"},
        "submitted of text": {topology.SUBMITTED: "yesterday"},
    }
    bodies: dict[str, Any] = {
        "settled without status": {"settled": {"ann@example.org": {"detail": "x"}}},
        "settled in an unknown status": {"settled": {"ann@example.org": {"status": "lost"}}},
        "settled as text": {"settled": {"ann@example.org": "sent"}},
        "settled as a list": {"settled": ["ann@example.org"]},
        "unrecorded nonsense": {"unrecorded": [1, "x", None, {}, {"mail": 5}, {"mail": {"status": "lost"}}]},
        "unrecorded without facts": {"unrecorded": [change]},
        "unrecorded of wrong types": {
            "unrecorded": [{"mail": {**change["mail"], "recipients": {"a@b.c": 5}, "generation": "x"}, "attempt": None}]
        },
        "unrecorded recipients of nothing": {
            "unrecorded": [
                {"mail": {**change["mail"], "recipients": {"ann@example.org": {}}, "generation": 9}, "attempt": None}
            ]
        },
        "unrecorded attempt of wrong types": {
            "unrecorded": [
                {
                    "mail": change["mail"],
                    "attempt": {
                        "at": 5, "mailer": [], "diagnosis": "x" * 500, "text": "\x00", "milliseconds": "x",
                        "recipients": 5,
                    },
                }
            ]
        },
        "endless time": {"submitted_at": "2026-11-22T03:00:00." + "1" * 300 + "+00:00"},
        "time with NUL": {"submitted_at": "2026-11-22\x0003:00:00+00:00"},
        "first moment of time": {"submitted_at": "0001-01-01T00:00:00+23:59"},
        "NUL in the id": {"id": "a\x00b"},
        "half a surrogate in the id": {"id": "a\ud800b"},
        "long reply_to": {"reply_to": ["r" * 5000, "c" * 5000]},
        "surrogate reply_to": {"reply_to": ["\ud800", "\x00"]},
        "reply_to of one": {"reply_to": ["only"]},
        "long door": {"door": "d" * 500},
        "door with NUL": {"door": "\x00"},
        "door of surrogates": {"door": "\ud800"},
        "message-id with a line break": {"message_id": "<a@b>\r\nBcc: eve@example.org"},
        "message-id of surrogates": {"message_id": "<\ud800@b>"},
        "date of nonsense": {"date": "\ud800 tomorrow\r\nBcc: eve@example.org"},
        "unknown mailer": {"options": {"mailer": "nobody" * 30}},
        "unknown schedule": {"options": {"backoff": "nobody"}},
        "options of wrong types": {"options": {"id": 5, "priority": "urgent"}},
        "message of text": {"message": "hello"},
        "no message": {"message": None},
        "other version": {"v": 99},
    }  # fmt: skip
    if name in headers:
        return envelope.body(), headers[name]
    return json.dumps(facts | bodies[name]).encode(), {}


FORGERIES = [
    "huge generation", "huge attempts", "negative attempts", "attempts of text", "due of text", "only to record",
    "only to record, forged error", "replay of text", "submitted of text", "settled without status",
    "settled in an unknown status", "settled as text", "settled as a list", "unrecorded nonsense",
    "unrecorded without facts", "unrecorded of wrong types", "unrecorded recipients of nothing",
    "unrecorded attempt of wrong types", "endless time", "time with NUL", "first moment of time", "NUL in the id",
    "half a surrogate in the id", "long reply_to", "surrogate reply_to", "reply_to of one", "long door",
    "door with NUL", "door of surrogates", "message-id with a line break", "message-id of surrogates",
    "date of nonsense", "unknown schedule", "options of wrong types", "message of text", "no message", "other version",
]  # fmt: skip


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_every_forged_copy_comes_to_an_end(
    database: str, amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer, request: pytest.FixtureRequest
) -> None:
    """
    Mailed or in the error log, but not left in the queue to be looked at over and over. PostgreSQL is the stricter.
    """
    more = {"database": request.getfixturevalue("postgresql_url")} if database == "postgresql" else {}
    config = configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port, **more)
    with Real(config, tmp_path) as service:
        for name in FORGERIES:
            body, headers = forged(name)
            put(amqp_uri, LANE, body, headers=headers, content_type="application/json", content_encoding="utf-8")

        # an "only to record" that records nothing has nothing to do but to be stored
        service.until(
            lambda: len(smtp_server.accepted()) + len(service.rpc.call("errors")) >= len(FORGERIES),
            20,
        )
        assert depth(amqp_uri, LANE) == 0
        assert "stays in" not in service.log
        assert service.rpc.send(a_message())["status"] == "sent"
        assert not [mail for mail in smtp_server.accepted() if b"eve@example.org" in mail.data.split(b"\n\n")[0]]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_whatever_a_server_says_can_be_written_down(
    database: str, amqp_uri: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    more = {"database": request.getfixturevalue("postgresql_url")} if database == "postgresql" else {}
    config = configuration(amqp_uri, tmp_path, **more)
    config["mail"]["mailers"] = {"default": {"BACKEND": "tests.hazards.nasty_backend.EmailBackend"}}
    with Real(config, tmp_path) as service:
        with pytest.raises(Exception, match="odd"):
            service.rpc.send(a_message(), id="mail 1")

        entry = service.rpc.call("error", "mail 1")
        assert entry["record"]["status"] == "failed"
        assert len(entry["attempts"]) == 1


def test_an_exception_of_a_backend_is_stored_with_its_traceback(amqp_uri: str, tmp_path: Path) -> None:
    """Hazard 14, for mailers."""
    config = configuration(amqp_uri, tmp_path)
    config["mail"]["mailers"] = {"default": {"BACKEND": "tests.hazards.nasty_backend.EmailBackend"}}
    with Real(config, tmp_path) as service:
        submitted = service.rpc.call("submit", a_message())

        service.until(lambda: service.rpc.status(submitted["id"])["status"] == "failed")
        entry = service.rpc.call("error", submitted["id"])
        assert entry["record"]["attempts"] == 1
        assert "Traceback" in entry["attempts"][0]["text"]
        assert "nasty_backend.py" in entry["attempts"][0]["text"]


def test_an_envelope_survives_its_own_bytes() -> None:
    envelope = seal(a_message(), {"id": "ä€"}, door="submit")

    assert Envelope.parse(envelope.body()) == replace(envelope)
