"""Where a contender finds everything, which travels to its processes in their environment; and what a client does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mail_service.local.process import environment

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One run of one contender."""

    contender: str
    amqp_uri: str
    smtp_port: int
    #: new, and its own
    folder: Path
    processes: int = 2

    def environment(self) -> dict[str, str]:
        """Give what `here` reads, and what Django reads."""
        return environment(
            PYTHONPATH=str(ROOT),
            PYTHONWARNINGS="ignore",
            DJANGO_SETTINGS_MODULE="benchmarks.contenders.project",
            BENCH_CONTENDER=self.contender,
            BENCH_AMQP_URI=self.amqp_uri,
            BENCH_SMTP_PORT=str(self.smtp_port),
            BENCH_FOLDER=str(self.folder),
            BENCH_PROCESSES=str(self.processes),
        )

    @classmethod
    def here(cls) -> Self:
        """Give the place of this process."""
        given = os.environ
        return cls(
            contender=given["BENCH_CONTENDER"],
            amqp_uri=given["BENCH_AMQP_URI"],
            smtp_port=int(given["BENCH_SMTP_PORT"]),
            folder=Path(given["BENCH_FOLDER"]),
            processes=int(given["BENCH_PROCESSES"]),
        )


class OneByOne:
    """A client that can do no better than to hand mail in one after the other."""

    def __init__(self, place: Place) -> None: ...

    def one(self, message: dict[str, Any]) -> None:
        """Return when it is accepted."""
        raise NotImplementedError

    def many(self, messages: list[dict[str, Any]]) -> None:
        """Return when all are accepted."""
        for message in messages:
            self.one(message)
