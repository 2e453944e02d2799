"""For test cases of unittest and Django."""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING, Any

from mail_service.testing.fake import recording
from mail_service.testing.sent import SentMails

if TYPE_CHECKING:
    _Base = unittest.TestCase
else:
    _Base = object


class MailServiceMixin(_Base):
    """``class OrderTest(MailServiceMixin, TestCase)``: in each test ``self.sent_mails`` has what it sends."""

    #: what the test has sent; also makes sending fail
    sent_mails: SentMails

    def setUp(self) -> None:
        """Record from here on, before the test's own ``setUp`` if that calls ``super().setUp()`` first."""
        self.sent_mails = self.enterContext(recording())
        super().setUp()

    def assertMailsSent(self, count: int) -> None:  # noqa: N802  # as unittest names them
        """Fail unless *count* mails were sent."""
        if len(self.sent_mails) != count:
            self.fail(f"{len(self.sent_mails)} mails were sent, not {count}: {self.sent_mails!r}")

    def assertMailSent(self, **attributes: Any) -> Any:  # noqa: N802
        """Return the first mail that has these *attributes* (``subject="Hello", to=[...]``); fail if there is none."""
        for mail in self.sent_mails:
            if all(getattr(mail, name, None) == value for name, value in attributes.items()):
                return mail
        raise self.failureException(f"no mail with {attributes!r} was sent, but {self.sent_mails!r}")
