"""How the service publishes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_confirm_is_lost_while_many_greenlets_publish(amqp_uri: str) -> None:
    """A second reader of the socket, as py-amqp's ``basic_publish`` is one, would swallow confirms."""
    program = [sys.executable, "-W", "ignore", "-m", "tests.broker.publishing", amqp_uri, "20", "200"]

    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout, done.stderr) == ("4000\n", "")
