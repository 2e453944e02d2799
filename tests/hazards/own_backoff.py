"""Email backends that ask for their retries themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.mail.backends.base import BaseEmailBackend
from nameko_amqp_retry import Backoff


class Twice(Backoff):
    """Two retries, whatever the mail's schedule says."""

    schedule = (50,)
    limit = 2
    random_sigma = 0


class EmailBackend(BaseEmailBackend):
    """Never delivers."""

    def send_messages(self, email_messages: Sequence[Any]) -> int:
        raise Twice


class Mistaken(Backoff):
    """Fails when it is asked how long to wait."""

    def next(self, message: object, backoff_exchange_name: str) -> int:
        raise ZeroDivisionError("a mistake in a schedule")


class Endless(Backoff):
    """Asks for more time than there is."""

    schedule = (10**30,)
    random_sigma = 0


class MistakenBackend(BaseEmailBackend):
    """Asks for a retry in vain."""

    def send_messages(self, email_messages: Sequence[Any]) -> int:
        raise Mistaken


class EndlessBackend(BaseEmailBackend):
    """Asks for a retry after the end of the world."""

    def send_messages(self, email_messages: Sequence[Any]) -> int:
        raise Endless
