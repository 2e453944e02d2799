"""
``/metrics``, ``/health`` and ``/ready`` over HTTP, where ``WEB_SERVER_ADDRESS`` is set. Mail never depends on it.

Of several processes on one host one listens, and answers for all; when it ends, another one takes its place. That the
address is taken, or cannot be used, is an ERROR line and nothing more.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import eventlet
from eventlet import wsgi
from eventlet.semaphore import Semaphore
from nameko.exceptions import ConfigurationError
from nameko.web.handlers import HttpRequestHandler
from nameko.web.server import HttpOnlyProtocol, parse_address
from nameko.web.server import WebServer as NamekoWebServer

from mail_service import topology
from mail_service.doors.provider import health_of
from mail_service.logs import describe, discreet
from mail_service.web.census import Queues, Waiting, ask_broker, ask_database
from mail_service.web.folder import FOLDER, web_address
from mail_service.wiring import Runtime, RuntimeProvider, runtime_of

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: seconds for which a client may be silent
CLIENT_TIMEOUT_S: Final = 10
#: seconds between attempts to get the address
AGAIN_S: Final = 2
#: seconds for which an answer is given again: whoever asks a hundred times a second costs no more than who asks once
KEPT_S: Final = 2.0
#: the same for ``/health``, which logs in to each mail server, and for what counts rows of the database
KEPT_LONGER_S: Final = 5.0
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
JSON: Final = "application/json"


class WebServer(NamekoWebServer):
    """nameko's, which nothing that a client or the network does can end, nor the service with it."""

    def __init__(self) -> None:
        super().__init__()
        self._starting: bool = False

    def start(self) -> None:
        if self._starting or web_address(self.container.config) is None:
            return
        self._starting = True
        self._gt = self.container.spawn_managed_thread(self._serve)

    def stop(self) -> None:
        self._is_accepting = False
        if self._gt is not None:
            self._gt.kill()

    @property
    def bind_addr(self) -> Any:
        # nameko looks at it when it builds a service, also where there is no address, or none that can be used: that is
        # for the settings to say
        try:
            return parse_address(web_address(self.container.config) or "0")
        except ConfigurationError:
            return parse_address("0")

    def get_wsgi_server(self, sock: Any, wsgi_app: Any, protocol: Any = HttpOnlyProtocol, debug: bool = False) -> Any:
        return wsgi.Server(
            sock,
            sock.getsockname(),
            wsgi_app,
            protocol=protocol,
            debug=debug,
            keepalive=False,
            log_output=False,
            socket_timeout=CLIENT_TIMEOUT_S,
        )

    def _serve(self) -> None:
        try:
            with _turn(os.environ.get(FOLDER)):
                self._sock = self._bound()
                self._sock.settimeout(None)
                self._serv = self.get_wsgi_server(self._sock, self.get_wsgi_app())
                self._accept()
        except Exception as exc:  # noqa: BLE001 - whatever it is, mail goes on
            _log.error("/metrics, /health and /ready are not available (%s)", describe(exc))
        finally:
            if self._sock is not None:
                self._sock.close()

    def _bound(self) -> Any:
        """A socket that listens; whoever else has the address is waited for."""
        is_said = False
        while True:
            try:
                # several may not listen: one of them would not know the others' numbers
                return eventlet.listen(self.bind_addr, reuse_port=False)
            except OSError as exc:
                if not is_said:
                    _log.error(
                        "WEB_SERVER_ADDRESS %s cannot be used (%s): /metrics, /health and /ready are not available, "
                        "mail is not affected; it is tried again every %d s",
                        web_address(self.container.config),
                        describe(exc),
                        AGAIN_S,
                    )
                is_said = True
            eventlet.sleep(AGAIN_S)

    def _accept(self) -> None:
        while self._is_accepting:
            try:
                sock, address = self._sock.accept()
                sock.settimeout(CLIENT_TIMEOUT_S)
            except OSError:
                # such as no file left to open
                eventlet.sleep(AGAIN_S)
                continue
            self.container.spawn_managed_thread(lambda sock=sock, address=address: self._answer(sock, address))

    def _answer(self, sock: Any, address: Any) -> None:
        try:
            self.process_request(sock, address)
        except Exception as exc:  # noqa: BLE001 - clients may do as they please
            _log.info("a client of the web server was not answered (%s)", type(exc).__name__)


