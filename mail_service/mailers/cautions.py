"""What may be in the configuration and should not be without a reason: said once, at start, as warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from mail_service.mailers import SMTP_BACKEND
from mail_service.mailers.idempotency import SendsKey, with_key
from mail_service.mailers.kinship import descends_from
from mail_service.settings import MailerSettings, Settings

#: plays a mail server
REHEARSAL: Final = "mail_service.mailers.rehearsal.EmailBackend"
_ON_REQUESTS: Final = "anymail.backends.base_requests.AnymailRequestsBackend"
_WITHOUT_REQUESTS: Final = (
    "anymail.backends.base.AnymailBaseBackend",
    "django.core.mail.backends.base.BaseEmailBackend",
)
#: statuses after which a provider has certainly not taken the mail (RFC 9110, 15.5.9 and 15.6.4; RFC 6585, 4)
_NOT_TAKEN: Final = frozenset({408, 425, 429, 503})
#: all of Anymail's backends ask their providers with it
_METHOD: Final = "POST"


def cautions(settings: Settings) -> list[str]:
    """
    Return a sentence for each ``http_retry`` that may send a mail twice, or that does nothing, and one for reports that
    nobody can send. The backends must be importable: see ``check_imports``.
    """
    everybodys = {f"mail.mailers.{name}": mailer for name, mailer in settings.mailers.items()}
    of_tenants = {
        f"mail.tenants.{tenant}.mailers.{name}": mailer
        for tenant, mailers in settings.tenants.items()
        for name, mailer in mailers.items()
    }
    of_mailers = [
        f"{path}.http_retry: {caution}"
        for path, mailer in (everybodys | of_tenants).items()
        for caution in _of_mailer(mailer)
    ]
    return [*of_mailers, *_of_reports(settings)]


def _of_reports(settings: Settings) -> Iterator[str]:
    """A report's empty envelope sender can be said in SMTP alone: no API has a word for it."""
    name = settings.bounce.mailer or "default"
    if not settings.bounce.to_sender or name not in settings.mailers:
        return
    try:
        backend = import_string(settings.mailers[name].backend)
    except (ImportError, ImproperlyConfigured):
        return
    if not descends_from(backend, SMTP_BACKEND, REHEARSAL):
        yield f"mail.bounce: mailer {name} does not speak SMTP and refuses reports; name another as mail.bounce.mailer"


def _of_mailer(mailer: MailerSettings) -> Iterator[str]:
    if not mailer.http_retry:
        return
    try:
        backend = with_key(import_string(mailer.backend))
    except (ImportError, ImproperlyConfigured):
        return
    if descends_from(backend, *_WITHOUT_REQUESTS) and not descends_from(backend, _ON_REQUESTS):
        yield "has no effect, since this backend is not built on requests"
    elif not (isinstance(backend, type) and issubclass(backend, SendsKey)):
        yield from _of_words(mailer.http_retry)


def _of_words(words: Mapping[str, Any]) -> Iterator[str]:
    repeats = sorted(word for word in ("read", "status") if _is_named(words, word))
    if _allows_post(words):
        risky = [word for word in repeats if word == "read" or not _NOT_TAKEN.issuperset(words["status_forcelist"])]
    else:
        risky = []
        if repeats:
            names = " and ".join(repeats)
            yield f"{names} has no effect, since allowed_methods leaves out {_METHOD}, with which all mail is sent"
    risky += ["other"] if words.get("other") else []
    if risky:
        names = " and ".join(risky)
        yield f"{names} may send a mail twice: the provider may have taken it before, and knows no idempotency key"


def _is_named(words: Mapping[str, Any], word: str) -> bool:
    if word == "status":
        return bool(words.get("status_forcelist")) and words.get("status") != 0
    return bool(words.get(word))


def _allows_post(words: Mapping[str, Any]) -> bool:
    """As urllib3 reads ``allowed_methods``: no method is all of them; without the word, those without side effects."""
    if "allowed_methods" not in words:
        return False
    allowed = words["allowed_methods"]
    return not allowed or _METHOD in (method.upper() for method in allowed)
