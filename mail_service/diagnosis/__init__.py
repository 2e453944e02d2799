"""
Answers what a failure means: from an exception or an SMTP reply to a ``Diagnosis``. Others decide what to do.

Nothing here imports Django, Anymail, requests or boto: classes are known by their names, so that a package which is not
installed costs nothing. Each family of failures is a table of rows, and each row says where it comes from: ``smtp``
replies, ``http`` statuses, ``statuses`` of recipients, ``errors`` by class, and one for every ESP in ``providers``.
docs/failures.md has them all, written by ``page``.
"""

from mail_service.diagnosis.context import Context, DeadlineExceeded, Stage
from mail_service.diagnosis.providers import PROVIDERS
from mail_service.diagnosis.reading import stage_of
from mail_service.diagnosis.smtp import diagnose_reply
from mail_service.diagnosis.statuses import diagnose_recipient, diagnose_status
from mail_service.diagnosis.verdict import diagnose

__all__ = [
    "PROVIDERS",
    "Context",
    "DeadlineExceeded",
    "Stage",
    "diagnose",
    "diagnose_recipient",
    "diagnose_reply",
    "diagnose_status",
    "stage_of",
]
