"""Amazon SES: boto's own habits, brought in line with ours."""

from __future__ import annotations

from typing import Any, Final

from botocore.config import Config

#: seconds to connect, and for each wait for the answer; as Anymail's backends built on requests have it
_TIMEOUT_S: Final = 30.0


def tame(backend: Any, attempt_s: float) -> None:
    """
    Let boto try once, and wait no longer than an attempt of *attempt_s* seconds, unless the OPTIONS say otherwise.

    By itself boto tries three times, before 2026 five, also after an answer that did not come, when the mail may have
    been taken (docs.aws.amazon.com/boto3/latest/guide/retries.html; botocore/configprovider.py of 1.44), with 60
    seconds for each wait. What to repeat is our question: of ``on_unknown``, and for a throttle of all processes
    together. In the OPTIONS: ``client_params: {config: {retries: {total_max_attempts: 3}}}``.
    """
    ours = Config(
        retries={"total_max_attempts": 1},
        connect_timeout=min(_TIMEOUT_S, attempt_s / 2),
        read_timeout=min(_TIMEOUT_S, attempt_s),
    )
    # Anymail always puts one there, with its name in it, which may hold what the OPTIONS say
    backend.client_params["config"] = ours.merge(backend.client_params["config"])
