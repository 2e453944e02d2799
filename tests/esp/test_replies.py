"""What an SMTP reply means: our own SMTP mailer, at a real server that answers as the row says."""

from __future__ import annotations

import pytest

from mail_service.diagnosis import diagnose
from mail_service.outcome import Kind

from .replies import CASES, Case
from .sending import Servers, refused


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_reply_means_what_its_table_says(servers: Servers, case: Case) -> None:
    diagnosis = diagnose(*refused(case, servers))

    assert (diagnosis.kind, diagnosis.concerns, diagnosis.wait_s) == (case.kind, case.concerns, case.wait_s)
    assert diagnosis.code.startswith(f"smtp {case.reply[:3]}")
    assert diagnosis.certainly_not_sent is (case.kind != Kind.UNKNOWN)
