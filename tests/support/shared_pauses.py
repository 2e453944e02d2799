"""What all processes share about pauses, without a database: two ``Pauses`` with one of these are two processes."""

from __future__ import annotations

from collections.abc import Sequence

from mail_service.holds import Pauses
from mail_service.ledger import StoreDown
from mail_service.ledger.pauses import Pause


class SharedPauses:
    """As ``PauseList``; every process hears of a change at once."""

    def __init__(self) -> None:
        self.revision = 0
        self.is_away = False
        self._pauses: list[Pause] = []

    def put(self, pause: Pause) -> None:
        self._pauses.append(pause)
        self.revision += 1

    def clear(self) -> None:
        self._pauses.clear()
        self.revision += 1

    def all(self) -> tuple[int, Sequence[Pause]]:
        if self.is_away:
            raise StoreDown("away")
        return self.revision, list(self._pauses)

    def end_overdue(self) -> list[Pause]:
        if self.is_away:
            raise StoreDown("away")
        ended = [pause for pause in self._pauses if pause.is_over]
        self._pauses = [pause for pause in self._pauses if not pause.is_over]
        self.revision += bool(ended)
        return ended


def no_pauses() -> Pauses:
    """Nothing is paused, and nobody will."""
    return Pauses(SharedPauses(), hold_probe_s=30, release=lambda _pause, _rate: None)
