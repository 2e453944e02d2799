"""Messages and mailers for the tests of this folder."""

from __future__ import annotations

import pytest

from mail_service.mailers import rehearsal
from mail_service.mailers.django_backend import configure_django

configure_django()


@pytest.fixture(autouse=True)
def _a_fresh_rehearsal() -> None:
    rehearsal.clear()
