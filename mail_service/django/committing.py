"""Wait for transactions: what is to be done happens when all of them are committed, and never if one rolls back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from django.db import transaction


class AfterCommit:
    """
    ``AfterCommit(["default"], send)`` calls *send* when the connection's transaction commits; at once if there is none.

    With several aliases it waits for each that is in a transaction now. What *send* raises comes out of the outermost
    ``atomic`` block after the commit, and, as with any ``on_commit``, Django then calls no later one.
    """

    def __init__(self, aliases: Sequence[str], then: Callable[[], int]) -> None:
        self._uncommitted = set(aliases)
        self._then = then
        #: what *then* returned, or None as long as it was not called
        self.result: int | None = None
        for alias in dict.fromkeys(aliases):
            # a rolled back savepoint or transaction forgets it
            transaction.on_commit(partial(self._committed, alias), using=alias)

    def _committed(self, alias: str) -> None:
        self._uncommitted.discard(alias)
        if not self._uncommitted:
            self.result = self._then()
