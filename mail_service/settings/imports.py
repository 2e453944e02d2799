"""Tries the dotted paths in the settings. Apart from loading, since an import may need Django configured."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

from mail_service.settings.mailers import is_ours
from mail_service.settings.model import Settings


def check_imports(settings: Settings) -> list[str]:
    """
    What is wrong with the mailers' backends and the classifier, one sentence each; empty when all can be imported.

    Django has to be configured first, since a backend's module may ask for its settings.
    """
    mistakes = [
        f"mail.mailers.{mailer.name}.BACKEND: {problem}"
        for mailer in settings.mailers.values()
        if (problem := _backend_problem(mailer.backend)) is not None
    ]
    if (problem := _classifier_problem(settings.classifier)) is not None:
        mistakes.append(f"mail.classifier: {problem}")
    return mistakes


class _NotFoundError(Exception):
    """Nothing can be imported from a path; the text says why."""


def _backend_problem(path: str) -> str | None:
    try:
        found = _find(path)
    except _NotFoundError as exc:
        return str(exc)
    if isinstance(found, ModuleType):
        return f"{path} is a module; its class is probably {path}.EmailBackend"
    if not isinstance(found, type) or not callable(getattr(found, "send_messages", None)):
        return f"{path} is no email backend: it has no send_messages"
    if any(is_ours(base.__module__) for base in inspect.getmro(found)):
        return f"{path} hands mail to this service, which would go round for ever"
    return None


def _classifier_problem(path: str) -> str | None:
    try:
        return None if callable(_find(path)) else f"{path} cannot be called"
    except _NotFoundError as exc:
        return str(exc)


def _find(path: str) -> object:
    module, _, name = path.rpartition(".")
    try:
        parent = importlib.import_module(module)
        return getattr(parent, name) if hasattr(parent, name) else importlib.import_module(path)
    except ModuleNotFoundError as exc:
        if exc.name == path:
            raise _NotFoundError(f"{module} has no {name}") from exc
        raise _NotFoundError(f"there is no module {exc.name or module}; is its package installed?") from exc
    except Exception as exc:
        raise _NotFoundError(f"{module} cannot be imported: {type(exc).__name__}: {exc}") from exc
