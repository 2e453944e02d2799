"""
Finds in an error what a provider answered: its status, header fields, body, and the words that its API has for errors.

Anymail keeps the answer in its exceptions, mostly; where its own reading of a success fails, or it forgets to, the
answer is still in the frame of the function that read it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mail_service.diagnosis.context import Context
from mail_service.diagnosis.provider import Provider
from mail_service.diagnosis.providers import PROVIDERS
from mail_service.diagnosis.reading import class_names, text_of

#: errors that may carry an answer
_CARRIERS: Final = frozenset(
    {
        "anymail.exceptions.AnymailAPIError",
        "requests.exceptions.HTTPError",
        "urllib.error.HTTPError",
        "httpx.HTTPStatusError",
        "botocore.exceptions.ClientError",
    }
)
#: Anymail's functions that read an answer whose status was a success, and keep it in a variable called ``response``
_READER: Final = "parse_recipient_status"
#: characters of a body that are looked at
_LONGEST_BODY: Final = 200_000
_A_CODE = re.compile(r"[\w.-]{1,60}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a provider said."""

    #: 0 when it is not known
    status: int
    #: names in lower case
    headers: Mapping[str, str] = field(default_factory=dict)
    #: the body, or what the error says where nobody kept the body
    text: str = ""
    #: the body's JSON, or None
    body: Any = None
    #: whose API it is, where that is known
    provider: Provider | None = None
    #: what the provider has as codes in *body*
    codes: tuple[str, ...] = ()


def answer_of(error: BaseException, context: Context) -> Answer | None:
    """Return the answer that *error* was made of; None without one, as when no connection was made."""
    is_carrier = bool(class_names(error) & _CARRIERS)
    response = getattr(error, "response", None) if is_carrier else None
    reader: Mapping[str, Any] = {}
    if response is None:
        reader = _frame_of_reader(error)
        response = reader.get("response")
    if response is None and "urllib.error.HTTPError" in class_names(error):
        response = error
    if response is None:
        return None
    return read(response, _provider_of(error, reader, context), otherwise=text_of(error))


def read(response: Any, provider: Provider | None, *, otherwise: str = "") -> Answer:
    """
    Read an answer as requests, httpx, urllib or boto have it.

    Args:
        otherwise: The text, where the answer has none.
    """
    if isinstance(response, Mapping):
        about = response.get("ResponseMetadata")
        about = about if isinstance(about, Mapping) else {}
        status, headers, body = about.get("HTTPStatusCode"), about.get("HTTPHeaders"), response
        text = " ".join(_strings(body, ("Error.Message", "BulkEmailEntryResults.*.Error")))
    else:
        status = getattr(response, "status_code", None) or getattr(response, "code", None)
        headers = getattr(response, "headers", None)
        text = _body_of(response)
        body = _parsed(text)
    return Answer(
        status=status if isinstance(status, int) else 0,
        headers=_lower(headers),
        text=text or otherwise,
        body=body,
        provider=provider,
        codes=tuple(_codes(body, text, provider)) if provider else (),
    )


def provider_called(esp_name: object, context: Context) -> Provider | None:
    """
    Whose API was asked: by Anymail's name for it, which classes derived from its backend have too, or by the path.
    """
    for provider in PROVIDERS.values():
        if esp_name in provider.names:
            return provider
    module = context.backend.rpartition(".")[0]
    return PROVIDERS.get(module.rpartition(".")[2]) if module.startswith("anymail.backends.") else None


def _provider_of(error: BaseException, reader: Mapping[str, Any], context: Context) -> Provider | None:
    if "botocore.exceptions.ClientError" in class_names(error):
        return PROVIDERS["amazon_ses"]
    esp_name = getattr(error, "esp_name", None) or getattr(reader.get("self"), "esp_name", None)
    return provider_called(esp_name, context)


def found(body: Any, path: str) -> Iterator[Any]:
    """Give everything that stands at *path* in parsed JSON: ``errors.*.code``, a ``*`` being each item of a list."""
    here = [body]
    for step in path.split(".") if path else []:
        if step == "*":
            here = [item for each in here if isinstance(each, list) for item in each]
        else:
            here = [each[step] for each in here if isinstance(each, Mapping) and step in each]
    return iter(here)


def words(body: Any, paths: tuple[str, ...]) -> Iterator[str]:
    """The words and whole numbers at *paths*, as text; whatever else stands there is none of a provider's codes."""
    for path in paths:
        for value in found(body, path):
            if isinstance(value, str | int) and not isinstance(value, bool) and _A_CODE.fullmatch(str(value)):
                yield str(value)


def _strings(body: Any, paths: tuple[str, ...]) -> Iterator[str]:
    for path in paths:
        for value in found(body, path):
            if isinstance(value, str):
                yield value[:_LONGEST_BODY]


def _codes(body: Any, text: str, provider: Provider) -> Iterator[str]:
    yield from words(body, provider.codes)
    if provider.code_pattern:
        yield from re.findall(provider.code_pattern, text)


def _body_of(response: Any) -> str:
    content: Any = b""
    with contextlib.suppress(Exception):
        content = response.content
    return bytes(content[:_LONGEST_BODY]).decode("utf-8", "replace") if isinstance(content, bytes) else ""


def _parsed(text: str) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    return None


def _lower(headers: Any) -> dict[str, str]:
    items = getattr(headers, "items", None)
    return {str(name).lower(): str(value) for name, value in items()} if callable(items) else {}


def _frame_of_reader(error: BaseException) -> Mapping[str, Any]:
    """The variables of the Anymail function that *error* came out of while it read an answer."""
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_name == _READER:
            return frame.f_locals
        traceback = traceback.tb_next
    return {}
