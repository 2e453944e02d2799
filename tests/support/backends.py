"""Email backends that behave as badly as a backend can. The service under test loads them by their dotted paths."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend as DjangosSmtp
from nameko_amqp_retry import Backoff


class Fussy(BaseEmailBackend):
    """Does what the local part of the first recipient says, before the first dash."""

    def __init__(self, fail_silently: bool = False, **kwargs: Any) -> None:
        super().__init__(fail_silently=fail_silently)

    def send_messages(self, email_messages: Sequence[Any]) -> Any:
        (message,) = email_messages
        word = message.recipients()[0].partition("-")[0]
        return getattr(self, word)()

    def zero(self) -> int:
        return 0

    def none(self) -> None:
        return None

    def one(self) -> int:
        return 1

    def true(self) -> bool:
        return True

    def nonsense(self) -> object:
        return object()

    def minus(self) -> int:
        return -1

    def type(self) -> None:
        raise TypeError("a strange mistake")

    def unicode(self) -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no")

    def exit(self) -> None:
        sys.exit(3)

    def interrupt(self) -> None:
        raise KeyboardInterrupt

    def recursion(self) -> None:
        self.recursion()

    def memory(self) -> None:
        raise MemoryError

    def unprintable(self) -> None:
        raise Unprintable

    def base(self) -> None:
        raise OddBase("not an Exception at all")

    def nul(self) -> None:
        raise ValueError("a NUL \x00 and half a pair \udc80 in the text")

    def huge(self) -> None:
        raise ValueError("x" * 5_000_000)

    def backoff(self) -> None:
        raise Impatient("a retry, please")

    def never(self) -> None:
        while True:
            time.sleep(1)

    def swallow(self) -> None:
        """Swallows what it is stopped with."""
        while True:
            try:
                time.sleep(1)
            except BaseException:  # noqa: BLE001
                continue


class Impatient(Backoff):
    """Two retries, soon."""

    schedule = (100,)
    limit = 2


class Unprintable(Exception):
    """Cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class OddBase(BaseException):
    """No Exception."""


class OwnSmtp(DjangosSmtp):
    """As programs have one that changes a detail."""