@contextmanager
def _turn(folder: str | None) -> Iterator[None]:
    """Of the processes that share *folder*, wait until this is the one to listen. The lock ends with the process."""
    if folder is None:
        yield
        return
    with Path(folder, "web.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                eventlet.sleep(AGAIN_S)
        yield


class Handler(HttpRequestHandler):
    """A method that answers HTTP requests."""

    server = WebServer()


http = Handler.decorator


class Kept(Generic[T]):
    """An answer that is given again for a while, and asked for once when several ask."""

    def __init__(self, ask: Callable[[], T], for_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._for_s = for_s
        self._clock = clock
        self._asking = Semaphore()
        self._answer: tuple[float, T] | None = None

    def __call__(self) -> T:
        """Return the answer. Raises what asking raises."""
        with self._asking:
            if self._answer is None or self._clock() >= self._answer[0]:
                answer = self._ask()
                self._answer = (self._clock() + self._for_s, answer)
            return self._answer[1]


class Lookout:
    """What the three pages show. One for a process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._queues = Kept(lambda: ask_broker(runtime.publisher), KEPT_S)
        self._waiting = Kept(lambda: ask_database(runtime.database, runtime.keeper.holds), KEPT_LONGER_S)
        self._database = Kept(self._ask_database, KEPT_S)
        self._health = Kept(self._ask_health, KEPT_LONGER_S)

    def metrics(self) -> bytes:
        """Prometheus' text."""
        counted = self._runtime.metrics
        assert counted is not None  # noqa: S101 - there is a web server
        return counted.text(gauges_of(self._queues(), self._waiting()))

    def ready(self) -> dict[str, bool]:
        """Each condition of being ready."""
        queues = self._queues()
        consumers = queues.consumers if queues else {}
        return {
            "broker": queues is not None,
            "database": self._database(),
            **{f"lane {lane}": bool(consumers.get(lane)) for lane in topology.LANES},
            "running": not self._runtime.patient_ledger.stopping,
        }

    def health(self) -> dict[str, dict[str, Any]]:
        """What the RPC method ``health`` answers, without addresses."""
        return self._health()

    def _ask_database(self) -> bool:
        try:
            self._runtime.database.check()
        except Exception:  # noqa: BLE001 - StoreDown, or a database that is not for this version
            return False
        return True

    def _ask_health(self) -> dict[str, dict[str, Any]]:
        parts = health_of(self._runtime)
        return {discreet(name): {**part, "text": discreet(str(part["text"]))} for name, part in parts.items()}


def gauges_of(queues: Queues | None, waiting: Waiting | None) -> Iterable[tuple[str, dict[tuple[str, ...], float]]]:
    """The gauges; those of a part that does not answer are left out, since nobody knows them."""
    yield "up", {("broker",): float(queues is not None), ("database",): float(waiting is not None)}
    if queues is not None:
        yield "queue_messages", {(name,): float(count) for name, count in queues.messages.items()}
        yield "queue_consumers", {(name,): float(count) for name, count in queues.consumers.items()}
    if waiting is not None:
        yield "waiting", {key: float(count) for key, count in waiting.mails.items()}
        yield "held", {(reason,): float(count) for reason, count in waiting.held.items()}
        yield "oldest_waiting_seconds", {(lane,): age for lane, age in waiting.oldest_s.items()}


class LookoutProvider(RuntimeProvider):
    """Injects the Lookout: the same for every request, since it remembers answers."""

    def setup(self) -> None:
        super().setup()
        self._lookout = Lookout(runtime_of(self.container))

    def get_dependency(self, worker_ctx: Any) -> Lookout:  # noqa: ARG002 - nameko's signature
        """The one of this process."""
        return self._lookout


class Web:
    """What load balancers and Prometheus ask. Apart from mail: it has workers of its own."""

    name = "mail_service_web"

    lookout: Lookout = LookoutProvider()

    @http("GET", "/metrics")
    def metrics(self, _request: Any) -> Any:
        """Counters and gauges in Prometheus' text format."""
        return 200, {"Content-Type": TEXT}, self.lookout.metrics().decode()

    @http("GET", "/health")
    def health(self, _request: Any) -> Any:
        """Answer as the RPC method ``health``: 200, or 503 where a part is not fine."""
        parts = self.lookout.health()
        return _as_json(parts, all(part["ok"] for part in parts.values()))

    @http("GET", "/ready")
    def ready(self, _request: Any) -> Any:
        """200 when mail can be delivered: broker and database answer, and each lane has a consumer."""
        parts = self.lookout.ready()
        return _as_json(parts, all(parts.values()))


def _as_json(parts: dict[str, Any], is_fine: bool) -> Any:
    return 200 if is_fine else 503, {"Content-Type": JSON}, json.dumps(parts)
