"""MailClient against a real RabbitMQ, and against one that is away, hangs, breaks off or is short of memory."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp
import kombu
import pytest
import trustme

from mail_service import sizes, topology
from mail_service.client import MailClient
from mail_service.envelope import Envelope
from mail_service.errors import (
    ConfigurationError,
    Conflict,
    DeliveryFailed,
    Expired,
    InvalidMessage,
    MailServiceError,
    NotFound,
    Timeout,
    Unavailable,
)
from mail_service.local.node import Node

from ..support.messages import a_message
from ..support.outages import Proxy
from ..support.responder import RPC_QUEUE, Later, RemoteFault, Responder
from ..support.waiting import eventually

#: seconds by which a call may end after its time limit, on a busy machine
MARGIN_S = 2.0
ROOT = Path(__file__).parents[2]
#: class and method of a broker's basic.ack
CONFIRM = b"\x00\x3c\x00\x50"


def queued(amqp_uri: str, lane: str = "normal") -> list[kombu.Message]:
    """Take all messages out of a lane's work queue."""
    with kombu.Connection(amqp_uri) as connection:
        queue = topology.lane_queue(lane)(connection.default_channel)
        try:
            queue.queue_declare(passive=True)
        except amqp.exceptions.NotFound:
            return []
        return list(iter(lambda: queue.get(no_ack=True), None))


def mails(amqp_uri: str, lane: str = "normal") -> list[Envelope]:
    return [Envelope.parse(message.body) for message in queued(amqp_uri, lane)]


def vhost(amqp_uri: str) -> str:
    return unquote(urlsplit(amqp_uri).path[1:])


