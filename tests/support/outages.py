"""A TCP proxy in front of a server, to break connections in the ways that networks do."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """
    Forwards a loopback port to a server.

    Args:
        tls: Speak TLS on our side.
    """

    def __init__(self, amqp_uri: str, *, tls: ssl.SSLContext | None = None) -> None:
        self._uri = urlsplit(amqp_uri)
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._frozen = threading.Event()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        #: connections so far
        self.accepted = 0
        #: all that servers said and clients were given
        self.said = bytearray()
        #: those up to this number are half open: nothing is forwarded, and nobody is told
        self._stranded = 0
        #: seconds before each byte of what the server says
        self.drip_s = 0.0
        #: bytes from clients after which everything is cut, once
        self.cut_after: int | None = None
        #: the same, after which every connection is half open
        self.strand_after: int | None = None

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def amqp_uri(self) -> str:
        login = self._uri.netloc.rpartition("@")[0]
        scheme = "amqps" if self._tls else "amqp"
        return urlunsplit(self._uri._replace(scheme=scheme, netloc=f"{login}@127.0.0.1:{self.port}"))

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def freeze(self) -> None:
        """Forward nothing any more: connections stay open, and nothing is answered."""
        self._frozen.set()

    def thaw(self) -> None:
        self._frozen.clear()

    def cut(self) -> None:
        """Close every connection."""
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """End every connection with RST instead of FIN."""
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.cut()

    def strand(self) -> None:
        """Leave every connection half open, as a machine that is gone; new ones are forwarded."""
        self._stranded = self.accepted

    @property
    def is_idle(self) -> bool:
        """Whether no connection is left."""
        with self._lock:
            return not self._sockets

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        self._listener.settimeout(0.1)
        while not self._stopped.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.accepted += 1
            self._spawn(self._serve, client, self.accepted)

    def _serve(self, client: socket.socket, number: int) -> None:
        client.settimeout(10)
        try:
            if self._tls:
                client = self._tls.wrap_socket(client, server_side=True)
            server = socket.create_connection((self._uri.hostname, self._uri.port), timeout=10)
        except OSError:
            client.close()
            return
        with self._lock:
            self._sockets |= {client, server}
        try:
            self._forward(client, server, number)
        except OSError:
            pass
        finally:
            with self._lock:
                self._sockets -= {client, server}
            client.close()
            server.close()

    def _forward(self, client: socket.socket, server: socket.socket, number: int) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while not self._stopped.is_set():
                for key, _ in selector.select(0.05):
                    if self._frozen.wait(0) and not self._wait_for_thaw():
                        return
                    if number <= self._stranded:
                        self._stopped.wait()
                        return
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    data = source.recv(65536)
                    while isinstance(source, ssl.SSLSocket) and source.pending():
                        data += source.recv(65536)
                    if not data:
                        return
                    if source is client:
                        self._count(len(data))
                    self._pass_on(key.data, data, slowly=source is server)
                    if source is server:
                        self.said += data

    def _pass_on(self, to: socket.socket, data: bytes, *, slowly: bool) -> None:
        while slowly and self.drip_s and data:
            self._stopped.wait(self.drip_s)
            to.sendall(data[:1])
            data = data[1:]
        if data:
            to.sendall(data)

    def _wait_for_thaw(self) -> bool:
        while self._frozen.is_set() and not self._stopped.is_set():
            self._stopped.wait(0.02)
        return not self._stopped.is_set()

    def _count(self, size: int) -> None:
        if self.cut_after is not None:
            self.cut_after -= size
            if self.cut_after <= 0:
                self.cut_after = None
                self.cut()
        if self.strand_after is not None:
            self.strand_after -= size
            if self.strand_after <= 0:
                self.strand_after = None
                self.strand()
