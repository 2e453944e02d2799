"""
RabbitMQ 4 beside the system's 3.x: Debian trixie's packages unpacked into a folder, and run in a chroot.

Nothing is installed on the machine, and /proc is mounted only in a mount namespace of the node's own, so the folder
(about 250 MB) can be removed like any other.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from mail_service.local.node import Installation

SUITE = "trixie"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PACKAGES = (
    "rabbitmq-server", "libc6", "dash", "bash", "coreutils", "sed", "grep", "hostname", "gawk", "procps", "base-files",
)  # fmt: skip
_MIRROR = re.compile(r"^(?:URIs:|deb)\s+(?:\[[^]]*\]\s+)?(https?://\S+/debian/?)(?:\s|$)", re.MULTILINE)
_INSIDE = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
_DEVICES = {"null": (1, 3), "zero": (1, 5), "urandom": (1, 9)}


class Impossible(Exception):
    """RabbitMQ 4 cannot be unpacked or run here. The text says why."""


def unpacked(folder: Path) -> Installation:
    """Give RabbitMQ 4 from *folder*, unpacked there the first time."""
    if os.geteuid() != 0:
        raise Impossible("RabbitMQ 4 runs in a chroot, which needs root")
    missing = [tool for tool in ("apt-get", "dpkg", "unshare", "chroot") if not shutil.which(tool)]
    if missing or not _KEYRING.exists():
        raise Impossible(f"RabbitMQ 4 comes from Debian's packages; not here: {', '.join(missing) or _KEYRING}")
    folder.mkdir(parents=True, exist_ok=True)
    root = folder.absolute() / "root"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _unpack(root)
    return Installation(
        scripts="/usr/lib/rabbitmq/bin",
        root=root,
        prefix=("unshare", "--mount", "sh", "-c", _INSIDE, str(root)),
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": "/tmp"},
    )


def _unpack(root: Path) -> None:
    with tempfile.TemporaryDirectory(dir=root.parent) as temporary:
        work = Path(temporary)
        try:
            archives = _downloaded(work)
            for archive in archives:
                subprocess.run(["dpkg", "-x", archive, work / "root"], check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            raise Impossible(f"no RabbitMQ 4 from Debian {SUITE}: {error.stderr.decode()[-300:]}") from error
        _furnish(work / "root")
        (work / "root").rename(root)


def _downloaded(work: Path) -> list[Path]:
    """Download the packages and all they need, as if nothing were installed; base-files, with the link /bin, first."""
    for name in ("none", "state/lists/partial", "cache/archives/partial", "root"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    (work / "sources").write_text(f"deb [signed-by={_KEYRING}] {_mirror()} {SUITE} main\n")
    settings = {
        "Dir::Etc::sourcelist": work / "sources",
        "Dir::Etc::sourceparts": work / "none",
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": 1,
    }
    apt = ["apt-get", "-qq", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]
    subprocess.run([*apt, "update"], check=True, capture_output=True)
    download = ["install", "-y", "--no-install-recommends", "--download-only", *_PACKAGES]
    subprocess.run([*apt, *download], check=True, capture_output=True)
    return sorted((work / "cache/archives").glob("*.deb"), key=lambda each: not each.name.startswith("base-files_"))


def _mirror() -> str:
    """Find the Debian mirror that this machine uses."""
    for file in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]:
        if file.is_file():
            found = _MIRROR.search(file.read_text())
            if found:
                return found[1]
    raise Impossible("RabbitMQ 4 comes from Debian's packages, and apt has no Debian mirror here")


def _furnish(root: Path) -> None:
    """Add what the packages' own installation scripts and the kernel would provide."""
    for name in ("proc", "dev", "tmp", "nodes", "etc"):
        (root / name).mkdir(exist_ok=True)
    for name, (major, minor) in _DEVICES.items():
        os.mknod(root / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        (root / "dev" / name).chmod(0o666)
    shutil.copy("/etc/hosts", root / "etc/hosts")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
