"""A web server that forks: gunicorn, with an application that is loaded, and has mailed, before the fork."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from mail_service.local.process import unwatch, watch

from .test_client import mails

pytest.importorskip("gunicorn")

ROOT = Path(__file__).parents[2]
WORKERS, THREADS = 4, 4
REQUESTS = 240
#: requests after which a worker ends and another one is forked: the loaded application has been used by then
MOST_REQUESTS = 25
#: of the mails that the application sends when it is loaded
PRELOADED = {"before-1", "before-2"}


@contextmanager
def gunicorn(amqp_uri: str, log: Path) -> Iterator[str]:
    """The server's address. It is stopped in the end, and has to end well."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listening, log.open("wb") as output:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "--preload", "--worker-class", "gthread"),
                *("--workers", str(WORKERS), "--threads", str(THREADS), "--bind", f"fd://{listening.fileno()}"),
                *("--max-requests", str(MOST_REQUESTS), "--no-control-socket"),
                # a worker that has only just been forked may miss the signal to end, and is killed after this
                *("--graceful-timeout", "5"),
                "tests.support.web_app:application",
            ],
            cwd=ROOT,
            env={**os.environ, "AMQP_URI": amqp_uri, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH')}"},
            pass_fds=[listening.fileno()],
            stdout=output,
            stderr=output,
        )
        watchdog = watch(server.pid)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.terminate()
            status = server.wait(30)
            unwatch(watchdog)
        assert status == 0, log.read_text()


def asked(url: str) -> dict[str, Any]:
    with urlopen(url, timeout=40) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def test_workers_of_a_preloaded_application_lose_nothing_and_double_nothing(amqp_uri: str, tmp_path: Path) -> None:
    log = tmp_path / "gunicorn.log"
    with gunicorn(amqp_uri, log) as url, ThreadPoolExecutor(WORKERS * THREADS) as threads:
        answers = list(threads.map(asked, [url] * REQUESTS))

    assert len({answer["pid"] for answer in answers}) > WORKERS, "no worker was replaced"
    sent = [mail_id for answer in answers for mail_id in answer["ids"]]
    assert Counter(mail.id for mail in mails(amqp_uri)) == Counter([*PRELOADED, *sent])
