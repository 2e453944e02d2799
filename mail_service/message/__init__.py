"""
The message: what it may look like (``validate``), what travels beside it (``Options``), and the two conversions from
and to Django's ``EmailMessage`` (``dump``, ``load``).

Importing this needs neither eventlet nor nameko; Django's settings need be configured only for ``dump`` and ``load``.
"""

from mail_service.message.checking import JSON
from mail_service.message.checks import author, recipients, send_at, validate
from mail_service.message.digests import digest
from mail_service.message.dumping import dump
from mail_service.message.loading import load, stamp
from mail_service.message.options import Options

__all__ = ["JSON", "Options", "author", "digest", "dump", "load", "recipients", "send_at", "stamp", "validate"]
