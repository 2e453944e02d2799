"""
Idempotency keys: by them a provider knows a mail that it has already taken, should an attempt be repeated because its
outcome was unknown.

Two of Anymail's providers know such keys, and Anymail itself sends none. Each has a mixin here for its backend's class.
A new one is a mixin and a row in ``_MIXINS``. Anymail's own classes get theirs by themselves; a class of yours that is
derived from them asks for it::

    class EmailBackend(ResendKey, anymail.backends.resend.EmailBackend): ...
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from mail_service.mailers import Email
from mail_service.mailers.content import bare
from mail_service.mailers.kinship import name_of

#: made for this purpose at random; never to be changed, since keys of mails on their way depend on it
_NAMESPACE: Final = uuid.UUID("0daef2e8-0034-42f8-9120-bff37d93e6e5")

if TYPE_CHECKING:
    _Backend = Any
else:
    _Backend = object


def key_of(email: Email) -> str | None:
    """
    Return a UUID that is the same for each attempt to send this mail to these recipients; None without a Message-ID.

    Not the same when somebody has got the mail meanwhile and is no longer among them: the request differs then, and
    with the same key Resend would refuse it as another one (409, ``invalid_idempotent_request``).
    """
    own = (str(value) for name, value in email.extra_headers.items() if name.lower() == "message-id")
    message_id = getattr(email, "stamped_message_id", None) or next(own, "")
    if not message_id:
        return None
    recipients = sorted(f"{field} {bare(one)}" for field in ("to", "cc", "bcc") for one in getattr(email, field))
    return str(uuid.uuid5(_NAMESPACE, "\n".join([message_id, *recipients])))


class SendsKey(_Backend):
    """Of a backend whose requests carry a key."""

    def build_message_payload(self, message: Email, defaults: Mapping[str, Any]) -> Any:
        """Do as Anymail does, and add the key."""
        payload = super().build_message_payload(message, defaults)
        key = key_of(message)
        if key is not None:
            self.add_key(payload, key)
        return payload

    def add_key(self, payload: Any, key: str) -> None:
        """Put *key* into the request, unless whoever wrote the mail put one there."""
        raise NotImplementedError


class ResendKey(SendsKey):
    """
    Resend: the header ``Idempotency-Key`` of the request, at most 256 characters, remembered for 24 hours, also for
    batches; a repeated request gets the first one's answer (resend.com/docs/dashboard/emails/idempotency-keys, 2026).
    """

    def add_key(self, payload: Any, key: str) -> None:
        """See ``SendsKey``."""
        payload.headers.setdefault("Idempotency-Key", key)


class BrevoKey(SendsKey):
    """
    Brevo: ``idempotencyKey``, a UUID, among the mail's headers in the request's body, remembered for 30 minutes, one
    for all versions of a batch; a repeated request is refused with ``duplicate_parameter``, which says that the mail
    was taken before (developers.brevo.com/docs/heterogenous-versions-batch-emails, 2026).
    """

    def add_key(self, payload: Any, key: str) -> None:
        """See ``SendsKey``."""
        headers = payload.data.setdefault("headers", {})
        if not any(name.lower() == "idempotencykey" for name in headers):
            headers["idempotencyKey"] = key


_MIXINS: Final[Mapping[str, type[SendsKey]]] = {
    "anymail.backends.resend.EmailBackend": ResendKey,
    "anymail.backends.brevo.EmailBackend": BrevoKey,
    "anymail.backends.sendinblue.EmailBackend": BrevoKey,
}


@cache
def with_key(backend: Any) -> Any:
    """
    Return what to make a backend with: a class derived from *backend* where that is exactly Anymail's, else itself.

    Receivers of Anymail's signals that ask for Anymail's class as the sender do not hear of a derived one.
    """
    mixin = _MIXINS.get(name_of(backend)) if isinstance(backend, type) else None
    return type(backend.__name__, (mixin, backend), {"__module__": __name__}) if mixin else backend
