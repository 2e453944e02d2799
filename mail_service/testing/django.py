"""Django's mail through our backend, in tests: the test runner has replaced all backends by one that keeps the mail."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.test import utils
from django.utils.module_loading import import_string

from mail_service.django import EmailBackend

_BACKEND = "mail_service.django.EmailBackend"


@contextmanager
def through_our_backend() -> Iterator[None]:
    """Undo it for what the project sends through our backend; a project without it gets it as its default."""
    with _no_deprecations():
        overridden = utils.override_settings(**_changes())
        overridden.enable()
    try:
        yield
    finally:
        with _no_deprecations():
            overridden.disable()


@contextmanager
def _no_deprecations() -> Iterator[None]:
    """Django 6.1 deprecates EMAIL_BACKEND; whether a project still has it is not for us to say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        yield


def _changes() -> dict[str, Any]:
    # what the settings were before the test runner came
    saved = getattr(getattr(utils, "_TestState", None), "saved_data", None)
    mailers = getattr(saved, "mailers", None) or getattr(settings, "MAILERS", None)
    if mailers:
        return {"MAILERS": _mailers(mailers, getattr(settings, "MAILERS", mailers))}
    path = getattr(saved, "email_backend", None) or settings.EMAIL_BACKEND
    return {"EMAIL_BACKEND": path if _is_ours(path) else _BACKEND}


def _mailers(original: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    ours = {alias: entry for alias, entry in original.items() if _is_ours(entry.get("BACKEND"))}
    return {**now, **(ours or {"default": {"BACKEND": _BACKEND}})}


def _is_ours(path: Any) -> bool:
    try:
        return issubclass(import_string(path), EmailBackend)
    except (ImportError, TypeError, AttributeError):
        return False