@contextmanager
def ends_within(seconds: float) -> Iterator[None]:
    """The contract: a call ends within its time limit, whatever happens."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < seconds + MARGIN_S


@pytest.fixture
def client(amqp_uri: str) -> Iterator[MailClient]:
    with MailClient(amqp_uri) as client:
        yield client


# What is handed over


def test_the_first_mail_of_all_declares_its_queue_and_is_complete(client: MailClient, amqp_uri: str) -> None:
    message = a_message(subject="Grüße")

    answer = client.submit(message, tenant="acme", expires_at="2040-01-01T00:00:00")

    (found,) = queued(amqp_uri)
    envelope = Envelope.parse(found.body)
    assert answer == {"id": envelope.id, "status": "queued"}
    assert envelope.message == message
    assert envelope.options == {"tenant": "acme", "expires_at": "2040-01-01T00:00:00+00:00"}
    assert envelope.door == "client"
    assert envelope.message_id.endswith("@example.org>")
    assert found.properties["delivery_mode"] == 2
    assert found.properties["message_id"] == envelope.id
    assert (found.content_type, found.content_encoding) == ("application/json", "utf-8")
    assert found.headers[topology.SUBMITTED] > 0


def test_a_mail_takes_the_lane_of_its_priority(client: MailClient, amqp_uri: str) -> None:
    ids = {lane: client.submit(a_message(), priority=lane)["id"] for lane in topology.LANES}

    assert {lane: [mail.id for mail in mails(amqp_uri, lane)] for lane in topology.LANES} == {
        lane: [mail_id] for lane, mail_id in ids.items()
    }


def test_a_queue_that_was_deleted_is_declared_again(client: MailClient, amqp_uri: str) -> None:
    client.submit(a_message())
    with kombu.Connection(amqp_uri) as connection:
        topology.lane_queue("normal")(connection.default_channel).delete()

    answer = client.submit(a_message())

    assert [mail.id for mail in mails(amqp_uri)] == [answer["id"]]


def test_the_callers_own_id_is_kept_even_when_it_is_too_long_for_an_amqp_property(
    client: MailClient, amqp_uri: str
) -> None:
    mail_id = "\N{LATIN SMALL LETTER E WITH ACUTE}" * 200

    assert client.submit(a_message(), id=mail_id)["id"] == mail_id
    assert [mail.id for mail in mails(amqp_uri)] == [mail_id]


@pytest.mark.parametrize(
    ("message", "options", "field"),
    [
        pytest.param(a_message(to=None), {}, "to", id="nobody to send it to"),
        pytest.param(a_message(subject="a\nBcc: x@example.org"), {}, "subject", id="injected header"),
        pytest.param(a_message(), {"prority": "high"}, "options.prority", id="unknown option"),
        pytest.param(a_message(), {"priority": "urgent"}, "priority", id="unknown priority"),
        pytest.param("no message", {}, "message", id="not an object"),
        pytest.param(a_message(metadata={"a": {1, 2}}), {}, "metadata", id="no form in JSON"),
    ],
)
def test_what_cannot_be_used_names_its_field_and_is_not_queued(
    client: MailClient, amqp_uri: str, message: Any, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidMessage) as caught:
        client.submit(message, **options)

    assert caught.value.field.startswith(field)
    assert queued(amqp_uri) == []


def test_a_message_without_sender_leaves_it_to_the_service_unless_the_client_has_a_default(
    client: MailClient, amqp_uri: str
) -> None:
    client.submit(a_message(from_email=None))
    with MailClient(amqp_uri, default_from="Shop <shop@example.com>") as other:
        other.submit(a_message(from_email=None))

    first, second = mails(amqp_uri)

    assert "from_email" not in first.message
    assert first.message_id.endswith("@mail-service.invalid>")
    assert second.message["from_email"] == "Shop <shop@example.com>"
    assert second.message_id.endswith("@example.com>")


# Many at once


def test_a_batch_is_answered_in_order_and_a_bad_message_does_not_stop_the_others(
    client: MailClient, amqp_uri: str
) -> None:
    answers = client.submit_many(
        [
            a_message(options={"id": "one"}),
            a_message(subject="a\nb"),
            a_message(options={"id": "two", "priority": "bulk"}),
            a_message(options={"mailr": "x"}),
            "no message",  # type: ignore[list-item]
            a_message(),
        ]
    )

    assert answers[0] == {"id": "one", "status": "queued"}
    assert answers[2] == {"id": "two", "status": "queued"}
    errors = [answer["error"] for answer in answers if "error" in answer]
    assert [(error["type"], error["field"]) for error in errors] == [
        ("InvalidMessage", "subject"),
        ("InvalidMessage", "options.mailr"),
        ("InvalidMessage", "message"),
    ]
    assert all(error["message"].startswith(error["field"]) for error in errors)
    assert [mail.id for mail in mails(amqp_uri)] == ["one", answers[5]["id"]]
    (two,) = mails(amqp_uri, "bulk")
    assert two.message == a_message(), "the options travel beside the message"


def test_a_large_batch_arrives_once_and_in_order(client: MailClient, amqp_uri: str) -> None:
    answers = client.submit_many(a_message(body="x" * 2000) for _ in range(5000))

    assert [answer["status"] for answer in answers] == ["queued"] * 5000
    assert [mail.id for mail in mails(amqp_uri)] == [answer["id"] for answer in answers]


def test_an_empty_batch_needs_no_broker() -> None:
    assert MailClient("amqp://127.0.0.1:1").submit_many([]) == []


def test_a_batch_whose_connection_breaks_is_taken_up_with_the_same_ids(amqp_uri: str) -> None:
    with Proxy(amqp_uri) as proxy, MailClient(proxy.amqp_uri) as client:
        client.submit(a_message())
        proxy.cut_after = 1_000_000
        answers = client.submit_many(a_message(body="x" * 2000) for _ in range(2000))

    assert {answer["status"] for answer in answers} == {"queued"}
    arrived = {mail.id for mail in mails(amqp_uri)}
    assert {answer["id"] for answer in answers} < arrived
    assert len(arrived) == 2001
    assert proxy.accepted == 2


def test_a_batch_that_is_stuck_says_which_mails_are_certain(amqp_uri: str) -> None:
    with Proxy(amqp_uri) as proxy, MailClient(proxy.amqp_uri, timeout=1) as client:
        client.submit(a_message())
        # the second 2,000 of it
        threading.Thread(target=lambda: _freeze_after(amqp_uri, 1500, proxy)).start()
        with ends_within(3):
            answers = client.submit_many(a_message(body="x" * 2000, options={"id": str(n)}) for n in range(6000))
        proxy.thaw()

    status = Counter(answer.get("status") or answer["error"]["type"] for answer in answers)
    assert status["queued"] >= 1
    assert status["queued"] + status["Timeout"] + status["Unavailable"] == 6000
    assert [answer["id"] for answer in answers] == [str(n) for n in range(6000)]


def _freeze_after(amqp_uri: str, count: int, proxy: Proxy) -> None:
    with kombu.Connection(amqp_uri) as connection:
        queue = topology.lane_queue("normal")(connection.default_channel)
        eventually(lambda: queue.queue_declare(passive=True).message_count > count, every_s=0.001)
    proxy.freeze()


def test_more_than_the_broker_takes_is_an_invalid_message(amqp_uri: str, rabbitmq_4: Node) -> None:
    too_large = a_message(body="x" * 17_000_000)

    with MailClient(amqp_uri, timeout=30) as client:
        with pytest.raises(InvalidMessage) as caught:
            client.submit(too_large)
        answers = client.submit_many([a_message(), too_large, a_message()])

    assert caught.value.field == "message"
    assert [answer.get("status") for answer in answers] == ["queued", None, "queued"]
    assert answers[1]["error"]["type"] == "InvalidMessage"
    assert {mail.id for mail in mails(amqp_uri)} == {answers[0]["id"], answers[2]["id"]}


@pytest.mark.parametrize("raised_to", [None, 64 * 1024 * 1024], ids=["as it comes", "raised"])
def test_a_mail_whose_later_copies_would_be_too_large_is_refused(
    amqp_uri: str, rabbitmq_4: Node, raised_to: int | None
) -> None:
    """The service could not put it back for another attempt; it does not know a raised limit either."""
    with largest_message(rabbitmq_4, raised_to), MailClient(amqp_uri, timeout=30) as client:
        with pytest.raises(
            InvalidMessage, match=r"at most 16,777,216 .*of which 262,144 .*make its attachments smaller"
        ):
            client.submit(a_message(body="x" * (sizes.LARGEST - sizes.ROOM_TO_GROW)))
        answer = client.submit(a_message(body="x" * (sizes.LARGEST - sizes.ROOM_TO_GROW - 1000)))

    assert [mail.id for mail in mails(amqp_uri)] == [answer["id"]]


def test_a_lower_limit_is_learned_from_the_first_refusal(amqp_uri: str, broker: Node) -> None:
    with largest_message(broker, 500_000), MailClient(amqp_uri) as client:
        with pytest.raises(InvalidMessage, match="500,000"):
            client.submit(a_message(body="x" * 500_000))
        with pytest.raises(InvalidMessage, match="500,000"):
            client.submit(a_message(body="x" * (500_000 - sizes.ROOM_TO_GROW)))
        client.submit(a_message())

    assert len(mails(amqp_uri)) == 1


@contextmanager
def largest_message(node: Node, size: int | None) -> Iterator[None]:
    """Another limit, on channels that are opened from now on."""
    before = node.ctl("eval", "{ok, Size} = application:get_env(rabbit, max_message_size), Size.")
    try:
        _set_largest(node, size or int(before))
        yield
    finally:
        _set_largest(node, int(before))


def _set_largest(node: Node, size: int) -> None:
    # 3.10 reads the first, 4.0 the second, which its configuration is copied to when it starts
    node.ctl("eval", f"application:set_env(rabbit, max_message_size, {size}).")
    node.ctl("eval", f"persistent_term:put(max_message_size, {size}).")


# Threads, processes, event loops


def test_threads_share_a_client_and_each_mail_arrives_once(client: MailClient, amqp_uri: str) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: client.submit(a_message()), range(800)))

    ids = Counter(mail.id for mail in mails(amqp_uri))
    assert ids == Counter(answer["id"] for answer in answers)
    assert len(ids) == 800


def test_short_lived_threads_do_not_pile_up_connections(amqp_uri: str) -> None:
    with Proxy(amqp_uri) as proxy, MailClient(proxy.amqp_uri) as client:
        for _ in range(20):
            thread = threading.Thread(target=client.submit, args=(a_message(),))
            thread.start()
            thread.join()

    assert proxy.accepted == 1


def run_program(program: str, *args: str) -> str:
    """Run a Python program in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", program, *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FORKING = """
