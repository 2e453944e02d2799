"""What answers in the running service's place, as far as tests of other programs need it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mail_service.client import asking
from mail_service.envelope import seal
from mail_service.errors import Conflict, DeliveryFailed, Expired, InvalidMessage, MailServiceError, NotFound
from mail_service.message import Options, validate
from mail_service.outcome import Status
from mail_service.testing.sent import HandedIn, SentMails

_ANY_SENDER = "unknown@mail-service.invalid"


def answer(sent: SentMails, answers: Mapping[str, Any], method: str, args: Sequence[Any], kwargs: Any) -> Any:
    """
    The answer to a call, as JSON has it.

    Args:
        answers: By method, of the test's own; a function is called with the arguments.

    Raises what the service would, and NotImplementedError for a method that there is no answer to.
    """
    # raises InvalidMessage for what cannot travel
    asking.request(method, args, kwargs, timeout_s=1)
    if error := sent.failure(method=method, about=f"the call of {method!r}"):
        raise error
    if method in answers:
        own = answers[method]
        found = own(*args, **kwargs) if callable(own) else own
    elif method in _METHODS:
        found = _METHODS[method](sent, *args, **kwargs)
    else:
        raise NotImplementedError(f"nothing answers {method!r}: give it an answer, FakeMailClient.answers[{method!r}]")
    return json.loads(json.dumps(found))


def _hand_in(sent: SentMails, message: Any, options: Mapping[str, Any], door: str) -> HandedIn:
    chosen = Options.parse(options)
    canonical = validate(message, default_from=_ANY_SENDER)
    before = len(sent.conflicts)
    envelope = seal(message, chosen.to_json(), door=door, sender=canonical.get("from_email", ""))
    if error := sent.hand_in(envelope):
        raise error
    one = sent.of_id(envelope.id)
    if one is None or len(sent.conflicts) > before:
        raise Conflict(f"the id {envelope.id!r} belongs to another message")
    return one


def _send(sent: SentMails, message: Any, **options: Any) -> dict[str, Any]:
    one = _hand_in(sent, message, options, "send")
    if one.status == Status.EXPIRED:
        raise Expired(one.error)
    if one.status == Status.FAILED:
        raise DeliveryFailed(one.error)
    return one.record


def _submit(sent: SentMails, message: Any, **options: Any) -> dict[str, Any]:
    one = _hand_in(sent, message, options, "submit")
    return {"id": one.id, "status": str(Status.QUEUED)}


def _submit_many(sent: SentMails, messages: Sequence[Any]) -> list[dict[str, Any]]:
    return [_submit_one(sent, message) for message in messages]


def _submit_one(sent: SentMails, message: Any) -> dict[str, Any]:
    try:
        if not isinstance(message, Mapping):
            raise InvalidMessage("message", "must be an object")
        bare = {name: value for name, value in message.items() if name != "options"}
        return _submit(sent, bare, **(message.get("options") or {}))
    except MailServiceError as exc:
        return {"error": {"type": type(exc).__name__, "message": str(exc), "field": getattr(exc, "field", None)}}


def _status(sent: SentMails, id: str) -> dict[str, Any]:  # noqa: A002  # the contract's name
    return _found(sent, id).record


def _errors(sent: SentMails, status: Any = None, limit: int = 100, **filters: Any) -> list[dict[str, Any]]:
    if filters:
        raise NotImplementedError("only status and limit are understood here: give `errors` an answer of your own")
    wanted = [status] if isinstance(status, str) else status
    failed = [one.record for one in reversed(sent.handed_in) if one.status != Status.SENT]
    return [record for record in failed if wanted is None or record["status"] in wanted][:limit]


def _error(sent: SentMails, id: str) -> dict[str, Any]:  # noqa: A002
    one = _found(sent, id)
    return {"record": one.record, "attempts": [], "message": one.message, "options": one.options}


def _found(sent: SentMails, mail_id: str) -> HandedIn:
    one = sent.of_id(mail_id)
    if one is None:
        raise NotFound(f"no mail has the id {mail_id!r}")
    return one


def _health(_sent: SentMails) -> dict[str, Any]:
    return {part: {"ok": True, "text": "fake"} for part in ("broker", "database", "mailer default")}


_METHODS: dict[str, Callable[..., Any]] = {
    "send": _send,
    "submit": _submit,
    "submit_many": _submit_many,
    "status": _status,
    "errors": _errors,
    "error": _error,
    "health": _health,
}
