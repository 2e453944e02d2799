"""A client that keeps what it is given, and the same for all clients of a process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from mail_service.client import MailClient
from mail_service.client.parcel import Parcel
from mail_service.errors import MailServiceError
from mail_service.testing.answering import answer
from mail_service.testing.sent import SentMails


class FakeMailClient(MailClient):
    """
    Looks at mails and answers as ``MailClient`` does, being one, but connects to nothing.

    Args:
        amqp_uri: Is not used.
        sent: To be shared with others; else one of its own.
        arguments: As for MailClient.
    """

    def __init__(self, amqp_uri: str = "amqp://nowhere.invalid//", *, sent: SentMails | None = None, **arguments: Any):
        super().__init__(amqp_uri, **arguments)
        #: the mails, and what goes wrong: ``client.sent.fail(Unavailable)``
        self.sent = SentMails() if sent is None else sent
        #: answers to other methods of the service, by name: values, or functions of the arguments
        self.answers: dict[str, Any] = {}
        #: each call of a method of the service: its name, its arguments
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        #: how often ``close`` was called
        self.closed = 0

    def call(self, method: str, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:  # noqa: ARG002
        self.calls.append((method, args, kwargs))
        return answer(self.sent, self.answers, method, args, kwargs)

    def is_running(self) -> bool:
        return True

    def close(self) -> None:
        self.closed += 1

    def _waiting(self) -> int:
        return 0

    def _hand_over(self, mails: Sequence[Parcel]) -> MailServiceError | None:
        return self.sent.take(mails)


@contextmanager
def recording(sent: SentMails | None = None, *, answers: dict[str, Any] | None = None) -> Iterator[SentMails]:
    """
    Have every MailClient of this process hand its mails to *sent*, wherever it was made; and Django's mail, too.

    Where Django's settings are in use, mail goes through our backend even if Django's test runner has put another one
    in its place: with ``MAIL_SERVICE`` as it is, ``WAIT`` included.

    Args:
        answers: As ``FakeMailClient.answers``.
    """
    sent = SentMails() if sent is None else sent
    with ExitStack() as stack:
        for name, stand_in in _stand_ins(sent, answers or {}).items():
            stack.enter_context(mock.patch.object(MailClient, name, stand_in))
        if _has_django_settings():
            from mail_service.testing.django import through_our_backend  # noqa: PLC0415  # only where Django is used

            stack.enter_context(through_our_backend())
        yield sent


def _stand_ins(sent: SentMails, answers: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    def hand_over(_client: MailClient, mails: Sequence[Parcel]) -> MailServiceError | None:
        return sent.take(mails)

    def call(_client: MailClient, method: str, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:  # noqa: ARG001
        return answer(sent, answers, method, args, kwargs)

    return {
        "_hand_over": hand_over,
        "call": call,
        "is_running": lambda _client: True,
        "_waiting": lambda _client: 0,
    }


def _has_django_settings() -> bool:
    from django.conf import ENVIRONMENT_VARIABLE, settings  # noqa: PLC0415

    return bool(settings.configured or os.environ.get(ENVIRONMENT_VARIABLE))