import os, signal, sys
from mail_service.client import MailClient
message = {"from_email": "a@example.org", "to": ["b@example.org"]}
client = MailClient(sys.argv[1], timeout=20)
for _ in range(10):
    client.submit(message)
children = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        signal.alarm(40)
        for _ in range(100):
            client.submit(message)
        client.close()
        os._exit(0)
    children.append(pid)
for _ in range(100):
    client.submit(message)
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children])
client.submit(message)
client.close()
"""


def test_forked_children_use_connections_of_their_own_and_leave_the_parents_alone(amqp_uri: str) -> None:
    with Proxy(amqp_uri) as proxy:
        printed = run_program(FORKING, proxy.amqp_uri)

    assert printed == "[0, 0, 0, 0]\n"
    assert proxy.accepted == 5
    assert len({mail.id for mail in mails(amqp_uri)}) == 10 + 4 * 100 + 100 + 1


PATCHED = """
import eventlet
eventlet.monkey_patch()
import sys
from mail_service.client import MailClient
message = {"from_email": "a@example.org", "to": ["b@example.org"]}
with MailClient(sys.argv[1]) as client:
    ticks = []
    def tick():
        while True:
            ticks.append(1)
            eventlet.sleep(0)
    ticking = eventlet.spawn(tick)
    pool = eventlet.GreenPool(20)
    answers = list(pool.imap(lambda _: client.submit(message), range(200)))
    print(len({answer["id"] for answer in answers}), len(ticks) > 20)
    ticking.kill()
