"""Section 1: starting, stopping, crashing, and living through the end of what is around the service."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from amqp.exceptions import AMQPError

from mail_service.local.node import Installation, Node, temporary_node
from mail_service.local.rabbitmq import installed_or_install
from mail_service.local.smtp_server import Rule, SmtpServer

from ..support import rabbitmq4 as debian_rabbitmq4
from ..support.outages import Proxy
from ..support.outside import RemoteError, Rpc
from ..support.postgresql import Postgresql
from ..support.service import ROOT, Service, children, configuration
from ..support.waiting import eventually
from .conftest import House, open_house
from .test_rpc_methods import mail

VAR = ROOT / "var"


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def waiting(house: House, *names: str) -> dict[str, str]:
    """Submit one mail to each, and give its id by address."""
    people = [house.person(name) for name in names]
    return {person: house.rpc.submit(mail(person))["id"] for person in people}


def test_sigterm_finishes_what_is_in_flight_and_exits_0(own_house: House) -> None:
    own_house.smtp.script(Rule(at="end", hang_s=1.5))
    people = [own_house.person() for _ in range(5)]
    for person in people:
        own_house.rpc.submit(mail(person), id=person)
    eventually(lambda: len(own_house.smtp.fired()) == 5)

    assert own_house.service.stop(timeout=30) == 0

    assert [len(own_house.mails_to(person)) for person in people] == [1] * 5
    own_house.service.start()
    assert [own_house.rpc.status(person)["status"] for person in people] == ["sent"] * 5
    own_house.rpc.send(mail(own_house.person()))
    assert [len(own_house.mails_to(person)) for person in people] == [1] * 5


def test_sigterm_of_several_processes_stops_all_and_exits_0(amqp_uri: str, tmp_path: Path) -> None:
    with Service(configuration(amqp_uri, tmp_path), tmp_path, processes=2) as service:
        below = children(service.pid)
        assert len(below) == 2

        assert service.stop(timeout=30) == 0

        assert not any(map(is_running, below))


@pytest.mark.parametrize("answers", [False, True], ids=["before it says anything", "when one process answers"])
def test_sigterm_while_it_starts_stops_it(amqp_uri: str, tmp_path: Path, answers: bool) -> None:
    with starting(configuration(amqp_uri, tmp_path), tmp_path, processes=2) as service:
        eventually(lambda: len(children(service.pid)) == 2)
        below = children(service.pid)
        if answers:
            eventually(lambda: "Connected" in service.log, 30)

        assert service.stop(timeout=30) == 0

        assert not any(map(is_running, below))


@contextmanager
def starting(config: dict[str, Any], folder: Path, *, processes: int | None = None) -> Iterator[Service]:
    """A service that may never get as far as to answer."""
    service = Service(config, folder, processes=processes)
    try:
        service.start(wait=False)
        yield service
    finally:
        service.__exit__()


def test_a_process_that_is_killed_is_started_again_and_the_rest_goes_on(amqp_uri: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        house = open_house(stack, amqp_uri, tmp_path, f"sqlite:///{tmp_path / 'mail.db'}", processes=2)
        before = children(house.service.pid)
        assert len(before) == 2
        person = house.person("once")
        begun = house.rpc.begin("send", mail(person), backoff="seconds")

        os.kill(before[0], signal.SIGKILL)

        assert house.rpc.wait(begun)["status"] == "sent"
        eventually(lambda: len(set(children(house.service.pid)) - {before[0]}) == 2, 20)
        os.kill(before[1], signal.SIGKILL)
        eventually(lambda: len(set(children(house.service.pid)) - set(before)) == 2, 20)
        assert house.rpc.send(mail(house.person()))["status"] == "sent"


def test_the_processes_stop_when_their_parent_is_killed_and_finish_what_is_in_flight(
    amqp_uri: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        rules = [Rule(at="end", to="slow*", hang_s=1.5)]
        house = open_house(stack, amqp_uri, tmp_path, f"sqlite:///{tmp_path / 'mail.db'}", *rules, processes=2)
        below = children(house.service.pid)
        person = house.person("slow")
        house.rpc.submit(mail(person), id=person)
        eventually(house.smtp.fired)

        os.kill(house.service.pid, signal.SIGKILL)
        house.service.process.wait(10)

        eventually(lambda: not any(map(is_running, below)), 30)
        house.service.start()
        assert house.rpc.status(person)["status"] == "sent"
        assert len(house.mails_to(person)) == 1


@pytest.mark.slow
def test_sigterm_while_the_broker_is_away_exits_0_within_30_seconds(tmp_path: Path, rabbitmq: Node) -> None:
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(rabbitmq.amqp_uri))
        service = stack.enter_context(Service(configuration(proxy.amqp_uri, tmp_path), tmp_path, processes=2))
        below = children(service.pid)
        # nobody listens any more
        proxy.__exit__(None, None, None)
        eventually(lambda: service.log.count("cannot be reached") >= 2, 20)

        assert service.stop(timeout=30) == 0

        assert not any(map(is_running, below))


#: how it goes away, by version
ENDS = {"3": "kill9", "4": "stop"}


@pytest.fixture(params=ENDS)
def restartable(request: pytest.FixtureRequest) -> Iterator[tuple[Node, str]]:
    """A node that no other test uses, and how it goes away."""
    programs: Installation | None
    if request.param == "3":
        programs = installed_or_install()
        folder = VAR / "rabbitmq"
    else:
        unpacked = debian_rabbitmq4.unpacked(VAR / "rabbitmq4")
        programs, folder = unpacked, unpacked.root / "nodes"
    assert programs is not None
    with temporary_node(folder, programs) as node:
        yield node, ENDS[request.param]


@pytest.mark.slow
def test_the_service_goes_on_when_the_broker_comes_back(restartable: tuple[Node, str], tmp_path: Path) -> None:
    node, how = restartable
    uri = node.amqp_uri
    with ExitStack() as stack:
        house = open_house(stack, uri, tmp_path, f"sqlite:///{tmp_path / 'mail.db'}", processes=1)
        house.smtp.script(
            Rule(at="rcpt", to="once*", reply="450 4.2.0 Once", times=1), Rule(at="end", to="lazy*", hang_s=2)
        )
        before = children(house.service.pid)
        # some wait in a delay queue, some are in flight
        people = [house.person("once") for _ in range(20)] + [house.person("lazy") for _ in range(5)]
        for person in people:
            assert house.rpc.submit(mail(person), id=person, backoff="seconds")["status"] == "queued"

        getattr(node, how)()
        node.start()

        again = Rpc(uri, timeout_s=40)
        stack.callback(again.close)
        record = again.send(mail(house.person()))
        assert record["status"] == "sent"
        for person in people:
            eventually(lambda person=person: again.status(person)["status"] == "sent", 30)  # type: ignore[misc]
        assert children(house.service.pid) == before
        assert all(len(house.mails_to(person)) >= 1 for person in people)
        assert [person for person in people if person.startswith("once") and len(house.mails_to(person)) != 1] == []


@pytest.mark.slow
def test_the_service_goes_on_when_the_database_comes_back(
    amqp_uri: str, tmp_path: Path, postgresql: Postgresql
) -> None:
    with ExitStack() as stack:
        house = open_house(stack, amqp_uri, tmp_path, postgresql.fresh_database(), processes=1)
        house.smtp.script(
            Rule(at="rcpt", to="once*", reply="450 4.2.0 Once", times=1), Rule(at="end", to="lazy*", hang_s=1.5)
        )
        before = children(house.service.pid)
        people = [house.person("once") for _ in range(10)] + [house.person("lazy") for _ in range(5)]
        for person in people:
            house.rpc.submit(mail(person), id=person, backoff="seconds")
        eventually(lambda: len(house.smtp.fired()) >= 12)

        postgresql.kill9()
        try:
            # accepted all the same: RabbitMQ has confirmed it
            later = [house.person() for _ in range(5)]
            for person in later:
                assert house.rpc.submit(mail(person), id=person)["status"] == "queued"
            with pytest.raises(RemoteError) as raised:
                house.rpc.status(later[0])
            assert "postgres" not in raised.value.value.lower()
            assert house.rpc.health()["database"]["ok"] is False
        finally:
            postgresql.start()

        for person in [*people, *later]:
            house.becomes(person, "sent", timeout_s=40)
        assert children(house.service.pid) == before
        for person in later + [each for each in people if each.startswith("once")]:
            assert len(house.mails_to(person)) == 1
        # in flight when the database went away: recorded later, and mailed once
        assert all(len(house.mails_to(person)) == 1 for person in people)


@pytest.mark.slow
def test_a_service_that_starts_before_its_database_waits_for_it(
    amqp_uri: str, tmp_path: Path, postgresql: Postgresql, smtp_server: SmtpServer
) -> None:
    config = configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port, database=postgresql.fresh_database())
    # its way to stop in good order is to wait for those who are connected
    postgresql.kill9()
    try:
        with starting(config, tmp_path) as service, closing(Rpc(amqp_uri, timeout_s=30)) as rpc:
            answer = eventually(lambda: submitted(rpc, mail("ann@example.org")), 30)
            assert answer
            mail_id = answer["id"]

            postgresql.start()

            eventually(lambda: len(smtp_server.accepted()) == 1, 30)
            eventually(lambda: rpc.status(mail_id)["status"] == "sent")
            assert service.stop() == 0
    finally:
        if not postgresql.is_alive:
            postgresql.start()


def submitted(rpc: Rpc, message: dict[str, Any]) -> dict[str, Any] | None:
    """The answer, or None while there is no service yet."""
    try:
        answer: dict[str, Any] = rpc.submit(message)
    except AMQPError:
        return None
    return answer


WRONG: dict[str, Any] = {
    "default_from": 7,
    "mailers": {"default": {"BACKEND": "no.such.Backend", "OPTIONS": [], "on_unknown": "maybe"}, "b": {"BAKEND": "x"}},
    "schedules": {"quick": {"schedule": [], "limit": -1}, "odd": {"first": 1}},
    "backoff": {"send": "absent", "sbumit": "quick"},
    "hold_prob": 3,
    "attempt_timeout": "long",
}
PLACES = ("default_from", "OPTIONS", "on_unknown", "BAKEND", "schedule", "limit", "backoff.send", "sbumit", "hold_prob")


@pytest.mark.parametrize("processes", [None, 2], ids=["nameko run", "mail-service run"])
def test_all_mistakes_of_a_configuration_are_reported_and_nothing_starts(
    amqp_uri: str, tmp_path: Path, processes: int | None
) -> None:
    config = configuration(amqp_uri, tmp_path)
    config["mail"] = {**WRONG, "database": "mysql://user:s3cret-word@host/x"}
    with starting(config, tmp_path, processes=processes) as service:
        status = service.process.wait(30)

    assert status != 0
    if processes:
        assert status == 1
    for place in (*PLACES, "attempt_timeout", "database", "hold_probe"):
        assert place in service.log, place
    assert "s3cret-word" not in service.log


@pytest.mark.parametrize("processes", [None, 1], ids=["nameko run", "mail-service run"])
def test_a_backend_that_cannot_be_imported_is_reported_at_the_start(
    amqp_uri: str, tmp_path: Path, processes: int | None
) -> None:
    config = configuration(amqp_uri, tmp_path, mailers={"default": {"BACKEND": "no.such.Backend"}})
    with starting(config, tmp_path, processes=processes) as service:
        assert service.process.wait(30) != 0

    assert "mail.mailers.default.BACKEND" in service.log


def run_python(program: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )


CLUSTER = """
import json, sys
from nameko.exceptions import RemoteError
from nameko.standalone.rpc import ClusterRpcProxy
message = json.loads(sys.argv[2])
with ClusterRpcProxy({"AMQP_URI": sys.argv[1]}, timeout=20) as n:
    print(n.mail_service.send(message)["status"])
    begun = n.mail_service.submit.call_async(message, id="nameko-" + message["to"], priority="high")
    print(begun.result()["status"])
    for call in (lambda: n.mail_service.send({"to": []}), lambda: n.mail_service.status("nobody"),
                 lambda: n.mail_service.submit({**message, "subject": "x"}, id="nameko-" + message["to"])):
        try:
            print("answered", call())
        except RemoteError as error:
            print(error.exc_type)
