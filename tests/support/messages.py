"""Messages for tests: builders, and what hypothesis makes messages of."""

from __future__ import annotations

import os
from base64 import b64encode
from typing import Any

from django.conf import settings


def configure_django() -> None:
    """Give Django settings, once, for tests that build real messages."""
    if not settings.configured:
        settings.configure(TIME_ZONE="America/Chicago", USE_TZ=True, USE_I18N=False)


def a_message(**changes: Any) -> dict[str, Any]:
    """Return a small valid message; a change to None leaves the field out."""
    message = {
        "subject": "Hello",
        "body": "Text",
        "from_email": "shop@example.org",
        "to": ["ann@example.org"],
    } | changes
    return {name: value for name, value in message.items() if value is not None}


def examples(count: int) -> int:
    """Return how many examples hypothesis shall try: *count*, or the multiple that the variable EXAMPLES says."""
    return count * int(os.environ.get("EXAMPLES", "1"))


def in_base64(content: bytes) -> str:
    return b64encode(content).decode("ascii")