"""


def test_it_works_in_an_eventlet_process_without_blocking_its_loop(amqp_uri: str) -> None:
    printed = run_program(PATCHED, amqp_uri)

    assert printed == "200 True\n"
    assert len(mails(amqp_uri)) == 200


def test_neither_eventlet_nor_nameko_is_imported() -> None:
    program = "import mail_service.client, sys; print(sorted({'eventlet', 'nameko'} & set(sys.modules)))"

    assert run_program(program) == "[]\n"


# A broker that is away, hangs, breaks off, or is short of memory


def test_a_broker_that_is_not_there_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    client = MailClient(f"amqp://guest:secret@127.0.0.1:{port}//", timeout=1)

    with ends_within(1), pytest.raises(Unavailable, match=f"127.0.0.1:{port} cannot be reached") as caught:
        client.submit(a_message())

    assert "secret" not in str(caught.value)
    assert isinstance(caught.value, ConnectionError)
    with ends_within(1), pytest.raises(Unavailable):
        client.submit_many([a_message(), a_message()])
    with ends_within(1), pytest.raises(Unavailable):
        client.send(a_message())


def test_a_broker_that_never_answers_the_handshake_is_unavailable(amqp_uri: str) -> None:
    with Proxy(amqp_uri) as proxy, MailClient(proxy.amqp_uri, timeout=1) as client:
        proxy.freeze()
        with ends_within(1), pytest.raises(Unavailable, match=r"does not answer in time\. Nothing was handed over"):
            client.submit(a_message())


def test_a_login_that_is_refused_is_not_tried_again(amqp_uri: str) -> None:
    with Proxy(amqp_uri.replace("guest:guest", "guest:wrong")) as proxy:
        with MailClient(proxy.amqp_uri) as client, pytest.raises(Unavailable, match="refuses us"):
            client.submit(a_message())
        assert proxy.accepted == 1


def test_a_half_open_connection_times_out_and_the_same_id_makes_it_one_mail(amqp_uri: str) -> None:
    with Proxy(amqp_uri) as proxy, MailClient(proxy.amqp_uri, timeout=1) as client:
        client.submit(a_message(), id="first")
        proxy.freeze()
        with ends_within(1), pytest.raises(Timeout, match="the mail second is unknown") as caught:
            client.submit(a_message(), id="second")
        proxy.thaw()
        client.submit(a_message(), id="second")

    assert isinstance(caught.value, TimeoutError)
    assert caught.value.mail_id == "second"
    assert {mail.id for mail in mails(amqp_uri)} == {"first", "second"}


def test_a_connection_that_was_closed_meanwhile_is_made_again(amqp_uri: str) -> None:
    with Proxy(amqp_uri) as proxy, MailClient(proxy.amqp_uri) as client:
        for _ in range(3):
            client.submit(a_message())
            proxy.cut()

    assert len({mail.id for mail in mails(amqp_uri)}) == 3


def test_submitting_goes_on_through_a_crash_of_the_broker(rabbitmq: Node, amqp_uri: str) -> None:
    with MailClient(amqp_uri, timeout=30) as client, ThreadPoolExecutor(4) as threads:
        client.submit(a_message())
        # RabbitMQ 3.10 forgets a quorum queue that is younger than half a second, with all that it has confirmed
        rabbitmq.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")
        answers = [threads.submit(client.submit, a_message()) for _ in range(50)]
        answers[10].result()
        rabbitmq.kill9()
        answers += [threads.submit(client.submit, a_message()) for _ in range(50)]
        rabbitmq.start()
        ids = {answer.result()["id"] for answer in answers}

    assert ids < {mail.id for mail in mails(amqp_uri)}


def test_a_broker_that_hangs_does_not_hang_us(rabbitmq: Node, amqp_uri: str) -> None:
    with MailClient(amqp_uri, timeout=1) as client:
        client.submit(a_message())
        rabbitmq.pause()
        try:
            with ends_within(2), pytest.raises(Timeout):
                _submit_until_it_fails(client)
            with ends_within(1), pytest.raises(Unavailable):
                client.submit(a_message())
            with ends_within(1), pytest.raises(Unavailable):
                client.status("x")
        finally:
            rabbitmq.resume()
        eventually(lambda: _submitted(client), 20)


def _submit_until_it_fails(client: MailClient) -> None:
    # a process that is told to stop goes on for a moment
    while True:
        client.submit(a_message())


def _submitted(client: MailClient) -> bool:
    try:
        return bool(client.submit(a_message()))
    except (Timeout, Unavailable):
        return False


@pytest.fixture
def alarm(rabbitmq: Node) -> Iterator[Callable[[], None]]:
    """Raise a memory alarm; it ends with the test."""
    limit = rabbitmq.ctl("eval", "vm_memory_monitor:get_vm_memory_high_watermark().")

    def start() -> None:
        rabbitmq.ctl("set_vm_memory_high_watermark", "0.0000001")

    yield start
    rabbitmq.ctl("set_vm_memory_high_watermark", limit)


def test_a_memory_alarm_blocks_no_caller_and_the_next_one_learns_that_nothing_was_handed_over(
    rabbitmq: Node, amqp_uri: str, alarm: Callable[[], None]
) -> None:
    with MailClient(amqp_uri, timeout=1) as client:
        client.submit(a_message(), id="before")
        alarm()
        with ends_within(1), pytest.raises(Timeout, match=r"lack of memory .* the mail during is unknown"):
            client.submit(a_message(), id="during")
        with ends_within(1), pytest.raises(Unavailable, match=r"lack of memory .* Nothing was handed over"):
            client.submit(a_message(), id="refused")
        with ends_within(1), pytest.raises((Unavailable, Timeout), match="lack of memory"):
            client.submit_many(a_message(body="x" * 2000) for _ in range(3000))
        with ends_within(1), pytest.raises(Unavailable, match="lack of memory"):
            client.status("x")
        rabbitmq.ctl("set_vm_memory_high_watermark", "0.6")
        eventually(lambda: _submitted(client), 20)

    ids = {mail.id for mail in mails(amqp_uri)}
    assert {"before", "during"} <= ids
    assert "refused" not in ids


def test_a_large_batch_into_a_memory_alarm_ends_in_time(
    rabbitmq: Node, amqp_uri: str, alarm: Callable[[], None]
) -> None:
    with MailClient(amqp_uri, timeout=1) as client:
        client.submit(a_message())
        alarm()
        with ends_within(1), pytest.raises(Timeout) as caught:
            client.submit_many([a_message(body="x" * 100_000, options={"id": str(number)}) for number in range(400)])

    assert caught.value.mail_id is None
    assert caught.value.mail_ids[:2] == ("0", "1")
    assert set(caught.value.mail_ids) <= set(map(str, range(400)))


def test_a_full_queue_refuses_and_says_so(rabbitmq: Node, amqp_uri: str) -> None:
    rabbitmq.ctl("set_policy", "-p", vhost(amqp_uri), "full", "^mail.send", '{"max-length": 3}', "--apply-to", "queues")

    with MailClient(amqp_uri, timeout=1) as client:
        # the limit of a quorum queue is not exact
        outcomes = {_refusal(client) for _ in range(6)}

    assert any("refused to store" in outcome for outcome in outcomes)


def _refusal(client: MailClient) -> str:
    try:
        return str(client.submit(a_message()))
    except (Unavailable, Timeout) as exc:
        return str(exc)


# Asking the service


def test_a_call_returns_what_the_service_answers(client: MailClient, amqp_uri: str) -> None:
    with Responder(amqp_uri, status=lambda mail_id: {"id": mail_id, "status": "sent"}) as service:
        assert client.status("x") == {"id": "x", "status": "sent"}
        assert client.is_running()

    (request,) = service.requests
    assert request.args == ["x"]
    assert request.headers["nameko.call_id_stack"], "nameko loses the method of a request without headers"
    assert int(request.properties["expiration"]) == 10_000


def test_send_waits_for_the_record(client: MailClient, amqp_uri: str) -> None:
    with Responder(amqp_uri, send=lambda message, **options: {"message": message, "options": options}) as service:
        answer = client.send(a_message(), priority="high")

    assert answer["message"] == a_message()
    assert answer["options"]["priority"] == "high"
    assert answer["options"]["id"], "a repeated request has to be the same mail"
    assert "expiration" not in service.requests[0].properties


@pytest.mark.parametrize(
    "error", [DeliveryFailed, Expired, NotFound, Conflict, Unavailable], ids=lambda error: error.__name__
)
def test_the_services_errors_come_back_as_ours(
    client: MailClient, amqp_uri: str, error: type[MailServiceError]
) -> None:
    def fail(_id: str) -> None:
        raise RemoteFault(error.__name__, "what happened")

    with Responder(amqp_uri, status=fail), pytest.raises(MailServiceError, match=r"^what happened$") as caught:
        client.status("x")

    assert type(caught.value) is error


def test_the_status_of_a_mail_that_no_worker_has_taken_yet_says_that_mails_wait(
    client: MailClient, amqp_uri: str
) -> None:
    def unknown(mail_id: str) -> None:
        raise RemoteFault("NotFound", f"no mail has the id {mail_id!r}")

    with Responder(amqp_uri, status=unknown):
        with pytest.raises(NotFound, match=r"^no mail has the id 'x'$"):
            client.status("x")
        client.submit_many([a_message(), a_message(options={"priority": "bulk", "id": "x"})])
        # confirmed is not counted yet
        eventually(lambda: client._waiting() == 2)
        with pytest.raises(NotFound, match=r"'x' yet; 2 mails wait for a worker, and it may be one of them"):
            client.status("x")


def test_an_invalid_message_found_by_the_service_has_its_field(client: MailClient, amqp_uri: str) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise RemoteFault("InvalidMessage", str(InvalidMessage("mailer", "must be one of: a; there is no 'b'")))

    with Responder(amqp_uri, send=fail), pytest.raises(InvalidMessage) as caught:
        client.send(a_message(), mailer="b")

    assert (caught.value.field, caught.value.problem) == ("mailer", "must be one of: a; there is no 'b'")


def test_an_error_of_any_other_kind_is_named(client: MailClient, amqp_uri: str) -> None:
    def fail() -> None:
        raise RemoteFault("MethodNotFound", "paint")

    with Responder(amqp_uri, paint=fail), pytest.raises(MailServiceError, match="MethodNotFound: paint"):
        client.call("paint")


def test_a_service_that_never_ran_is_unavailable(client: MailClient) -> None:
    with pytest.raises(Unavailable, match="has never run"):
        client.status("x")

    assert not client.is_running()


def test_a_service_that_is_stopped_times_out_and_only_mail_is_left_in_its_queue(
    client: MailClient, amqp_uri: str
) -> None:
    with kombu.Connection(amqp_uri) as connection:
        RPC_QUEUE(connection.default_channel).declare()
        with ends_within(0.3), pytest.raises(Timeout, match=r"The mail goes on, with id [0-9a-f]") as of_a_mail:
            client.send(a_message(), timeout=0.3)
        with ends_within(0.3), pytest.raises(Timeout, match="not running") as of_none:
            client.call("purge", 30, timeout=0.3)

    assert of_a_mail.value.mail_id
    assert str(of_a_mail.value).endswith(of_a_mail.value.mail_id)
    assert of_none.value.mail_id is None
    assert not client.is_running()
    with Responder(amqp_uri, send=lambda *_args, **_options: None, status=lambda mail_id: {"id": mail_id}) as service:
        client.status("x")
    assert [request.method for request in service.requests] == ["send", "status"]


def test_a_reply_that_comes_too_late_is_not_taken_for_the_next_one(client: MailClient, amqp_uri: str) -> None:
    later = Later()
    with Responder(amqp_uri, health=later, status=lambda mail_id: {"id": mail_id}) as service:
        with pytest.raises(Timeout):
            client.call("health", timeout=0.2)
        service.reply(later.requests[0], {"late": True}, times=2)

        assert client.status("x") == {"id": "x"}


def test_a_reply_finds_us_after_the_connection_broke(amqp_uri: str) -> None:
    later = Later()
    with (
        Proxy(amqp_uri) as proxy,
        MailClient(proxy.amqp_uri) as client,
        Responder(amqp_uri, send=later) as service,
        ThreadPoolExecutor(1) as thread,
    ):
        answer = thread.submit(client.send, a_message())
        eventually(lambda: later.requests and CONFIRM in proxy.said)
        proxy.cut()
        service.reply(later.requests[0], {"status": "sent"})
        assert answer.result() == {"status": "sent"}

    assert len(later.requests) == 1, "the request was confirmed, so it is not repeated"


def test_threads_ask_at_the_same_time_and_get_their_own_answers(client: MailClient, amqp_uri: str) -> None:
    with Responder(amqp_uri, status=lambda mail_id: {"id": mail_id}), ThreadPoolExecutor(8) as threads:
        asked = [str(number) for number in range(200)]

        assert [answer["id"] for answer in threads.map(client.status, asked)] == asked


def test_close_deletes_the_reply_queue_and_the_client_can_be_used_again(amqp_uri: str) -> None:
    client = MailClient(amqp_uri)
    with Responder(amqp_uri, status=lambda mail_id: {"id": mail_id}) as service:
        for _ in range(2):
            client.status("x")
            client.close()
        reply_to = {request.properties["reply_to"] for request in service.requests}

    assert len(reply_to) == 2
    with kombu.Connection(amqp_uri) as connection:
        for key in reply_to:
            with pytest.raises(amqp.exceptions.NotFound), connection.channel() as channel:
                channel.queue_declare(f"rpc.reply-mail_service_client-{key}", passive=True)


# Configuration


def test_a_client_is_made_from_namekos_configuration(amqp_uri: str) -> None:
    config = {"AMQP_URI": amqp_uri, "rpc_exchange": "other", "mail": {"default_from": "a@example.net"}}
    with MailClient.from_config(config, timeout=5) as client:
        client.submit(a_message(from_email=None))
        with pytest.raises(Unavailable):
            client.status("x")

    assert mails(amqp_uri)[0].message["from_email"] == "a@example.net"
    with kombu.Connection(amqp_uri) as connection, connection.channel() as channel:
        channel.exchange_declare("other", "topic", passive=True)


@pytest.mark.parametrize(
    ("uri", "options"),
    [
        pytest.param("http://localhost", {}, id="another protocol"),
        pytest.param("", {}, id="nothing"),
        pytest.param("amqp://a:secret@localhost:port//", {}, id="port"),
        pytest.param("amqp://localhost", {"timeout": 0}, id="no time"),
    ],
)
def test_a_client_that_cannot_work_is_refused_at_once(uri: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MailClient(uri, **options)

    assert "secret" not in str(caught.value)


def test_several_addresses_are_tried_in_turn(amqp_uri: str) -> None:
    with MailClient(f"amqp://127.0.0.1:1//;{amqp_uri}") as client:
        client.submit(a_message())

    assert len(mails(amqp_uri)) == 1


def test_an_address_that_is_silent_leaves_time_for_the_others(amqp_uri: str) -> None:
    with Proxy(amqp_uri) as proxy:
        proxy.freeze()
        with MailClient(f"{proxy.amqp_uri};{amqp_uri}", timeout=6) as client, ends_within(6):
            client.submit(a_message())

    assert len(mails(amqp_uri)) == 1


def test_a_channel_that_was_refused_is_not_used_again(rabbitmq: Node, amqp_uri: str) -> None:
    """In a cluster it may go on refusing long after the queue has found a leader."""
    full = ("-p", vhost(amqp_uri), "full", "^mail.send", '{"max-length": 3}', "--apply-to", "queues")
    rabbitmq.ctl("set_policy", *full)

    with Proxy(amqp_uri) as proxy, MailClient(proxy.amqp_uri, timeout=1) as client:
        for _ in range(6):
            _refusal(client)

    assert proxy.accepted > 1


def test_a_certificate_is_checked_and_a_trusted_one_taken(amqp_uri: str, tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    stranger.cert_pem.write_to_path(str(tmp_path / "stranger.pem"))

    with Proxy(amqp_uri, tls=server) as proxy:
        options = {"ca_certs": str(tmp_path / "ca.pem"), "cert_reqs": "CERT_REQUIRED", "server_hostname": None}
        config = {"AMQP_URI": proxy.amqp_uri, "AMQP_SSL": options}
        with MailClient.from_config(config) as client:
            client.submit_many(a_message(body="x" * 2000) for _ in range(300))
            client.submit(a_message(body="x" * 300_000))
            proxy.cut()
            client.submit(a_message())
        wrong = {**config, "AMQP_SSL": {**options, "ca_certs": str(tmp_path / "stranger.pem")}}
        with MailClient.from_config(wrong) as client, pytest.raises(Unavailable, match="over TLS"):
            client.submit(a_message())
        elsewhere = {**config, "AMQP_SSL": {**options, "server_hostname": "elsewhere.example"}}
        with MailClient.from_config(elsewhere) as client, pytest.raises(Unavailable, match="over TLS"):
            client.submit(a_message())
        proxy.freeze()
        with MailClient.from_config(config, timeout=1) as client, ends_within(1), pytest.raises(Unavailable):
            client.submit(a_message())

    assert len({mail.id for mail in mails(amqp_uri)}) == 302


def test_a_half_open_tls_connection_times_out(amqp_uri: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    ssl_options = {"ca_certs": str(tmp_path / "ca.pem")}
    with Proxy(amqp_uri, tls=server) as proxy, MailClient(proxy.amqp_uri, timeout=1, ssl=ssl_options) as client:
        client.submit(a_message())
        proxy.freeze()
        with ends_within(1), pytest.raises(Timeout):
            client.submit(a_message())
        with ends_within(1), pytest.raises((Timeout, Unavailable)):
            client.submit_many(a_message(body="x" * 100_000) for _ in range(100))
