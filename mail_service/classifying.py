"""
Makes a classifier for ``mail.classifier`` from lists: what the default does not know, or takes for something else::

    # myproject/mail.py, in config.yaml as classifier: myproject.mail.classify
    from mail_service.classifying import classifier

    classify = classifier(
        transient=[TimeoutError, "myproject.errors.Busy"],
        permanent=["myproject.errors.NoSuchTemplate"],
        held=["myproject.errors.NotPaid"],
        statuses={451: "transient", "smtp 550 5.2.2": "transient", "http 402": "permanent"},
    )
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

from mail_service.diagnosis import Context, diagnose
from mail_service.diagnosis.reading import inside
from mail_service.outcome import Diagnosis, Kind

Classifier: TypeAlias = Callable[[BaseException, Context], Diagnosis]

#: what people call a configuration that somebody has to mend: the mailer's mail waits, and no attempt is used up
_HELD: Final = "held"
_PROTOCOLS: Final = ("http", "smtp")


def classifier(
    *,
    transient: Iterable[type[BaseException] | str] = (),
    permanent: Iterable[type[BaseException] | str] = (),
    held: Iterable[type[BaseException] | str] = (),
    statuses: Mapping[int | str, Kind | str] | None = None,
    default: Classifier = diagnose,
) -> Classifier:
    """
    Return a classifier that knows these exceptions and statuses, and asks *default* about everything else.

    Exceptions come before statuses. As with ``except``, a class stands for those derived from it, and of several that
    fit, the one nearest to the error counts. What an error was made from is looked at as well, as with Anymail's around
    one of boto's.

    Args:
        transient: Classes or dotted paths; the mail is tried again on its schedule.
        permanent: The mail fails.
        held: The mailer is held as with a wrong password: its mail waits, no attempt is used up, somebody is told.
        statuses: What an answer means, by its status: ``451`` in SMTP and HTTP alike, ``"smtp 451"`` or ``"http 451"``
            in one of them, ``"smtp 451 4.7.1"`` with the enhanced code of RFC 3463; the longest that fits counts. To
            a ``Kind`` or its name, or ``held``.

    Raises:
        ImportError: when a dotted path leads nowhere.
        TypeError, ValueError: for what is no exception class, no status or no kind, and for a class in two lists.
    """
    kinds = dict(_by_class({Kind.TRANSIENT: transient, Kind.PERMANENT: permanent, Kind.CONFIGURATION: held}))
    codes = {_code(status): _kind(kind) for status, kind in (statuses or {}).items()}

    def classify(error: BaseException, context: Context) -> Diagnosis:
        diagnosis = default(error, context)
        kind = _of_error(error, kinds) or _of_code(diagnosis.code, codes) or diagnosis.kind
        if kind == diagnosis.kind:
            return diagnosis
        not_sent = diagnosis.certainly_not_sent and kind != Kind.ACCEPTED
        return replace(diagnosis, kind=kind, scope=None, certainly_not_sent=not_sent)

    return classify


def _by_class(
    lists: Mapping[Kind, Iterable[type[BaseException] | str]],
) -> Iterator[tuple[type[BaseException], Kind]]:
    seen: set[type[BaseException]] = set()
    for kind, listed in lists.items():
        if isinstance(listed, str):
            raise TypeError(f"expected a list of exceptions, got the text {listed!r}; write [{listed!r}]")
        for each in listed:
            found = _imported(each) if isinstance(each, str) else each
            if not (isinstance(found, type) and issubclass(found, BaseException)):
                raise TypeError(f"{each!r} is no exception class")
            if found in seen:
                raise ValueError(f"{found.__name__} stands in two lists")
            seen.add(found)
            yield found, kind


def _imported(path: str) -> object:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module or "builtins"), name)
    except AttributeError as error:
        raise ImportError(f"{module or 'builtins'} has no {name}") from error


def _code(status: int | str) -> tuple[str, ...]:
    """*status* as words: ``("451",)``, ``("smtp", "451", "4.7.1")``."""
    words = () if isinstance(status, bool) else tuple(str(status).lower().split())
    number = words[1:] if words and words[0] in _PROTOCOLS else words
    most = 2 if words[:1] == ("smtp",) else 1
    if not (1 <= len(number) <= most and number[0].isdecimal() and len(number[0]) == 3):
        raise ValueError(f"expected a status like 451, 'http 429' or 'smtp 451 4.7.1', got {status!r}")
    return words


def _kind(name: Kind | str) -> Kind:
    if name == _HELD:
        return Kind.CONFIGURATION
    try:
        return Kind(name)
    except ValueError as error:
        known = ", ".join([*Kind, _HELD])
        raise ValueError(f"expected one of {known}, got {name!r}") from error


def _of_error(error: BaseException, kinds: Mapping[type[BaseException], Kind]) -> Kind | None:
    if not kinds:
        return None
    for one in (error, *inside(error)):
        for cls in type(one).__mro__:
            if cls in kinds:
                return kinds[cls]
    return None


def _of_code(code: str, codes: Mapping[tuple[str, ...], Kind]) -> Kind | None:
    """The kind for a diagnosis' *code* such as ``smtp 451 4.7.1``, by the longest beginning that is known."""
    words = tuple(code.split())
    if words[:1] and words[0] in _PROTOCOLS:
        for length in range(len(words), 1, -1):
            if words[:length] in codes:
                return codes[words[:length]]
        return codes.get(words[1:2])
    return None
