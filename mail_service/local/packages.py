"""Installs a missing server with the system's package manager, where that is allowed without asking anybody."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Debian starts a server as soon as it is installed. policy-rc.d is its way to forbid that; an existing one is kept.
_INSTALL = """
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap 'rm -f $policy' EXIT
  printf '#!/bin/sh\\nexit 101\\n' > $policy
  chmod 755 $policy
fi
apt-get -qq -o DPkg::Lock::Timeout=120 update
DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -y -o DPkg::Lock::Timeout=120 install --no-install-recommends "$@"
"""


def install(*packages: str) -> bool:
    """
    Install Debian *packages* without starting a system service, and tell whether that worked.

    As root or where ``sudo`` needs no password; anywhere else nothing is tried.
    """
    become_root = _way_to_root()
    if become_root is None or not shutil.which("apt-get"):
        return False
    print(f"Installing {', '.join(packages)} with apt-get; no system service is started.", file=sys.stderr, flush=True)
    # the installation talks to standard error: standard output belongs to the program that needs the server
    command = [*become_root, "/bin/sh", "-c", _INSTALL, "install", *packages]
    # apt has a lock for this, but does not wait for the one around its lists
    with (Path(tempfile.gettempdir()) / f"mail_service-install-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=2, check=False)
    return done.returncode == 0


def _way_to_root() -> list[str] | None:
    if os.geteuid() == 0:
        return []
    if not shutil.which("sudo"):
        return None
    allowed = subprocess.run(["sudo", "-n", "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return ["sudo", "-n"] if allowed.returncode == 0 else None
