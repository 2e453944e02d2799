"""The context of a caller's trace: what is carried, and what it costs where nobody traces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mail_service import tracing
from mail_service.envelope import Envelope, seal
from mail_service.settings import Settings, check_imports

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"
TRACE = {"traceparent": PARENT, "tracestate": "vendor=1"}


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (TRACE, TRACE),
        ({"nameko.traceparent": PARENT, "nameko.call_id_stack": ["x"]}, {"traceparent": PARENT}),
        ({"traceparent": PARENT, "tracestate": "\n"}, {"traceparent": PARENT}),
        ({"traceparent": PARENT, "tracestate": 1}, {"traceparent": PARENT}),
        ({"traceparent": PARENT.upper()}, {}),
        ({"traceparent": f"{PARENT}\n"}, {}),
        ({"traceparent": b"x"}, {}),
        ({"tracestate": "vendor=1"}, {}),
        (None, {}),
        ("traceparent", {}),
    ],
)
def test_only_a_context_of_the_right_form_is_carried(headers: Any, found: dict[str, str]) -> None:
    assert tracing.found_in(headers) == found


def test_a_mail_carries_it_in_its_body_and_its_headers() -> None:
    envelope = Envelope(**{**_facts(seal({"to": "a@example.org"}, {}, door="submit")), "trace": TRACE})

    assert Envelope.parse(envelope.body()).trace == TRACE
    assert TRACE.items() <= envelope.headers().items()
    assert b"trace" not in seal({"to": "a@example.org"}, {}, door="submit").body()


def _facts(envelope: Envelope) -> dict[str, Any]:
    return {name: getattr(envelope, name) for name in Envelope.__dataclass_fields__}


def test_nothing_is_loaded_where_nobody_traces() -> None:
    code = """
import sys
from mail_service import tracing
from mail_service.client import MailClient
assert tracing.current() == {}
with tracing.NO_TRACING.attempting({}, mail_id="m", mailer="default", attempt=1) as tell:
    tell("accepted", True)
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[2])


def test_a_missing_package_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mail_service.settings.imports.find_spec", lambda _name: None)

    assert check_imports(Settings(tracing="tests.support.traced.set_up")) == [
        "mail.tracing: needs OpenTelemetry: pip install 'mail-service[otel]'"
    ]
