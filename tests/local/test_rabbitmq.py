from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mail_service.local import rabbitmq as module
from mail_service.local.node import Installation, Node, NodeFailed, answers, installed, lasting_node, temporary_node
from mail_service.local.rabbitmq import NoBroker, broker
from tests.support.amqp import is_on_disk, put, quorum_queue, take_all
from tests.support.waiting import eventually

NOBODY = 65534


def is_running(pid: int) -> bool:
    """A zombie has ended too; only its parent does not know yet."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture
def programs(rabbitmq: Node) -> Installation:
    """The installation of the session's node, so that these tests are skipped where there is none."""
    assert rabbitmq.is_alive
    found = installed()
    assert found is not None
    return found


@contextmanager
def local_rabbitmq(folder: Path, *command: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Run the module as a program, in *folder*."""
    ours = {name: value for name, value in os.environ.items() if name != "AMQP_URI"}
    ours |= {"PYTHONPATH": str(Path(module.__file__).parents[2])} | env
    argv = [sys.executable, "-m", "mail_service.local.rabbitmq", *command]
    with subprocess.Popen(argv, cwd=folder, env=ours, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_a_node_answers_to_guest_and_to_nobody_else(broker: Node) -> None:
    assert answers(broker.amqp_uri, timeout_s=5)
    assert not answers(broker.amqp_uri.replace("guest:guest", "guest:wrong"), timeout_s=5)


def test_rabbitmqctl_speaks_to_its_own_node(broker: Node) -> None:
    assert broker.name in broker.ctl("eval", "node().")
    with pytest.raises(NodeFailed, match="no_such_command"):
        broker.ctl("no_such_command")


def test_messages_of_a_quorum_queue_survive_kill_9(broker: Node, amqp_uri: str) -> None:
    queue, bodies, before = quorum_queue("kept"), [f"mail {number}" for number in range(50)], broker.pid
    put(amqp_uri, queue, *bodies)
    eventually(lambda: is_on_disk(broker, queue))

    broker.kill9()
    assert not is_running(before)
    broker.start()

    assert broker.pid != before
    assert take_all(amqp_uri, queue, 50) == bodies


def test_a_paused_node_keeps_silent_until_it_is_resumed(broker: Node) -> None:
    broker.pause()
    assert not answers(broker.amqp_uri, timeout_s=0.3)

    broker.resume()
    assert answers(broker.amqp_uri, timeout_s=10)


def test_two_nodes_side_by_side_do_not_see_each_other(rabbitmq: Node, programs: Installation, tmp_path: Path) -> None:
    with temporary_node(tmp_path, programs) as second:
        second.add_vhosts("only-here")

        assert "only-here" in second.ctl("list_vhosts")
        assert "only-here" not in rabbitmq.ctl("list_vhosts")
        assert second.port != rabbitmq.port


def test_nothing_is_left_of_a_temporary_node(programs: Installation, tmp_path: Path) -> None:
    with temporary_node(tmp_path, programs) as node:
        pid = node.pid
        # every process of the node is in its group, as it has a session of its own
        assert os.getpgid(pid) == pid

    assert not list(tmp_path.iterdir())
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)


def test_a_folder_in_use_is_refused(rabbitmq: Node, programs: Installation) -> None:
    intruder = Node(rabbitmq.folder, programs, name=rabbitmq.name)

    with pytest.raises(NodeFailed, match="Another RabbitMQ node is using"):
        intruder.start(timeout_s=0.2)
    assert answers(rabbitmq.amqp_uri, timeout_s=5)


def test_what_is_left_of_a_killed_starter_is_swept_and_what_lives_is_not(
    rabbitmq: Node, programs: Installation
) -> None:
    folder = rabbitmq.folder.parent
    left = folder / "node-left"
    for lock in (left / "lock", rabbitmq.folder / "lock"):
        lock.parent.mkdir(exist_ok=True)
        lock.touch()
        os.utime(lock, (0, 0))

    with temporary_node(folder, programs):
        assert not left.exists()
        assert rabbitmq.folder.exists()


def test_a_node_that_cannot_start_says_what_it_wrote(programs: Installation, tmp_path: Path) -> None:
    nonsense = {"no.such.setting": "1"}

    with pytest.raises(NodeFailed, match=r"no\.such\.setting"), temporary_node(tmp_path, programs, settings=nonsense):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="these tests run as an ordinary user anyway")
def test_a_node_runs_as_an_ordinary_user(programs: Installation) -> None:
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, NOBODY, NOBODY)
    fork = multiprocessing.get_context("fork")
    told, tell = fork.Pipe(duplex=False)

    def as_nobody() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        with temporary_node(folder / "rabbitmq", programs) as node:
            tell.send((node.pid, Path(f"/proc/{node.pid}").stat().st_uid, node.ctl("list_vhosts")))

    process = fork.Process(target=as_nobody)
    process.start()
    assert told.poll(90)
    pid, uid, vhosts = told.recv()
    process.join()

    assert (uid, vhosts.split()[-1]) == (NOBODY, "/")
    assert not is_running(pid)
    assert not list((folder / "rabbitmq").iterdir())
    shutil.rmtree(folder)


def test_a_given_amqp_uri_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = "amqp://me:secret@broker.example.org:5673/mail?heartbeat=5"
    monkeypatch.setenv("AMQP_URI", given)

    with broker(tmp_path) as found:
        assert (found.amqp_uri, found.node) == (given, None)
    assert not list(tmp_path.iterdir())


def test_a_broker_on_the_default_address_comes_before_a_private_node(
    rabbitmq: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AMQP_URI", raising=False)
    monkeypatch.setattr(module, "DEFAULT_URI", rabbitmq.amqp_uri)

    with broker(tmp_path) as found:
        assert (found.amqp_uri, found.node) == (rabbitmq.amqp_uri, None)
    assert rabbitmq.is_alive


def test_without_any_way_to_a_broker_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AMQP_URI", raising=False)
    monkeypatch.setattr(module, "answers", lambda *_, **__: False)
    monkeypatch.setattr(module, "installed_or_install", lambda: None)
    monkeypatch.setattr(module, "_compose_folder", lambda: None)

    with pytest.raises(NoBroker, match="apt-get install rabbitmq-server"), broker(tmp_path):
        pass


def test_a_command_gets_the_uri_and_gives_its_exit_status(tmp_path: Path) -> None:
    with local_rabbitmq(tmp_path, "sh", "-c", "echo $AMQP_URI; exit 3", AMQP_URI="amqp://given/") as process:
        said, _ = process.communicate(timeout=30)

    assert (said.strip(), process.returncode) == ("amqp://given/", 3)


def test_sigterm_reaches_the_command(tmp_path: Path) -> None:
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    with local_rabbitmq(tmp_path, "sh", "-c", script, AMQP_URI="amqp://given/") as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.terminate()

        assert process.wait(30) == 7


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)], ids=["SIGTERM", "kill -9"])
def test_the_node_ends_with_whoever_started_it(
    number: signal.Signals, status: int, programs: Installation, tmp_path: Path
) -> None:
    if answers(module.DEFAULT_URI, timeout_s=2):
        pytest.skip("a broker listens on the default address, so no node is started")
    with local_rabbitmq(tmp_path) as process:
        assert process.stdout
        uri = process.stdout.readline().strip()
        pid = int((tmp_path / "var/rabbitmq/run/pid").read_text())
        put(uri, quorum_queue("kept"), "for the next run")
        process.send_signal(number)
        assert process.wait(30) == status

    eventually(lambda: not is_running(pid), timeout_s=20)
    with lasting_node(tmp_path / "var/rabbitmq/run", programs) as again:
        assert take_all(again.amqp_uri, quorum_queue("kept"), 1) == ["for the next run"]
