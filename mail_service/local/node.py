"""
A private RabbitMQ node: own port, node name, cookie and folder, on the loopback address only.

It runs without epmd, Erlang's shared name server: ``-erl_epmd_port`` tells the node and its ``rabbitmqctl`` the one
port of the Erlang distribution, so no other node on the machine can be seen, met or disturbed (tried on RabbitMQ 3.10
with Erlang 25 and on 4.0 with Erlang 27).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

import amqp
import kombu

from .process import Child, environment, free_port, last_lines

# Debian's /usr/sbin/rabbitmq-server insists on root or the user rabbitmq; the real script does not. Then the official
# container image and generic tarball, then Homebrew.
_SCRIPTS = (
    "/usr/lib/rabbitmq/bin",
    "/opt/rabbitmq/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
)


class NodeFailed(Exception):
    """A private RabbitMQ node did not start, or its rabbitmqctl refused. The text has the end of what it wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """RabbitMQ's programs on this machine."""

    #: the folder of ``rabbitmq-server`` and ``rabbitmqctl``, as the node sees it
    scripts: str
    #: words in front of every command, such as those of a chroot
    prefix: tuple[str, ...] = ()
    #: what the node sees as ``/``; its folders have to lie below
    root: Path = Path("/")
    #: more of its environment
    env: Mapping[str, str] = field(default_factory=dict)

    def command(self, script: str, *args: str) -> list[str]:
        return [*self.prefix, f"{self.scripts}/{script}", *args]

    def seen(self, path: Path) -> str:
        return f"/{path.relative_to(self.root)}"


def installed() -> Installation | None:
    """Find RabbitMQ on this machine."""
    found = shutil.which("rabbitmq-server")
    folders = [*_SCRIPTS, str(Path(found).resolve().parent)] if found else list(_SCRIPTS)
    for folder in folders:
        if os.access(f"{folder}/rabbitmq-server", os.X_OK) and os.access(f"{folder}/rabbitmqctl", os.X_OK):
            return Installation(scripts=folder)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbourhood:
    """
    What nodes have in common that may form a cluster. Each has an address of its own, 127.0.0.1, 127.0.0.2, …: without
    epmd they find each other by the one port of the Erlang distribution.
    """

    distribution_port: int
    cookie: str


