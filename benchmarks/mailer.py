"""
The SMTP mailer alone, from the message in its canonical form to the receipts, beside what others would write.

    python -m benchmarks.mailer [--mails 3000] [--far-mails 100]

Each row is a process of its own; the mails go to ``benchmarks.sink``, and once more over a link of 50 ms there and
back. Only rows of one run may be compared, the CPU time rather than the rates.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ONE_WAY_S = 0.025
LIMIT_S = 300
MESSAGE_ID = "<6d8749383ee845cd9e7bee61f2087f16@example.org>"
DATE = "Sun, 22 Nov 2026 04:11:59 +0000"

#: contender: what the table says
NEAR = {
    "ready": "smtplib, ready bytes, 1 connection",
    "django": "smtplib, Django message built for each, 1 connection",
    "message-10": "SMTP mailer, a Django message, 10 green workers",
    "canonical-1": "SMTP mailer, canonical form, 1 green worker",
    "canonical-10": "SMTP mailer, canonical form, 10 green workers",
    "careful-10": "the same, content never sent at once",
}
FAR = {
    "ready": "smtplib, ready bytes, 1 connection",
    "careful-1": "SMTP mailer, PIPELINING, 1 green worker",
    "canonical-1": "SMTP mailer, PIPELINING and CHUNKING, 1 green worker",
}


def main() -> int:
    """Run all, or one contender in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mails", type=int, default=3000)
    parser.add_argument("--far-mails", type=int, default=100)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.contender:
        print(json.dumps(_contend(asked.contender, asked.port, asked.mails)))
        return 0
    from benchmarks.sink import Sink  # noqa: PLC0415 - a contender patches the process before it imports anything

    with Sink() as sink:
        _table("near", NEAR, sink.port, asked.mails)
        with far_link(sink.port) as port:
            _table(f"{ONE_WAY_S * 2000:g} ms there and back", FAR, port, asked.far_mails)
    return 0


def _table(title: str, contenders: dict[str, str], port: int, mails: int) -> None:
    print(f"\n{title:<60} {'mails/s':>8} {'ratio':>6} {'CPU s/1,000':>12}")
    first = None
    for name, words in contenders.items():
        rate, cpu = measured(name, port, mails)
        first = first or rate
        print(f"{words:<60} {rate:>8.0f} {rate / first:>6.2f} {cpu:>12.3f}")


def measured(contender: str, port: int, mails: int) -> tuple[float, float]:
    """Mails a second, and CPU seconds for 1,000, of one contender in a process of its own."""
    argv = ["--contender", contender, "--port", str(port), "--mails", str(mails)]
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.mailer", *argv]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=LIMIT_S)
    took = json.loads(done.stdout)
    return mails / took["seconds"], took["cpu_s"] / mails * 1000


@contextlib.contextmanager
def far_link(port: int) -> Iterator[int]:
    """Give the port of the same server, 50 ms away there and back."""
    command = [sys.executable, "-m", "benchmarks.far", str(port), str(ONE_WAY_S)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as link:
        assert link.stdin
        assert link.stdout
        try:
            yield int(link.stdout.readline())
        finally:
            link.terminate()


def _contend(name: str, port: int, mails: int) -> dict[str, float]:
    kind, _, workers = name.partition("-")
    if not workers:
        return _timed(_by_smtplib(kind, port), map, mails)
    import eventlet  # noqa: PLC0415 - patches the process, and the other contenders go without it

    eventlet.monkey_patch()
    return _timed(_by_mailer(kind, port, mails), eventlet.GreenPool(int(workers)).imap, mails)


def _timed(send: Callable[[int], None], each: Callable[..., Any], mails: int) -> dict[str, float]:
    list(each(send, range(min(50, mails))))  # connections, caches
    cpu_s, began = time.process_time(), time.monotonic()
    list(each(send, range(mails)))
    return {"cpu_s": time.process_time() - cpu_s, "seconds": time.monotonic() - began}


def _by_smtplib(kind: str, port: int) -> Callable[[int], None]:
    import smtplib  # noqa: PLC0415

    from benchmarks.messages import a_message, as_bytes  # noqa: PLC0415
    from mail_service.mailers.django_backend import configure_django  # noqa: PLC0415

    configure_django()
    connection = smtplib.SMTP("127.0.0.1", port, local_hostname="localhost")
    ready = as_bytes(a_message(0))

    def send(number: int) -> None:
        content = ready if kind == "ready" else as_bytes(a_message(number))
        connection.sendmail("sender@example.org", [f"m{number}@example.org"], content)

    return send


def _by_mailer(kind: str, port: int, mails: int) -> Callable[[int], None]:
    from benchmarks.messages import a_message  # noqa: PLC0415
    from mail_service import message  # noqa: PLC0415
    from mail_service.mailers import SMTP_BACKEND  # noqa: PLC0415
    from mail_service.mailers.django_backend import configure_django  # noqa: PLC0415
    from mail_service.mailers.smtp import SmtpMailer  # noqa: PLC0415
    from mail_service.settings import MailerSettings  # noqa: PLC0415

    configure_django()
    settings = MailerSettings(
        name="bench",
        backend=SMTP_BACKEND,
        options={"host": "127.0.0.1", "port": port},
        on_unknown="give_up" if kind == "careful" else "retry",
    )
    mailer = SmtpMailer(settings)
    canonicals = [message.validate(a_message(number)) for number in range(mails)]

    def send(number: int) -> None:
        canonical = canonicals[number]
        to = canonical["to"]
        if kind != "message":
            (receipt,) = mailer.send_canonical(canonical, to, message_id=MESSAGE_ID, date=DATE, attempt=1)
        else:
            email = message.load(canonical)
            message.stamp(email, message_id=MESSAGE_ID, date=DATE)
            (receipt,) = mailer.send(email, to, attempt=1)
        assert receipt.diagnosis.kind == "accepted"

    return send


if __name__ == "__main__":
    sys.exit(main())
