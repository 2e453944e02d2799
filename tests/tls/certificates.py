"""A small authority, and what may be wrong with a certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

#: what OpenSSL says of each; the other way round, what must stand where somebody looks
WRONG: Mapping[str, str] = {
    "expired": "certificate has expired",
    "of another name": "match|not valid for",
    "of an unknown authority": "unable to get local issuer|self-signed certificate|self signed certificate",
}


@dataclass(slots=True)
class Certificates:
    """Writes the certificate of a server into ``server.pem`` and ``server.key`` in *folder*, beside ``ca.pem``."""

    folder: Path
    authority: trustme.CA = field(default_factory=trustme.CA)
    stranger: trustme.CA = field(default_factory=trustme.CA)
    #: what ``use`` was told last
    kind: str = ""

    def __post_init__(self) -> None:
        self.authority.cert_pem.write_to_path(str(self.ca))
        self.use("right")

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def certificate(self) -> Path:
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        return self.folder / "server.key"

    @property
    def both(self) -> Path:
        """Key and certificate in one file."""
        return self.folder / "both.pem"

    def use(self, kind: str) -> None:
        """Make the server's certificate ``right``, or wrong in one of the ways of ``WRONG``."""
        self.kind = kind
        yesterday = datetime.now(UTC) - timedelta(days=1)
        issued = {
            "right": lambda: self.authority.issue_cert("localhost", "127.0.0.1"),
            "expired": lambda: self.authority.issue_cert("localhost", "127.0.0.1", not_after=yesterday),
            "of another name": lambda: self.authority.issue_cert("elsewhere.example"),
            "of an unknown authority": lambda: self.stranger.issue_cert("localhost", "127.0.0.1"),
        }[kind]()
        issued.cert_chain_pems[0].write_to_path(str(self.certificate))
        issued.private_key_pem.write_to_path(str(self.key))
        issued.private_key_and_cert_chain_pem.write_to_path(str(self.both))
