"""Who attempts a mail: names this process so that any other can tell whether it still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from mail_service import clock


def _started(pid: int) -> str:
    """
    When the process started, in clock ticks since boot (proc(5), field 22); empty where there is no /proc or process.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def this_process() -> str:
    """``host/pid/start``: the start tells a process from a later one with the same pid."""
    return f"{socket.gethostname()[:100]}/{os.getpid()}/{_started(os.getpid())}"


def may_be_alive(owner: str, owned_until: str | None) -> bool:
    """
    Whether *owner* may still be at work.

    A process of this host is asked by its pid. One of another host cannot be asked: it is given up when *owned_until*
    has passed, which is the attempt's own deadline and a margin.
    """
    host, _, rest = owner.partition("/")
    pid, _, started = rest.partition("/")
    if host == socket.gethostname()[:100] and pid.isdigit():
        return _exists(int(pid)) and _started(int(pid)) == started
    return owned_until is not None and owned_until > clock.now_iso()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
