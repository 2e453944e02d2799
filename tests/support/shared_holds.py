"""What all processes share about mailers, without a database: two keepers with one of these are two processes."""

from __future__ import annotations

from collections.abc import Sequence

from mail_service.ledger import StoreDown
from mail_service.ledger.holdings import Hold


class SharedHolds:
    """As ``Holdings``; every process hears of a change at once."""

    def __init__(self) -> None:
        self.revision = 0
        self.is_away = False
        self._holds: dict[tuple[str, str], Hold] = {}

    def holds(self) -> tuple[int, Sequence[Hold]]:
        self._check()
        return self.revision, list(self._holds.values())

    def put(self, hold: Hold) -> bool:
        self._check()
        self.revision += 1
        is_new = (hold.mailer, hold.sender) not in self._holds
        self._holds[hold.mailer, hold.sender] = hold
        return is_new

    def remove(self, mailer: str, sender: str) -> Hold | None:
        self._check()
        self.revision += 1
        return self._holds.pop((mailer, sender), None)

    def _check(self) -> None:
        if self.is_away:
            raise StoreDown("away")
