"""
Django's system checks: what is wrong with ``MAIL_SERVICE`` and with the ``MAILERS`` entries that use our backend.

They run with ``manage.py check`` once ``mail_service.django`` is in ``INSTALLED_APPS`` or imported. Without that the
same mistakes are raised as ImproperlyConfigured when the first mail is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings as django_settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from mail_service.django import settings
from mail_service.django.backend import EmailBackend
from mail_service.django.clients import make_client

TAG = "mail_service"
#: not in MAIL_SERVICE, but options of every entry
_OF_THE_BACKEND = ("fail_silently",)


def register() -> None:
    """Have Django run the checks."""
    checks.register(check_settings, TAG)
    checks.register(check_deployment, TAG, deploy=True)


def check_settings(**_facts: Any) -> list[checks.CheckMessage]:
    """Report every mistake in the settings, each with its place; nothing is connected."""
    found = settings.mistakes(_common()) or _unusable({}, settings.NAME)
    for place, entry in _entries():
        found += _mistakes_of_entry(entry, place) or (_unusable(_upper(entry), place) if not found else [])
    return [
        checks.Error(text, hint="See mail_service.django.settings for every setting.", id="mail_service.E001")
        for text in found
    ]


def check_deployment(**_facts: Any) -> list[checks.CheckMessage]:
    """With ``check --deploy``: warn where mail goes to the default broker."""
    common = _common()
    entries = [entry for _, entry in _entries()]
    if not isinstance(common, Mapping) or "AMQP_URI" in common or (entries and all(map(_has_uri, entries))):
        return []
    text = f"{settings.NAME} has no AMQP_URI, so mail goes to RabbitMQ on this machine as guest."
    return [checks.Warning(text, hint=f"The default is {settings.DEFAULT_URI}.", id="mail_service.W001")]


def uses_our_backend(entry: object) -> bool:
    """Whether an *entry* of MAILERS has our backend, or one derived from it."""
    if not isinstance(entry, Mapping):
        return False
    try:
        return issubclass(import_string(entry.get("BACKEND")), EmailBackend)
    except (ImportError, TypeError, AttributeError):
        # Django says itself what is wrong
        return False


def _common() -> Any:
    common = getattr(django_settings, settings.NAME, None)
    return {} if common is None else common


def _entries() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Place and options of each entry of MAILERS with our backend."""
    mailers = getattr(django_settings, "MAILERS", None)
    for alias, entry in mailers.items() if isinstance(mailers, Mapping) else ():
        options = entry.get("OPTIONS") or {} if uses_our_backend(entry) else None
        if isinstance(options, Mapping):
            yield f"MAILERS[{alias!r}]['OPTIONS']", options


def _mistakes_of_entry(entry: Mapping[str, Any], place: str) -> list[str]:
    unknown = [name for name in entry if not settings.is_key(str(name).upper()) and name not in _OF_THE_BACKEND]
    return [
        *(settings.unknown(name, place, _OF_THE_BACKEND) for name in unknown),
        *settings.mistakes(_upper(entry), place),
    ]


def _upper(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name.upper(): value for name, value in entry.items() if settings.is_key(str(name).upper())}


def _has_uri(entry: Mapping[str, Any]) -> bool:
    return "AMQP_URI" in _upper(entry)


def _unusable(entry: Mapping[str, Any], place: str) -> list[str]:
    """What the client says: it looks at the URL more closely."""
    try:
        make_client(settings.read(entry, place=place))
    except ImproperlyConfigured as exc:
        return [str(exc).replace(settings.NAME, place, 1)]
    return []
