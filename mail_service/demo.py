"""
``make demo``: the main job once, end to end, with a real RabbitMQ, a real SMTP conversation and the service as its
users run it.

Four mails: one into ``var/outbox``, one that the mail server takes at once, one that it takes at the third attempt, and
one that it refuses for as long as the schedule lasts; that one goes to the error log and is replayed when the server is
well again.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml
from kombu import Connection, Consumer, Exchange, Queue

from mail_service import topology
from mail_service.client import MailClient
from mail_service.errors import MailServiceError
from mail_service.local.node import NodeFailed
from mail_service.local.process import Child, environment, last_lines
from mail_service.local.rabbitmq import Broker, NoBroker, broker
from mail_service.local.smtp_server import Rule, SmtpServer

VAR = Path("var")
START_WITHIN_S = 30
END_WITHIN_S = 30

MAILS = {
    "receipt": "the default mailer writes it to var/outbox",
    "welcome": "the mail server takes it at once",
    "newsletter": "the mail server says 451 twice, then takes it",
    "invoice": "the mail server says 450 until the retries are used up",
}
RULES = (
    Rule(at="rcpt", to="newsletter@*", reply="451 4.7.1 greylisted, come back later", times=2),
    Rule(at="rcpt", to="invoice@*", reply="450 4.2.1 mailbox busy"),
)


class DemoFailed(Exception):
    """The demo did not end as it should; the text says how."""


def main() -> int:
    """Run the demo; answers the exit status."""
    began = time.monotonic()
    try:
        with broker(VAR) as found, SmtpServer(*RULES) as mail_server:
            print(f"RabbitMQ      {found.origin}")
            print(f"mail server   on port {mail_server.port} of this machine; it refuses what the script below says")
            with _service(found, mail_server) as log:
                _play(found, mail_server)
                print(f"\nThe service's own log is in {log}.")
    except (DemoFailed, NoBroker, NodeFailed, MailServiceError) as exc:
        print(f"\nThe demo failed: {exc}", file=sys.stderr)
        return 1
    print(f"Done in {time.monotonic() - began:.0f} s. Next: `make run`, and the README's first mail.")
    return 0


def _play(found: Broker, mail_server: SmtpServer) -> None:
    print("\nFour mails are handed in:")
    for name, what in MAILS.items():
        print(f"  {name:<11} {what}")
    print("\nWhat happened, as the service's events tell it:")
    with MailClient(found.amqp_uri) as client, _Timeline(found.amqp_uri) as timeline:
        for name in MAILS:
            mailer = "default" if name == "receipt" else "smtp"
            client.submit(_message(name), id=timeline.mail_id(name), mailer=mailer)
        timeline.watch_until(dict.fromkeys(MAILS, "sent") | {"invoice": "expired"})
        _show_entry(client, timeline.mail_id("invoice"))
        mail_server.script()
        print("\nThe mail server is well again, and the entry is replayed:")
        client.call("replay", timeline.mail_id("invoice"))
        timeline.watch_until({"invoice": "sent"})
    _show_conversations(mail_server)


def _message(name: str) -> dict[str, Any]:
    return {
        "subject": f"Your {name}",
        "body": f"This is your {name}.\n",
        "html": f"<p>This is your <b>{name}</b>.</p>",
        "from_email": "Demo <demo@example.org>",
        "to": [f"{name}@example.org"],
    }


def _show_entry(client: MailClient, mail_id: str) -> None:
    entry = client.call("error", mail_id)
    print(f"\nThe error log has {mail_id}, complete, with its {len(entry['attempts'])} attempts:")
    for number, attempt in enumerate(entry["attempts"], 1):
        print(f"  {number}  {attempt['at'][11:23]}  {attempt['diagnosis']:<10} {attempt['text']}")


def _show_conversations(mail_server: SmtpServer) -> None:
    print("\nWhat the mail server took:")
    for accepted in mail_server.accepted():
        print(f"  {accepted.rcpt_tos[0]:<24} {accepted.email['Subject']:<18} {accepted.email['Message-ID']}")


@dataclass
class _Timeline:
    """Listens to the service's events and prints each."""

    amqp_uri: str
    began: float = field(default_factory=time.monotonic)
    run: str = field(default_factory=lambda: f"{int(time.time())}")
    statuses: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        connection = self._stack.enter_context(Connection(self.amqp_uri))
        events = Exchange("mail_service.events", type="topic", durable=True)
        queue = Queue("", exchange=events, routing_key="#", exclusive=True, auto_delete=True)
        self._stack.enter_context(Consumer(connection, [queue], callbacks=[self._on_event], no_ack=True))
        self._connection = connection
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def mail_id(self, name: str) -> str:
        """Its own id for each run: the same id would be the same mail."""
        return f"demo-{self.run}-{name}"

    def watch_until(self, expected: Mapping[str, str]) -> None:
        """Print events until the mails of *expected* are in these states. Raises DemoFailed."""
        end = time.monotonic() + END_WITHIN_S
        while any(self.statuses.get(name) != status for name, status in expected.items()):
            if time.monotonic() > end:
                raise DemoFailed(f"expected {dict(expected)}, but after {END_WITHIN_S} s it is {self.statuses}")
            with contextlib.suppress(TimeoutError):
                self._connection.drain_events(timeout=0.5)

    def _on_event(self, record: Mapping[str, Any], _message: object) -> None:
        prefix, _, name = record["id"].rpartition("-")
        if prefix != self.mail_id("").rstrip("-"):
            return
        self.statuses[name] = record["status"]
        why = f"  {record['error']}" if record["error"] else ""
        attempt = f"attempt {record['attempts']}"
        print(f"  {time.monotonic() - self.began:5.2f} s  {name:<11} {attempt}  {record['status']:<9}{why}", flush=True)