class Node:
    """
    One node with a folder of its own. ``start`` after ``stop`` or ``kill9`` has the same data and the same port.

    Args:
        folder: Where its data, log, cookie and configuration go; made when missing.
        name: Node name. Data belong to it, so it must stay the same as long as they are kept.
        settings: More lines for ``rabbitmq.conf``.
        host: Address that it listens on, a loopback one. A neighbour's name ends with it.
        neighbourhood: Of nodes that may form a cluster; None: it meets nobody.
    """

    def __init__(
        self,
        folder: Path,
        installation: Installation,
        *,
        name: str,
        settings: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        neighbourhood: Neighbourhood | None = None,
    ) -> None:
        self.host = host
        self._neighbourhood = neighbourhood
        self.folder = folder.absolute()
        self.name = name
        self.port = 0
        self._installation = installation
        self._settings = settings or {}
        self._distribution_port = neighbourhood.distribution_port if neighbourhood else 0
        self._child: Child | None = None
        self._lock: TextIO | None = None

    @property
    def amqp_uri(self) -> str:
        return self.uri("/")

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def is_alive(self) -> bool:
        return self._child is not None and self._child.is_alive

    def uri(self, vhost: str) -> str:
        """Give the address of a virtual host of this node."""
        path = "/" if vhost == "/" else quote(vhost, safe="")
        return f"amqp://guest:guest@{self.host}:{self.port}/{path}"

    def start(self, *, timeout_s: float = 60) -> None:
        """Start it and return when a client can log in, after 3 to 10 s as a rule."""
        for _ in range(3):
            chosen = (self.port, self._distribution_port)
            self.port, self._distribution_port = self.port or free_port(), self._distribution_port or free_port()
            try:
                return self._start(time.monotonic() + timeout_s)
            except _PortTaken:
                self.port, self._distribution_port = chosen
        raise NodeFailed(f"RabbitMQ found no free port in three attempts. {self.folder} has its log.")

    def stop(self) -> None:
        """Stop it as RabbitMQ wants to be stopped, about 2 s, and give its folder free."""
        if self._child:
            self._child.stop()
        if self._lock:
            self._lock.close()
            self._lock = None

    def kill9(self) -> None:
        """Crash it."""
        self._running.kill9()

    def pause(self) -> None:
        """Let it hang: connections stay open and nothing answers."""
        self._running.pause()

    def resume(self) -> None:
        self._running.resume()

    def ctl(self, *args: str, timeout_s: float = 60) -> str:
        """Give what ``rabbitmqctl`` prints, about half a second."""
        command = self._installation.command("rabbitmqctl", "--quiet", "--node", self.name, *args)
        done = subprocess.run(
            command,
            env=self._environment() | {"RABBITMQ_CTL_ERL_ARGS": "-dist_listen false"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            raise NodeFailed(f"rabbitmqctl {args[0]} failed with {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout.strip()

    def add_vhosts(self, *names: str) -> None:
        """Make virtual hosts that guest may use, by one command: rabbitmqctl's own way takes two for each."""
        add = 'rabbit_vhost:add(V, <<"local">>)'
        allow = 'rabbit_auth_backend_internal:set_permissions(<<"guest">>, V, All, All, All, <<"local">>)'
        self.ctl("eval", f'All = <<".*">>, [begin {add}, {allow} end || V <- [{_binaries(names)}]].')

    def delete_vhosts(self, *names: str) -> None:
        """Delete virtual hosts with everything in them; their connections are closed."""
        self.ctl("eval", f'[rabbit_vhost:delete(V, <<"local">>) || V <- [{_binaries(names)}]].')

    @property
    def _running(self) -> Child:
        if self._child is None:
            raise NodeFailed("This RabbitMQ node was never started.")
        return self._child

    def _start(self, deadline: float) -> None:
        output = self.folder / "output"
        self._lock = self._lock or _take(self.folder, deadline)
        self._write_files()
        # ALLOW_INPUT makes the script become the node, instead of a parent that waits for it: the pid is the node's
        self._child = Child(
            self._installation.command("rabbitmq-server", "-noinput"),
            env=self._environment() | {"RABBITMQ_ALLOW_INPUT": "1"},
            output=output,
            keep_open=[self._lock.fileno()],
        )
        while not answers(self.amqp_uri, timeout_s=1):
            if not self._child.is_alive or time.monotonic() > deadline:
                self.stop()
                if "eaddrinuse" in output.read_text(errors="replace"):
                    raise _PortTaken
                raise NodeFailed(f"RabbitMQ did not start:\n{_complaint(output)}")
            time.sleep(0.1)

    def _write_files(self) -> None:
        lines = {"listeners.tcp.1": f"{self.host}:{self.port}", "log.console": "false", **self._settings}
        self._file("rabbitmq.conf").write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
        self._file("enabled_plugins").write_text("[].\n")
        cookie = self._file("home/.erlang.cookie")
        if not cookie.exists():
            cookie.write_text(self._neighbourhood.cookie if self._neighbourhood else secrets.token_hex(16))
            # Erlang refuses a cookie that others can read
            cookie.chmod(0o400)

    def _file(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _environment(self) -> dict[str, str]:
        folder = self._installation.seen(self.folder)
        return environment(
            HOME=f"{folder}/home",
            LANG="C.UTF-8",
            RABBITMQ_NODENAME=self.name,
            RABBITMQ_CONFIG_FILE=f"{folder}/rabbitmq.conf",
            RABBITMQ_ADVANCED_CONFIG_FILE=f"{folder}/advanced.config",
            # the two below the system's /etc/rabbitmq otherwise
            RABBITMQ_CONF_ENV_FILE=f"{folder}/rabbitmq-env.conf",
            RABBITMQ_ENABLED_PLUGINS_FILE=f"{folder}/enabled_plugins",
            RABBITMQ_MNESIA_BASE=f"{folder}/data",
            RABBITMQ_LOG_BASE=f"{folder}/log",
            RABBITMQ_PID_FILE=f"{folder}/pid",
            # no crash dump: it would land in the current folder, and the output says enough
            ERL_CRASH_DUMP_SECONDS="0",
            # A node whose distribution runs from the start does not look for epmd. AFLAGS, since rabbitmqctl's script
            # overwrites ERL_FLAGS on 4.x.
            ERL_AFLAGS=f"-start_epmd false -erl_epmd_port {self._distribution_port}",
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=f"{self._name_option} {self.name} -kernel inet_dist_use_interface "
            f"{{{self.host.replace('.', ',')}}}",
            RABBITMQ_USE_LONGNAME="true" if self._neighbourhood else "false",
            **self._installation.env,
        )

    @property
    def _name_option(self) -> str:
        # an address counts as a long name
        return "-name" if self._neighbourhood else "-sname"


def _complaint(output: Path) -> str:
    """Give RabbitMQ's first error lines, as the last ones only say that Erlang ended; else whatever it said last."""
    lines = output.read_text(errors="replace").splitlines()
    errors = [line.partition("[error] ")[2] for line in lines if "[error] " in line]
    return "\n".join(errors[:8]) or last_lines(output)


def _binaries(names: Iterable[str]) -> str:
    """Write *names* as Erlang would."""
    return ", ".join(f'<<"{name}">>' for name in names)


class _PortTaken(Exception):
    """Somebody else took a port between our choice and the node's start."""


def answers(uri: str, *, timeout_s: float) -> bool:
    """Tell whether a broker lets us log in at *uri*: a real handshake, not only an open port."""
    # not connect() of the kombu connection, which waits two seconds and tries again
    transport = kombu.Connection(uri, connect_timeout=timeout_s).transport
    try:
        transport.close_connection(transport.establish_connection())
    except (OSError, amqp.AMQPError):
        return False
    return True


@contextlib.contextmanager
def temporary_node(
    folder: Path, installation: Installation, *, settings: Mapping[str, str] | None = None
) -> Iterator[Node]:
    """Run a node with a new folder below *folder*; both are gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    own = Path(tempfile.mkdtemp(prefix="node-", dir=folder))
    name = f"mail_service_{os.getpid()}_{secrets.token_hex(3)}@localhost"
    node = Node(own, installation, name=name, settings=settings)
    try:
        node.start()
        yield node
    finally:
        node.stop()
        shutil.rmtree(own, ignore_errors=True)


@contextlib.contextmanager
def lasting_node(folder: Path, installation: Installation) -> Iterator[Node]:
    """Run a node whose data stay in *folder* for the next time."""
    node = Node(folder, installation, name="mail_service@localhost")
    # the same port as the last time if it is free: its address stands in other terminals
    remembered = folder / "port"
    node.port = _free(remembered)
    try:
        node.start()
        remembered.write_text(str(node.port))
        yield node
    finally:
        node.stop()


def _free(remembered: Path) -> int:
    """The port in the file, or 0 when there is none or it is taken."""
    with contextlib.suppress(OSError, ValueError, OverflowError), socket.socket() as sock:
        port = int(remembered.read_text())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        return port
    return 0


def _take(folder: Path, deadline: float) -> TextIO:
    """
    Lock *folder*, waiting for the one who has it until *deadline*.

    The node inherits the lock, so the folder stays taken as long as either of us lives: when we are killed, until the
    watchdog has stopped the node, and when the node is crashed on purpose, until we stop.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = (folder / "lock").open("w")
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock.close()
                raise NodeFailed(f"Another RabbitMQ node is using {folder}. Stop it first.") from None
            time.sleep(0.1)
        else:
            return lock


def _sweep(folder: Path) -> None:
    """Remove what temporary nodes left whose starter was killed; those in use are locked, and new ones about to be."""
    for left in folder.glob("node-*/lock"):
        with contextlib.suppress(OSError), left.open() as lock:
            if time.time() - left.stat().st_mtime > 60:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left.parent, ignore_errors=True)
