"""A Django email backend with a mistake whose text no database wants to take."""

from __future__ import annotations

from collections.abc import Sequence

from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend


class EmailBackend(BaseEmailBackend):
    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        raise ValueError("an odd text: \x00 \ud800 \x1b[31m " + "long " * 5000)
