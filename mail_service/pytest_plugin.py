"""
Fixtures for the tests of programs that send mail; pytest finds them where ``mail_service`` is installed.

Loaded in every test run of such a place, so nothing is imported before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mail_service.testing import FakeMailClient, SentMails


@pytest.fixture
def sent_mails() -> Iterator[SentMails]:
    """The mails that this test sends, by MailClient or by Django; none leaves the process. See mail_service.testing."""
    from mail_service.testing import recording  # noqa: PLC0415  # see above

    with recording() as sent:
        yield sent


@pytest.fixture
def fake_mail_client(sent_mails: SentMails) -> FakeMailClient:
    """A client to be passed as an argument; what it is given is in ``sent_mails``."""
    from mail_service.testing import FakeMailClient  # noqa: PLC0415

    return FakeMailClient(sent=sent_mails)