"""


def test_nameko_programs_call_us(any_house: House) -> None:
    person = any_house.person()

    done = run_python(CLUSTER, any_house.amqp_uri, json.dumps(mail(person)))

    expected = ["sent", "queued", "InvalidMessage", "NotFound", "Conflict"]
    assert done.stdout.split() == expected, f"{done}\n{any_house.service.log[-5000:]}"
    eventually(lambda: len(any_house.mails_to(person)) == 2)


def test_nameko_shell(house: House) -> None:
    person = house.person()
    lines = [
        f"record = n.rpc.mail_service.send({mail(person)!r}, tenant='shell')",
        "print('STATUS', record['status'], record['tenant'])",
        f"n.dispatch_event('orders', 'send_email', {mail(person)!r})",
        "print('HEALTH', n.rpc.mail_service.health()['database']['ok'])",
    ]

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "nameko", "shell", "--config", str(house.service.config_path)],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert "STATUS sent shell" in done.stdout, done.stderr
    assert "HEALTH True" in done.stdout
    eventually(lambda: len(house.mails_to(person)) == 2)


def test_the_projects_own_configuration_runs_as_it_is(amqp_uri: str, tmp_path: Path) -> None:
    """With only AMQP_URI from the environment; mail goes to var/outbox below the current folder."""
    config = yaml.safe_load(re.sub(r"!\w+", "", (ROOT / "config.yaml").read_text()))
    assert set(config) >= {"AMQP_URI", "max_workers", "LOGGING"}
    process = subprocess.Popen(
        [sys.executable, "-m", "nameko", "run", "--config", str(ROOT / "config.yaml"), "mail_service.service"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "AMQP_URI": amqp_uri},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        rpc = eventually(lambda: connect(amqp_uri), 30)
        assert rpc
        record = rpc.send({"to": "ann@example.org", "subject": "Hello", "body": "Text"})
        rpc.close()
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=40)
    assert record["status"] == "sent"
    (file,) = (tmp_path / "var/outbox").iterdir()
    assert "Hello" in file.read_text()
    assert process.returncode == 0
    assert "ann@example.org" not in output


def connect(amqp_uri: str) -> Rpc | None:
    """A caller of a service that is there."""
    rpc = Rpc(amqp_uri, timeout_s=2)
    try:
        rpc.errors(limit=1)
    except Exception:  # noqa: BLE001
        rpc.close()
        return None
    rpc._timeout_s = 20
    return rpc
