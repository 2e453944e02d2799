"""A Django email backend that ends the process."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend


class EmailBackend(BaseEmailBackend):
    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0
