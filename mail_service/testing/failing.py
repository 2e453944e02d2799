"""What a test wants to go wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mail_service.errors import DeliveryFailed, MailServiceError, Timeout

Error = MailServiceError | type[MailServiceError]


@dataclass(slots=True, kw_only=True)
class Failure:
    """One thing that goes wrong, so often."""

    error: Error
    #: None is until recovery
    times: int | None = None
    #: nevertheless the mail gets there
    taken: bool = False
    #: which calls; None is whatever hands mail in
    method: str | None = None
    #: which mails, by what was handed in
    only: Callable[[Any], bool] | None = None

    @property
    def is_of_delivery(self) -> bool:
        """The mail is handed in, and fails later."""
        kind = self.error if isinstance(self.error, type) else type(self.error)
        return issubclass(kind, DeliveryFailed)

    def is_due(self, *, method: str | None, mail: Any) -> bool:
        """Whether it happens now."""
        return (
            self.times != 0
            and self.method == method
            and (self.only is None or (mail is not None and bool(self.only(mail))))
        )

    def happen(self, about: str, *, mail_id: str | None = None) -> MailServiceError:
        """The exception; one less to come."""
        if self.times is not None:
            self.times -= 1
        return self.error if isinstance(self.error, MailServiceError) else _made(self.error, about, mail_id)


def _made(kind: type[MailServiceError], about: str, mail_id: str | None) -> MailServiceError:
    text = f"{about}: told to fail with {kind.__name__}"
    if mail_id and issubclass(kind, Timeout):
        return kind(text, mail_ids=[mail_id])
    return kind(text)
