"""Ours, by Django's own mail functions."""

from __future__ import annotations

from typing import Any

from django.core.mail import get_connection

from benchmarks.messages import as_email

from .ours import prepare, workers
from .place import Place

__all__ = ["Client", "prepare", "workers"]


class Client:
    """Sends Django's messages, one by one or all in one call."""

    def __init__(self, _place: Place) -> None: ...

    def one(self, message: dict[str, Any]) -> None:
        as_email(message).send()

    def many(self, messages: list[dict[str, Any]]) -> None:
        get_connection().send_messages(map(as_email, messages))
