"""Hooks for a service under test; the subject says what they do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mail_service.hooks import Context, Part, Refused, per_domain, per_recipient


def by_subject(message: dict[str, Any], context: Context) -> Any:
    """``split`` and ``domains`` split, ``refuse`` refuses, ``break`` raises; the rest is stamped."""
    match message.get("subject", "").partition(" ")[0]:
        case "split":
            return per_recipient(message, context)
        case "domains":
            return per_domain(message, context)
        case "alone":
            return _alone(message, context)
        case "refuse":
            raise Refused("not today")
        case "break":
            return 1 / 0
    message.setdefault("headers", {})["X-Door"] = context.door
    return None


def _alone(message: dict[str, Any], context: Context) -> Iterator[Part]:
    for address in context.recipients:
        yield Part({**message, "to": [address], "cc": [], "bcc": []})
