"""How much one message may have: each limit, at it and one above, and the setting that the error names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from mail_service.bounds import Bounds
from mail_service.client import MailClient
from mail_service.delivery.copies import read
from mail_service.envelope import seal
from mail_service.errors import InvalidMessage
from mail_service.message import dump, load, validate
from mail_service.message.checks import checked_as_given
from mail_service.settings import Settings, load_settings
from tests.support.messages import a_message, in_base64

BOUNDS = Bounds(max_recipients=10, max_attachments=5, max_header_length=1000, max_values=100, max_nesting=3)


def people(number: int) -> list[str]:
    return [f"person-{each}@example.org" for each in range(number)]


def files(number: int) -> list[dict[str, str]]:
    # 28 characters of header each: a.txt and text/plain, and 13 for nothing that is counted
    return [{"filename": "a.txt", "content": "", "mimetype": "text/plain"}] * number


def nested(levels: int) -> Any:
    return [nested(levels - 1)] if levels else 1


def parts(levels: int) -> str:
    """Base64 of a MIME part with multiparts in one another."""
    raw = b"Content-Type: text/plain\n\nx\n"
    for level in range(levels):
        raw = b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n%s\n--b%d--\n" % (level, level, raw, level)
    return in_base64(raw)


def multipart(number: int) -> str:
    return in_base64(b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * number + b"--b--\n")


#: setting, what is wrong where there is one too many, and how to make a message with that many
CASES: dict[str, tuple[str, str, int, Callable[[int], dict[str, Any]]]] = {
    "to": ("max_recipients", "to", 10, lambda many: a_message(to=people(many))),
    "to and cc": ("max_recipients", "cc", 10, lambda many: a_message(to=people(4), cc=people(many - 4))),
    "to, cc and bcc": (
        "max_recipients",
        "bcc",
        10,
        lambda many: a_message(to=people(4), cc=people(4), bcc=people(many - 8)),
    ),
    "the same one": ("max_recipients", "to", 10, lambda many: a_message(to=["ann@example.org"] * many)),
    "reply_to": ("max_recipients", "reply_to", 10, lambda many: a_message(reply_to=people(many))),
    "attachments": ("max_attachments", "attachments", 5, lambda many: a_message(attachments=files(many))),
    "attachments and alternatives": (
        "max_attachments",
        "alternatives",
        5,
        lambda many: a_message(
            attachments=files(2), alternatives=[{"content": "", "mimetype": "text/html"}] * (many - 2)
        ),
    ),
    "subject": ("max_header_length", "subject", 1000, lambda many: a_message(subject="x" * many)),
    "a header": (
        "max_header_length",
        'headers["X-A"]',
        1000,
        lambda many: a_message(subject="", headers={"X-A": "x" * (many - 3)}),
    ),
    "all headers": (
        "max_header_length",
        'headers["X-2"]',
        1000,
        lambda many: a_message(subject="x" * 100, headers={"X-1": "x" * 297, "X-2": "x" * (many - 403)}),
    ),
    "a header's name": (
        "max_header_length",
        f'headers["{"x" * 100}"]',
        1000,
        lambda many: a_message(subject="", headers={"x" * many: ""}),
    ),
    "a file's name": (
        "max_header_length",
        "attachments[0].filename",
        1000,
        lambda many: a_message(subject="x" * 10, attachments=[{"filename": "x" * (many - 10), "content": ""}]),
    ),
    "a file's type": (
        "max_header_length",
        "attachments[0].mimetype",
        1000,
        lambda many: a_message(subject="", attachments=[{"content": "", "mimetype": "a/b;" + "x" * (many - 4)}]),
    ),
    "a text's type": (
        "max_header_length",
        "content_subtype",
        1000,
        lambda many: a_message(subject="", content_subtype="x" * many),
    ),
    "merge_headers": (
        "max_header_length",
        'merge_headers["b@example.org"]["X-A"]',
        1000,
        lambda many: a_message(
            subject="",
            merge_headers={"a@example.org": {"X-A": "x" * 900}, "b@example.org": {"X-A": "x" * (many - 3)}},
        ),
    ),
    "a list of tags": ("max_values", "tags", 99, lambda many: a_message(tags=["x"] * many)),
    "values of all fields": (
        "max_values",
        "metadata",
        99,
        lambda many: a_message(tags=["x"] * 50, metadata={str(each): 1 for each in range(many - 50)}),
    ),
    "values in values": (
        "max_values",
        "esp_extra",
        99,
        lambda many: a_message(esp_extra={"a": [[1] * 40, {str(each): 1 for each in range(many - 43)}]}),
    ),
    "metadata": ("max_nesting", "metadata", 3, lambda many: a_message(metadata={"a": nested(many)})),
    "esp_extra": ("max_nesting", "esp_extra", 3, lambda many: a_message(esp_extra={"a": nested(many)})),
    "parts": (
        "max_nesting",
        "attachments[0].mime",
        3,
        lambda many: a_message(attachments=[{"mime": parts(many)}]),
    ),
    "parts beside one another": (
        "max_attachments",
        "attachments[0].mime",
        8,
        # the multipart, its parts, and one more for each level that there may be
        lambda many: a_message(attachments=[{"mime": multipart(many)}]),
    ),
    "a part's header": (
        "max_header_length",
        "attachments[0].mime",
        1000,
        lambda many: a_message(subject="", attachments=[{"mime": in_base64(b"X-A: " + b"x" * (many - 6) + b"\n\nx")}]),
    ),
    "a whole mail's header": (
        "max_header_length",
        "mime",
        1000,
        lambda many: a_message(subject="", mime=in_base64(b"To: a@b.example\nX-A: " + b"x" * (many - 6) + b"\n\nx")),
    ),
    "a whole mail's addresses": (
        "max_recipients",
        "mime",
        3200,
        lambda many: a_message(mime=in_base64(b"To: " + b"x" * (many - 5) + b"\n\nx")),
    ),
    "a whole mail": ("max_nesting", "mime", 3, lambda many: a_message(mime=parts(many))),
}


@pytest.mark.parametrize(("setting", "field", "most", "make"), CASES.values(), ids=CASES)
def test_what_is_above_a_limit_is_refused_by_its_name(
    setting: str, field: str, most: int, make: Callable[[int], dict[str, Any]]
) -> None:
    validate(make(most), bounds=BOUNDS)

    with pytest.raises(InvalidMessage, match=rf"\(mail\.{setting}\)") as refused:
        validate(make(most + 1), bounds=BOUNDS)

    assert refused.value.field == field


@pytest.mark.parametrize("name", ["to", "attachments", "subject", "esp_extra"])
def test_every_door_has_the_same_limits(name: str) -> None:
    setting, _, most, make = CASES[name]
    settings = Settings(**asdict(BOUNDS))
    client = MailClient("amqp://guest:guest@127.0.0.1:1//", bounds=BOUNDS, timeout=1)

    with pytest.raises(InvalidMessage, match=setting):
        read(seal(make(most + 1), {}, door="submit").body(), {}, redelivered=False, settings=settings)
    with pytest.raises(InvalidMessage, match=setting):
        client.submit(make(most + 1))
    with pytest.raises(InvalidMessage, match=setting):
        client.send(make(most + 1))


def test_what_is_dumped_and_loaded_has_no_limits() -> None:
    """A program may carry what it likes; the doors decide what is mailed."""
    message = a_message(to=people(11_000), subject="x" * 70_000)

    assert dump(load(message))["to"] == message["to"]


def test_the_limits_are_configured_one_by_one() -> None:
    config = {
        "max_recipients": 20_000,
        "max_attachments": 0,
        "max_header_length": 998,
        "max_values": 100,
        "max_nesting": 0,
    }

    settings = load_settings({"mail": config})

    assert settings.bounds == Bounds(**config)
    assert settings.masked().items() >= config.items()
    assert MailClient.from_config({"mail": config})._most["bounds"] == settings.bounds


def test_the_usual_limits_let_every_usual_mail_pass() -> None:
    """Ten times the recipients of the largest providers, the References of a long thread, many files."""
    message = a_message(
        to=[f'"Bee, Ann {each}" <person-{each}@example.org>' for each in range(10_000)],
        headers={"References": "<id@example.org> " * 600},
        attachments=files(1000),
    )

    validate(message)


def test_parameters_of_a_part_cannot_take_up_a_process() -> None:
    """The standard library would take hours for them."""
    raw = b"Content-Type: multipart/mixed; boundary=x" + b";a=b" * 4_000_000 + b"\n\n--x\n\na\n--x--\n"
    inside = b"Content-Type: multipart/mixed; boundary=y\n\n--y\n" + raw + b"\n--y--\n"

    for each in (raw, inside):
        with pytest.raises(InvalidMessage, match="max_header_length"):
            validate(a_message(mime=in_base64(each)))


def test_long_addresses_cannot_take_up_a_process() -> None:
    """The parser's time grows with the square of the length: 10,000 of these would take minutes."""
    long = [f"person-{each}@example.org" + "(x)" * 600 for each in range(100)]

    with pytest.raises(InvalidMessage, match="takes too long") as refused:
        checked_as_given(a_message(to=long), default_from="", max_size=10**7)

    assert refused.value.field.startswith("to[")


def test_values_are_counted_before_the_message_is_written_as_json() -> None:
    """Or the time for millions of them would be spent before they are refused."""
    with pytest.raises(InvalidMessage, match=r"more than 200,000 values") as refused:
        validate({"metadata": {"all": [0] * 200_001, "what JSON cannot have": float("nan")}})

    assert refused.value.field == "metadata"
