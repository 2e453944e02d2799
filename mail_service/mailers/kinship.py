"""Knows classes by their names, so that nothing has to be imported to ask."""

from __future__ import annotations


def descends_from(thing: object, *names: str) -> bool:
    """Whether *thing*, a class or what is made of one, is or descends from a class called one of *names*."""
    cls = thing if isinstance(thing, type) else type(thing)
    return not set(names).isdisjoint(name_of(each) for each in cls.__mro__)


def name_of(cls: type) -> str:
    """The full name of *cls*: ``anymail.backends.resend.EmailBackend``."""
    return f"{cls.__module__}.{cls.__qualname__}"
