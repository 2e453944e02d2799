"""Tries the dotted paths in the settings. Apart from loading, since an import may need Django configured."""

from __future__ import annotations

import importlib
import inspect
from importlib.util import find_spec
from types import ModuleType

from mail_service.settings.mailers import is_ours
from mail_service.settings.model import Settings


def check_imports(settings: Settings) -> list[str]:
    """
    What is wrong with the mailers' backends and the functions named, one sentence each; empty when all can be imported.

    Django has to be configured first, since a backend's module may ask for its settings.
    """
    everybodys = {f"mail.mailers.{name}": mailer for name, mailer in settings.mailers.items()}
    of_tenants = {
        f"mail.tenants.{tenant}.mailers.{name}": mailer
        for tenant, mailers in settings.tenants.items()
        for name, mailer in mailers.items()
    }
    found = {f"{path}.BACKEND": backend_problem(one.backend) for path, one in (everybodys | of_tenants).items()}
    found["mail.classifier"] = _function_problem(settings.classifier)
    found |= {f"mail.hooks[{number}]": _function_problem(path) for number, path in enumerate(settings.hooks)}
    if settings.tenant_mailers is not None:
        found["mail.tenant_mailers"] = _function_problem(settings.tenant_mailers)
    if settings.bounce.factory is not None:
        found["mail.bounce.factory"] = _function_problem(settings.bounce.factory)
    if settings.tracing is not None:
        missing = None if find_spec("opentelemetry") else "needs OpenTelemetry: pip install 'mail-service[otel]'"
        found["mail.tracing"] = missing or _function_problem(settings.tracing)
    return [f"{path}: {problem}" for path, problem in found.items() if problem is not None]


class _NotFoundError(Exception):
    """Nothing can be imported from a path; the text says why."""


def backend_problem(path: str) -> str | None:
    """Why what *path* names cannot be a mailer's backend, in a sentence; None when it can."""
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


def _function_problem(path: str) -> str | None:
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
