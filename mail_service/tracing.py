"""
Traces through OpenTelemetry, from a caller's span over the acceptance of a mail to each of its attempts.

The caller's context is carried as W3C's ``traceparent`` and ``tracestate``: in the headers of requests, events and
mails, and in what is stored of a mail, so that a retry or a replay belongs to the same trace. Carrying it needs no
package. A client looks for a span only if its program has loaded OpenTelemetry; the service makes spans only where
``mail.tracing`` names a function that sets OpenTelemetry up.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final, TypeAlias

#: header name to value; empty without a trace
Carrier: TypeAlias = Mapping[str, str]
#: what became of an attempt: a word for it, and whether it went well
Tell: TypeAlias = Callable[[str, bool], None]

NO_TRACE: Final[Carrier] = MappingProxyType({})

#: W3C Trace Context, 3.2 and 3.3: a state may have 512 characters
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE: Final = re.compile(r"[\x20-\x7e]{1,512}")
#: nameko sends a worker's context data in headers of this prefix
_OF_NAMEKO: Final = "nameko."


def found_in(headers: object) -> Carrier:
    """The context in the headers of a message, its own ones or nameko's; whatever is malformed is none."""
    if not isinstance(headers, Mapping):
        return NO_TRACE
    for prefix in ("", _OF_NAMEKO):
        parent, state = headers.get(f"{prefix}traceparent"), headers.get(f"{prefix}tracestate")
        if isinstance(parent, str) and _TRACEPARENT.fullmatch(parent):
            is_sound = isinstance(state, str) and _TRACESTATE.fullmatch(state)
            return {"traceparent": parent, "tracestate": str(state)} if is_sound else {"traceparent": parent}
    return NO_TRACE


def current() -> Carrier:
    """The context of the caller's current span, if its program traces at all."""
    if "opentelemetry.trace" not in sys.modules:
        return NO_TRACE
    carrier: dict[str, str] = {}
    _propagator().inject(carrier)
    return carrier or NO_TRACE


class Tracing:
    """
    Makes the service's spans.

    Args:
        set_up: What ``mail.tracing`` names, called once; None: no spans are made.
    """

    def __init__(self, set_up: Callable[[], object] | None = None) -> None:
        self._api: Any = None
        if set_up is not None:
            set_up()
            from opentelemetry import trace  # noqa: PLC0415 - an optional package

            self._api = trace
            self._tracer = trace.get_tracer("mail_service")

    @contextmanager
    def accepting(self, parent: Carrier, *, mail_id: str, door: str, priority: str) -> Iterator[Carrier]:
        """Trace the acceptance of a mail; gives the context that its attempts belong to."""
        if self._api is None:
            yield parent
            return
        attributes = {"mail.id": mail_id, "mail.door": door, "mail.priority": priority}
        with self._span("mail accept", self._api.SpanKind.PRODUCER, parent, attributes):
            yield current()

    @contextmanager
    def attempting(self, parent: Carrier, *, mail_id: str, mailer: str, attempt: int) -> Iterator[Tell]:
        """Trace an attempt; gives what is to be told how it went."""
        if self._api is None:
            yield _nothing
            return
        attributes = {"mail.id": mail_id, "mail.mailer": mailer, "mail.attempt": attempt}
        with self._span("mail attempt", self._api.SpanKind.CONSUMER, parent, attributes) as span:

            def tell(outcome: str, is_fine: bool) -> None:
                span.set_attribute("mail.outcome", outcome)
                if not is_fine:
                    span.set_status(self._api.Status(self._api.StatusCode.ERROR))

            yield tell

    @contextmanager
    def _span(self, name: str, kind: Any, parent: Carrier, attributes: Mapping[str, Any]) -> Iterator[Any]:
        with self._tracer.start_as_current_span(
            name,
            context=_propagator().extract(parent),
            kind=kind,
            attributes=attributes,
            # texts of errors may have addresses in them
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except Exception as exc:
                span.set_status(self._api.Status(self._api.StatusCode.ERROR, type(exc).__name__))
                raise


def _propagator() -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator()


def _nothing(_outcome: str, _is_fine: bool) -> None:
    """Nobody traces."""


NO_TRACING: Final = Tracing()
