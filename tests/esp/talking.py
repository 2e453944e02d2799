"""An SMTP server of a few lines, for what a real one does not do: odd ways to log in, and refusals of STARTTLS."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def talking(replies: Mapping[str, str], *, offers: tuple[str, ...] = ()) -> Iterator[int]:
    """
    Answer each command by its first word in *replies*, or with 250, until the block ends. Gives the port.

    Args:
        offers: Lines for EHLO: ``AUTH LOGIN``.
    """

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 ready")
            for line in self.rfile:
                word = line.split(b" ")[0].strip().decode().upper()
                hello = "\r\n".join(["250-hello", *(f"250-{offer}" for offer in offers), "250 HELP"])
                self._say(replies.get(word, hello if word == "EHLO" else "250 ok"))
                if word == "QUIT":
                    return

        def _say(self, reply: str) -> None:
            self.wfile.write(reply.encode() + b"\r\n")

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
