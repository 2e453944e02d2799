"""A server of which a test writes every byte itself, for what no sane server does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

#: seconds until a test that waits for a word that never comes is told so
PATIENCE_S = 20


class Line:
    """One connection, seen from the server."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.heard = b""

    def say(self, *lines: str) -> None:
        """Send lines."""
        self.send("".join(f"{line}\r\n" for line in lines).encode())

    def send(self, content: bytes) -> None:
        self._sock.sendall(content)

    def greet(self, *offers: str) -> None:
        """Do all that comes before the first mail."""
        self.say("220 ready")
        self.hear(b"\r\n")
        *most, last = ["scripted.example.org", *offers]
        self.say(*[f"250-{word}" for word in most], f"250 {last}")

    def hear(self, end: bytes) -> bytes:
        """What came, as soon as it ends like this. EOFError when the client has gone before."""
        while not self.heard.endswith(end):
            received = self._sock.recv(65536)
            if not received:
                raise EOFError
            self.heard += received
        heard, self.heard = self.heard, b""
        return heard

    def hear_nothing_more(self) -> bool:
        """Whether the client closes without another word."""
        with contextlib.suppress(ConnectionResetError):
            return not self.heard and self._sock.recv(1) == b""
        return True


@contextlib.contextmanager
def by_hand(*conversations: Callable[[Line], None]) -> Iterator[Script]:
    """Hold each conversation on a connection of its own, in this order."""
    script = Script(conversations)
    try:
        yield script
    finally:
        script.close()
    script.check()


class Script:
    """The server; ``port`` is where it listens, on the loopback address."""

    def __init__(self, conversations: tuple[Callable[[Line], None], ...]) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(PATIENCE_S)
        self.port: int = self._listening.getsockname()[1]
        self._problem: BaseException | None = None
        self._conversations = conversations
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for the end of the last conversation."""
        self._thread.join(PATIENCE_S)
        self._listening.close()

    def check(self) -> None:
        """Raise what went wrong in a conversation."""
        if self._thread.is_alive():
            raise AssertionError("a conversation has not come to its end")
        if self._problem is not None:
            raise self._problem

    def _run(self) -> None:
        try:
            for converse in self._conversations:
                sock, _ = self._listening.accept()
                with sock:
                    sock.settimeout(PATIENCE_S)
                    converse(Line(sock))
        except BaseException as problem:  # noqa: BLE001 - raised in the test
            self._problem = problem