@contextlib.contextmanager
def _service(found: Broker, mail_server: SmtpServer) -> Iterator[Path]:
    """The service in a process of its own, with queues of its own."""
    _check_unused(found)
    folder = (VAR / "demo").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    config, log = folder / "config.yaml", folder / "service.log"
    config.write_text(yaml.safe_dump(_configuration(found, mail_server, folder), sort_keys=False))
    argv = [sys.executable, "-m", "mail_service.cli", "run", "--config", str(config)]
    process = Child(argv, env=environment(PYTHONPATH=str(Path(__file__).parents[1])), output=log)
    try:
        _await(found, process, log)
        yield log
    finally:
        process.stop(grace_s=35)


def _check_unused(found: Broker) -> None:
    """On a broker that others use too, a second service would take their mail."""
    with Connection(found.amqp_uri, connect_timeout=5) as connection:
        for name in (name for lane in topology.LANES for name in topology.queue_names(lane)):
            with contextlib.suppress(connection.channel_errors), connection.channel() as channel:
                _, waiting, consumers = channel.queue_declare(name, passive=True)
                if waiting or consumers:
                    raise DemoFailed(
                        f"a mail_service is in use on this broker: {name} has {waiting} mails, {consumers} consumers. "
                        "The demo would take its mail. Use another virtual host or no AMQP_URI."
                    )


def _configuration(found: Broker, mail_server: SmtpServer, folder: Path) -> dict[str, Any]:
    smtp = {"host": "127.0.0.1", "port": mail_server.port, "timeout": 10}
    return {
        "AMQP_URI": found.amqp_uri,
        "mail": {
            "default_from": "Demo <demo@example.org>",
            "database": f"sqlite:///{folder / 'mail_service.db'}",
            "mailers": {
                "default": {
                    "BACKEND": "django.core.mail.backends.filebased.EmailBackend",
                    "OPTIONS": {"file_path": str((VAR / "outbox").resolve())},
                },
                "smtp": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": smtp},
            },
            "schedules": {"impatient": {"schedule": [300, 600, 1200], "limit": 3}},
            "backoff": {"submit": "impatient"},
        },
    }


def _await(found: Broker, process: Child, log: Path) -> None:
    end = time.monotonic() + START_WITHIN_S
    with MailClient(found.amqp_uri, timeout=2) as client:
        while time.monotonic() < end and process.is_alive:
            with contextlib.suppress(MailServiceError):
                health = client.call("health")
                parts = ", ".join(f"{part} {'ok' if state['ok'] else state['text']}" for part, state in health.items())
                print(f"mail_service  pid {process.pid}: {parts}")
                return
            time.sleep(0.1)
    raise DemoFailed(f"the service does not answer. Its log ends with:\n{last_lines(log)}")


if __name__ == "__main__":
    sys.exit(main())
