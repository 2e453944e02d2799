"""Requests to the service and replies from it, as nameko's RPC protocol has them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mail_service import errors, tracing
from mail_service.client.parcel import Parcel
from mail_service.errors import InvalidMessage, MailServiceError, Timeout

SERVICE = "mail_service"
#: nameko's name for the queue of the service's requests
QUEUE = f"rpc-{SERVICE}"

#: Carried out even when nobody waits any more: a mail is a mail.
_MAIL_METHODS = ("send", "submit", "submit_many")
#: What only looks.
_LOOKS = ("status", "errors", "error", "explain", "health", "pauses", "suppressions")
#: An error of any other class arrives as a plain MailServiceError.
_KNOWN = ("Expired", "DeliveryFailed", "NotFound", "Conflict", "Unavailable", "Timeout")


def request(method: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, timeout_s: float) -> tuple[Parcel, str]:
    """A call of *method*, and its correlation id. Raises InvalidMessage when an argument has no form in JSON."""
    correlation_id = str(uuid.uuid4())
    try:
        body = json.dumps({"args": args, "kwargs": kwargs}, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidMessage("arguments", f"cannot be sent as JSON: {exc}") from None
    properties = {"correlation_id": correlation_id}
    if method not in _MAIL_METHODS:
        # milliseconds in the queue; an operator who gave up waiting does not want to be surprised tomorrow
        properties["expiration"] = str(max(1, int(timeout_s * 1000)))
    return (
        Parcel(
            id=correlation_id,
            body=body,
            routing_key=f"{SERVICE}.{method}",
            # nameko 2.14 loses the method of a request without any header when it is retried
            headers={"nameko.call_id_stack": [f"mail_service_client.{method}.{correlation_id}"], **tracing.current()},
            properties=properties,
        ),
        correlation_id,
    )


def may_be_repeated(method: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether it makes no difference that a request is carried out twice: a mail with an id stays one."""
    return method in _LOOKS or (method in ("send", "submit") and bool(kwargs.get("id")))


def addressed(request: Parcel, *, exchange: str, reply_to: str) -> Parcel:
    """The same with where it goes to and where the reply goes to."""
    return replace(request, exchange=exchange, properties={**request.properties, "reply_to": reply_to})


def no_answer(method: str, kwargs: Mapping[str, Any], timeout_s: float) -> Timeout:
    """What a caller is told whose time is over."""
    text = f"no answer to {method!r} within {timeout_s:g} s"
    mail_ids = [str(kwargs["id"])] if method in _MAIL_METHODS and kwargs.get("id") else []
    if method == "send" and mail_ids:
        return Timeout(f"{text}. The mail goes on, with id {mail_ids[0]}", mail_ids=mail_ids)
    return Timeout(f"{text}: the mail service is not running, or busy", mail_ids=mail_ids)


def result(reply: bytes | str) -> Any:
    """What the service answered. Raises the error that it answered with."""
    try:
        answer = json.loads(reply)
        error = answer["error"]
    except (ValueError, TypeError, LookupError) as exc:
        raise MailServiceError(f"the service's answer is not in nameko's form ({type(exc).__name__})") from None
    if error:
        raise _rebuilt(error)
    return answer.get("result")


def _rebuilt(error: Any) -> MailServiceError:
    """The exception of our own of the same name, or a MailServiceError that has the name in its text."""
    facts = error if isinstance(error, Mapping) else {}
    name, text = str(facts.get("exc_type")), str(facts.get("value"))
    if name == "InvalidMessage":
        field, _, problem = text.partition(": ")
        return InvalidMessage(field, problem)
    if name in _KNOWN:
        known: type[MailServiceError] = getattr(errors, name)
        return known(text)
    return MailServiceError(f"{name}: {text}")
