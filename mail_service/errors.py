"""
The exceptions that cross our border.

    MailServiceError            everything a caller may catch
    ├── InvalidMessage          the mail or an option cannot be used; nothing was queued
    ├── DeliveryFailed          nobody got the mail, for good; it stands in the error log
    │   └── Expired             … because its retries or its time were used up
    ├── NotFound                no mail has this id
    ├── Conflict                the id belongs to another mail, or the mail is already final
    ├── Unavailable             the broker or the database cannot be reached now; try again
    └── Timeout                 no answer in time; a mail that was handed over goes on

    ConfigurationError          config.yaml cannot be used; stands outside, since no caller can handle it

Over RPC they arrive as nameko's ``RemoteError`` with the class's name as ``exc_type``.
"""

from __future__ import annotations

from collections.abc import Sequence


class MailServiceError(Exception):
    """Base of what a caller may catch."""


class InvalidMessage(MailServiceError, ValueError):
    """
    A mail or one of its options cannot be used. *field* names the place, such as ``attachments[1].content``.

    A ValueError too, as what Django raises for an address or a header that it refuses.
    """

    def __init__(self, field: str, problem: str = "") -> None:
        super().__init__(f"{field}: {problem}" if problem else field)
        self.field = field
        self.problem = problem


class DeliveryFailed(MailServiceError):
    """Nobody received the mail and it is not tried again; the error log has it, ready to be replayed."""


class Expired(DeliveryFailed):
    """The retries were used up, or ``expires_at`` or the schedule's ``max_age`` passed."""


class NotFound(MailServiceError):
    """The service knows no mail with this id."""


class Conflict(MailServiceError):
    """The id already belongs to another message, or the mail's state does not allow the request."""


class Unavailable(MailServiceError, ConnectionError):
    """The broker, the service or its database cannot be reached now. Nothing is known to be handed over."""


class Timeout(MailServiceError, TimeoutError):
    """
    No answer in time. A mail that was already handed over goes on.

    *mail_ids* are those of the mails whose outcome is unknown: ask for their ``status`` later, or hand them in again
    with the same id.
    """

    def __init__(self, text: str = "", *, mail_ids: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.mail_ids = tuple(mail_ids)

    @property
    def mail_id(self) -> str | None:
        """The id where it is about one mail, else None."""
        return self.mail_ids[0] if len(self.mail_ids) == 1 else None


class ConfigurationError(Exception):
    """config.yaml cannot be used as it is. The text lists every mistake with its path."""
