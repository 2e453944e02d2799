"""What is accepted as a message, what is refused with which words, and what the canonical form is."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.mail import message as django_message
from hypothesis import given, settings
from hypothesis import strategies as st

from mail_service.errors import InvalidMessage
from mail_service.message import digest, recipients, send_at, validate
from mail_service.message.addresses import _PLAIN, BadAddress, addr_spec
from mail_service.message.fields import FIELDS
from mail_service.message.mime import problem
from tests.support.messages import a_message, configure_django, examples, in_base64

configure_django()

PNG = in_base64(b"\x89PNG\r\n")
A_PART = in_base64(b"Content-Type: image/png\nContent-ID: <img>\n\niVBO")


THOUSAND_PARTS = b"".join(
    b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (level, level) for level in range(1_000)
)


def nested(levels: int) -> Any:
    value: Any = "leaf"
    for _ in range(levels):
        value = [value]
    return value


REFUSED: dict[str, tuple[Any, str, str]] = {
    "null": (None, "message", "an object, not null"),
    "a list": ([a_message()], "message", "an object, not a list"),
    "a string": ("to", "message", "an object, not a string"),
    "empty": ({}, "from_email", "missing"),
    "unknown field": (a_message(tos=["a@b.example"]), "tos", "did you mean 'to'"),
    "unknown field, null": (a_message() | {"nonsense": None}, "nonsense", "no such field"),
    "no recipient": (a_message(to=[], cc=[], bcc=None), "to", "no recipient"),
    "no sender": (a_message(from_email=None), "from_email", "missing"),
    "subject a number": (a_message(subject=3), "subject", "a string, not a number"),
    "subject with line feed": (a_message(subject="a\nBcc: x@y.example"), "subject", "one line"),
    "subject with carriage return": (a_message(subject="a\rb"), "subject", "one line"),
    "subject with NUL": (a_message(subject="a\0b"), "subject", "one line"),
    "subject with form feed": (a_message(subject="a\x0cBcc: x"), "subject", "one line"),
    "subject half a surrogate pair": (a_message(subject="\ud83d"), "subject", "surrogate"),
    "body a list": (a_message(body=["x"]), "body", "a string, not a list"),
    "body half a surrogate pair": (a_message(body="x\udc80"), "body", "surrogate"),
    "name half a surrogate pair": (a_message(metadata={"\ud800": 1}), "metadata", "surrogate"),
    "from_email invalid": (a_message(from_email="a b <"), "from_email", "address"),
    "from_email two": (a_message(from_email="a@x.example, b@x.example"), "from_email", "more than one"),
    "to a number": (a_message(to=7), "to", "a list of addresses, not a number"),
    "to an object": (a_message(to={"a": 1}), "to", "a list of addresses"),
    "to with null": (a_message(to=["a@b.example", None]), "to[1]", "a string, not null"),
    "to invalid": (a_message(to=["a@b.example", "c@d.example", "not@@valid"]), "to[2]", "address"),
    "to empty string": (a_message(to=""), "to", "address"),
    "to with line break": (a_message(to=["a@b.example\nBcc: c@d.example"]), "to[0]", "one line"),
    "to folded": (a_message(to=["Ann\r\n <a@b.example>"]), "to[0]", "one line"),
    "to endless": (a_message(to=["(" * 1_900 + "a@b.example"]), "to[0]", "address"),
    "to too long": (a_message(to=["é" * 3_000 + "@b.example"]), "to[0]", "longer than"),
    "comments in one another": (
        a_message(headers={"Reply-To": "(" * 9_000 + "é" + ")" * 9_000}),
        'headers["Reply-To"]',
        "nested too deeply",
    ),
    "encoded line break in a name": (a_message(to=["=?utf-8?q?=0A?= <a@b.example>"]), "to[0]", "one line"),
    "domain label too long": (a_message(to=["a@" + "ü" * 70 + ".example"]), "to[0]", "address"),
    "cc invalid": (a_message(cc="@"), "cc", "address"),
    "reply_to invalid": (a_message(reply_to=["a@b.example", ","]), "reply_to[1]", "address"),
    "headers a list": (a_message(headers=[["X-A", "b"]]), "headers", "an object"),
    "header a number": (a_message(headers={"X-A": 1}), 'headers["X-A"]', "a string, not a number"),
    "header null": (a_message(headers={"X-A": None}), 'headers["X-A"]', "a string, not null"),
    "header with line break": (a_message(headers={"X-Foo": "a\r\nBcc: b"}), 'headers["X-Foo"]', "one line"),
    "header name with colon": (a_message(headers={"X-A: b\nC": "d"}), 'headers["X-A: b\\nC"]', "header's name"),
    "header name with space": (a_message(headers={"X A": "d"}), 'headers["X A"]', "header's name"),
    "header name empty": (a_message(headers={"": "d"}), 'headers[""]', "header's name"),
    "header name not ASCII": (a_message(headers={"X-É": "d"}), 'headers["X-\\u00c9"]', "header's name"),
    "header Bcc": (a_message(headers={"bCC": "d@e.example"}), 'headers["bCC"]', "field bcc"),
    "header From not encodable": (a_message(headers={"From": "Jürgen"}), 'headers["From"]', "not an address"),
    "html a number": (a_message(html=1), "html", "a string"),
    "alternatives an object": (a_message(alternatives={}), "alternatives", "a list of objects"),
    "alternative a string": (a_message(alternatives=["x"]), "alternatives[0]", "an object"),
    "alternative without type": (a_message(alternatives=[{"content": "x"}]), "alternatives[0].mimetype", "missing"),
    "alternative without content": (
        a_message(alternatives=[{"mimetype": "text/html"}]),
        "alternatives[0].content",
        "missing",
    ),
    "alternative's type": (
        a_message(alternatives=[{"content": "x", "mimetype": "html"}]),
        "alternatives[0].mimetype",
        "type/subtype",
    ),
    "alternative's unknown member": (
        a_message(alternatives=[{"content": "x", "mimetype": "text/html", "mimtype": 1}]),
        "alternatives[0].mimtype",
        "did you mean 'mimetype'",
    ),
    "content_subtype with line break": (a_message(content_subtype="html\nX: y"), "content_subtype", "subtype"),
    "content_subtype with line break before a parameter": (
        a_message(content_subtype="html\n;x"),
        "content_subtype",
        "subtype",
    ),
    "content_subtype with slash": (a_message(content_subtype="text/html"), "content_subtype", "subtype"),
    "encoding unknown": (a_message(encoding="utf-9"), "encoding", "encoding"),
    "encoding no text encoding": (a_message(encoding="base64"), "encoding", "encoding"),
    "encoding undefined": (a_message(encoding="undefined"), "encoding", "cannot be used"),
    "encoding with NUL": (a_message(encoding="utf-8\0"), "encoding", "name of a charset"),
    "encoding a number": (a_message(encoding=8), "encoding", "a string"),
    "attachments an object": (a_message(attachments={}), "attachments", "a list of objects"),
    "attachment a list": (a_message(attachments=[["a.txt", "b"]]), "attachments[0]", "an object, not a list"),
    "attachment without content": (a_message(attachments=[{"filename": "a"}]), "attachments[0].content", "missing"),
    "attachment not base64": (
        a_message(attachments=[{"content": PNG}, {"content": "%%%%"}]),
        "attachments[1].content",
        "not base64",
    ),
    "attachment with half of base64": (
        a_message(attachments=[{"content": "QUJD="}]),
        "attachments[0].content",
        "not base64",
    ),
    "attachment not ASCII": (a_message(attachments=[{"content": "é"}]), "attachments[0].content", "not base64"),
    "attachment's content a list": (a_message(attachments=[{"content": [1]}]), "attachments[0].content", "base64"),
    "attachment's half of a surrogate pair": (
        a_message(attachments=[{"content": "QUJD", "filename": "\ud800"}]),
        "attachments[0].filename",
        "surrogate",
    ),
    "filename with line break": (
        a_message(attachments=[{"filename": 'a"\r\nX: y', "content": PNG}]),
        "attachments[0].filename",
        "one line",
    ),
    "filename a number": (
        a_message(attachments=[{"filename": 1, "content": PNG}]),
        "attachments[0].filename",
        "string",
    ),
    "mimetype with line break": (
        a_message(attachments=[{"mimetype": "a/b\nX: y", "content": PNG}]),
        "attachments[0].mimetype",
        "type/subtype",
    ),
    "mimetype without slash": (
        a_message(attachments=[{"mimetype": "pdf", "content": PNG}]),
        "attachments[0].mimetype",
        "type/subtype",
    ),
    "mimetype empty": (
        a_message(attachments=[{"mimetype": "", "content": PNG}]),
        "attachments[0].mimetype",
        "type/subtype",
    ),
    "part and content": (
        a_message(attachments=[{"mime": A_PART, "content": PNG}]),
        "attachments[0]",
        "cannot have content",
    ),
    "part that is no MIME": (
        a_message(attachments=[{"mime": in_base64(b"hello")}]),
        "attachments[0].mime",
        "begin with a header",
    ),
    "part empty": (a_message(attachments=[{"mime": ""}]), "attachments[0].mime", "empty"),
    "part without its boundary": (
        a_message(attachments=[{"mime": in_base64(b"Content-Type: multipart/mixed; boundary=x\n\nhello")}]),
        "attachments[0].mime",
        "StartBoundaryNotFound",
    ),
    "part with parts a thousand deep": (
        a_message(attachments=[{"mime": in_base64(THOUSAND_PARTS)}]),
        "attachments[0].mime",
        "RecursionError",
    ),
    "mime not base64": (a_message(mime="?"), "mime", "not base64"),
    "mime no message": (a_message(mime=in_base64(b"\n\nhello")), "mime", "begin with a header"),
    "envelope_sender a list": (a_message(envelope_sender=["a@b.example"]), "envelope_sender", "a string"),
    "envelope_sender invalid": (a_message(envelope_sender="a@b@c"), "envelope_sender", "address"),
    "envelope_sender with line break": (a_message(envelope_sender="a@b.example\n"), "envelope_sender", "one line"),
    "metadata a list": (a_message(metadata=[]), "metadata", "an object, not a list"),
    "metadata's name with line break": (a_message(metadata={"a\nb": 1}), 'metadata["a\\nb"]', "one line"),
    "metadata's name a number, from Python": (a_message(metadata={1: 2}), 'metadata["1"]', "a string"),
    "NaN": (a_message(metadata={"a": [1.0, float("nan")]}), 'metadata["a"][1]', "finite"),
    "infinity": (a_message(esp_extra={"x": {"y": float("-inf")}}), 'esp_extra["x"]["y"]', "finite"),
    "bytes, from Python": (a_message(esp_extra={"x": b"y"}), 'esp_extra["x"]', "a Python bytes"),
    "65 levels": (a_message(esp_extra={"x": nested(65)}), "esp_extra", "deeper than 64"),
    "100,000 levels": (a_message(esp_extra={"x": nested(100_000)}), "esp_extra", "deeper than 64"),
    "merge_metadata flat": (a_message(merge_metadata={"a@b.example": "x"}), 'merge_metadata["a@b.example"]', "object"),
    "merge_data a list": (a_message(merge_data=[]), "merge_data", "an object"),
    "merge_data flat": (a_message(merge_data={"a@b.example": 1}), 'merge_data["a@b.example"]', "an object"),
    "merge_global_data a string": (a_message(merge_global_data="x"), "merge_global_data", "an object"),
    "merge_headers flat": (a_message(merge_headers={"a@b.example": "x"}), 'merge_headers["a@b.example"]', "object"),
    "merge_headers with line break": (
        a_message(merge_headers={"a@b.example": {"X-A": "b\nc"}}),
        'merge_headers["a@b.example"]["X-A"]',
        "one line",
    ),
    "tags a string": (a_message(tags="x"), "tags", "a list of strings, not a string"),
    "tag a number": (a_message(tags=["x", 2]), "tags[1]", "a string, not a number"),
    "tag with line break": (a_message(tags=["x\n"]), "tags[0]", "one line"),
    "track_opens a string": (a_message(track_opens="yes"), "track_opens", "true or false"),
    "track_clicks a number": (a_message(track_clicks=1), "track_clicks", "true or false"),
    "send_at a number": (a_message(send_at=1), "send_at", "a string"),
    "send_at not ISO 8601": (a_message(send_at="Fri, 1 Jan 2030 00:00:00 GMT"), "send_at", "ISO 8601"),
    "template_id a boolean": (a_message(template_id=True), "template_id", "a string or a whole number"),
    "template_id a list": (a_message(template_id=[]), "template_id", "a string or a whole number"),
    "esp_extra a list": (a_message(esp_extra=[1]), "esp_extra", "an object"),
    "types a list": (a_message(types=[]), "types", "an object"),
    "types that leads nowhere": (a_message(types={"/metadata/a": "decimal"}), 'types["/metadata/a"]', "lead"),
    "types of what has only one": (a_message(types={"/subject": "decimal"}), 'types["/subject"]', "lead"),
    "types that does not fit": (
        a_message(metadata={"a": "x"}, types={"/metadata/a": "decimal"}),
        'types["/metadata/a"]',
        "not a decimal",
    ),
    "types unknown": (
        a_message(metadata={"a": "x"}, types={"/metadata/a": "pickle"}),
        'types["/metadata/a"]',
        "unknown type",
    ),
    "types of an encoding": (
        a_message(encoding="utf-8", types={"/encoding": {"x": 1}}),
        "encoding",
        "must be an object",
    ),
}


@pytest.mark.parametrize(("message", "field", "problem"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_message_is_refused_by_the_name_of_the_place(message: Any, field: str, problem: str) -> None:
    with pytest.raises(InvalidMessage) as refused:
        validate(message)

    assert refused.value.field == field
    assert problem in refused.value.problem


CANONICAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as it is": (a_message(), a_message()),
    "null is not given": (a_message() | {"cc": None, "metadata": None, "html": None}, a_message()),
    "empty is Django's default": (a_message(cc=[], headers={}, attachments=[], html="", encoding=""), a_message()),
    "empty is not Anymail's default": (a_message(metadata={}, tags=[]), a_message(metadata={}, tags=[])),
    "false is given": (a_message(track_opens=False), a_message(track_opens=False)),
    "a single address": (a_message(to="a@b.example"), a_message(to=["a@b.example"])),
    "the same recipient twice": (a_message(to=["a@b.example"] * 2), a_message(to=["a@b.example"] * 2)),
    "plain is the default": (a_message(content_subtype="plain"), a_message()),
    "html is an alternative": (
        a_message(html="<p>"),
        a_message(alternatives=[{"content": "<p>", "mimetype": "text/html"}]),
    ),
    "html is the first alternative": (
        a_message(html="<p>", alternatives=[{"content": "x", "mimetype": "text/calendar"}]),
        a_message(
            alternatives=[{"content": "<p>", "mimetype": "text/html"}, {"content": "x", "mimetype": "text/calendar"}]
        ),
    ),
    "tuples, from Python": (a_message(to=("a@b.example",), tags=("x",)), a_message(to=["a@b.example"], tags=["x"])),
    "base64 in lines": (
        a_message(attachments=[{"content": "QUJD\r\nREVG\n", "mimetype": "a/b"}]),
        a_message(attachments=[{"content": "QUJDREVG", "mimetype": "a/b"}]),
    ),
    "type of an attachment from its name": (
        a_message(attachments=[{"filename": "a.pdf", "content": PNG, "mimetype": None}]),
        a_message(attachments=[{"filename": "a.pdf", "content": PNG, "mimetype": "application/pdf"}]),
    ),
    "type of an attachment without a name": (
        a_message(attachments=[{"content": PNG, "filename": None}]),
        a_message(attachments=[{"content": PNG, "mimetype": "application/octet-stream"}]),
    ),
    "text that is not UTF-8": (
        a_message(attachments=[{"filename": "a.txt", "content": in_base64(b"\xe9")}]),
        a_message(
            attachments=[{"filename": "a.txt", "content": in_base64(b"\xe9"), "mimetype": "application/octet-stream"}]
        ),
    ),
    "a type with parameters": (
        a_message(alternatives=[{"content": "x", "mimetype": "text/calendar; method=REQUEST"}]),
        a_message(alternatives=[{"content": "x", "mimetype": "text/calendar; method=REQUEST"}]),
    ),
    "a whole part": (a_message(attachments=[{"mime": A_PART}]), a_message(attachments=[{"mime": A_PART}])),
    "time without offset": (a_message(send_at="2030-01-01T00:00"), a_message(send_at="2030-01-01T00:00:00+00:00")),
    "time in UTC": (a_message(send_at="2030-01-01T00:00:00Z"), a_message(send_at="2030-01-01T00:00:00+00:00")),
    "time with offset": (
        a_message(send_at="2030-01-01T00:00:00-08:00"),
        a_message(send_at="2030-01-01T00:00:00-08:00"),
    ),
    "a number for a template": (a_message(template_id=7), a_message(template_id=7)),
    "64 levels": (a_message(esp_extra={"x": nested(63)}), a_message(esp_extra={"x": nested(63)})),
    "a local address": (a_message(to=["webmaster"]), a_message(to=["webmaster"])),
    "another separator of lines in a subject": (a_message(subject="a\u2028b"), a_message(subject="a\u2028b")),
}


@pytest.mark.parametrize(("message", "canonical"), CANONICAL.values(), ids=CANONICAL.keys())
def test_the_canonical_form_holds_only_what_differs_from_the_default(
    message: dict[str, Any], canonical: dict[str, Any]
) -> None:
    before = deepcopy(message)

    assert validate(message) == canonical
    assert validate(canonical) == canonical
    assert message == before


def test_the_default_sender_stands_in_for_a_missing_one() -> None:
    assert validate(a_message(from_email=None), default_from="A <a@b.example>")["from_email"] == "A <a@b.example>"
    assert validate(a_message(from_email=""), default_from="A <a@b.example>")["from_email"] == "A <a@b.example>"


@pytest.mark.parametrize("field", ["to", "cc", "bcc"])
def test_one_recipient_anywhere_is_enough(field: str) -> None:
    assert validate(a_message(to=None) | {field: "a@b.example"})[field] == ["a@b.example"]


@pytest.mark.parametrize("content", ["AAAA", "AAAA" * 50_000], ids=["small", "large"])
def test_the_size_is_that_of_the_json_in_utf_8(content: str) -> None:
    message = a_message(body="é" * 1000, attachments=[{"filename": "ü.bin", "content": content}])
    size = len(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode())

    validate(message, max_size=size)
    with pytest.raises(InvalidMessage, match=r"message: takes .*\(mail\.max_size\)"):
        validate(message, max_size=size - 1)


def test_recipients_are_bare_and_listed_once_in_order() -> None:
    message = validate(
        a_message(
            to=["Ann <ann@example.org>", "bob@example.org"],
            cc=["ann@example.org", '"Doe, Jo" <jo@bücher.example>'],
            bcc="ANN@example.org",
        )
    )

    assert recipients(message) == ["ann@example.org", "bob@example.org", "jo@bücher.example", "ANN@example.org"]


def test_the_digest_is_that_of_the_json_value() -> None:
    one = validate(a_message(metadata={"a": 1, "b": [True, None]}))
    same = validate(dict(reversed(a_message(metadata={"b": [True, None], "a": 1}, to="ann@example.org").items())))

    assert digest(one) == digest(same)
    assert digest(one) != digest(validate(a_message(metadata={"a": 2, "b": [True, None]})))
    assert len(digest(one)) == 64


DUE: dict[str, tuple[dict[str, Any], datetime | None]] = {
    "not given": ({}, None),
    "ISO 8601": ({"send_at": "2030-01-01T00:00:00Z"}, datetime(2030, 1, 1, tzinfo=UTC)),
    "an ESP's text": ({"send_at": "soon", "types": {"/send_at": "text"}}, None),
    "an ESP's RFC 5322": (
        {"send_at": "Tue, 01 Jan 2030 00:00:00 GMT", "types": {"/send_at": "text"}},
        datetime(2030, 1, 1, tzinfo=UTC),
    ),
    "an ESP's seconds": ({"send_at": "1893456000", "types": {"/send_at": "text"}}, datetime(2030, 1, 1, tzinfo=UTC)),
}


@pytest.mark.parametrize(("changes", "due"), DUE.values(), ids=DUE.keys())
def test_send_at_is_read_where_it_can_be(changes: dict[str, Any], due: datetime | None) -> None:
    assert send_at(validate(a_message(**changes))) == due


address_parts = st.sampled_from(
    [
        *[
            "a",
            "b@c",
            "@",
            ".",
            "..",
            "<",
            ">",
            ",",
            ";",
            ":",
            "(",
            ")",
            "[",
            "]",
            "ü",
            "例え",
            "example.org",
            "=?utf-8?q?=0A?=",
            "=?utf-8?b?4pyT?=",
            "-",
            "_",
            "é@ü",
            "1.2.3.4",
        ],
        *('"', "\\", "'", " ", "\n", "\t", "\0", "\x0c", "\u2028", "x" * 64),
        *("Ann <ann@example.org>", '"A, B" <a@b.example>'),
    ]
)
some_addresses = st.lists(address_parts, min_size=1, max_size=6).map("".join) | st.from_regex(_PLAIN, fullmatch=True)


@pytest.mark.filterwarnings("ignore:The internal API sanitize_address")
@settings(max_examples=examples(60), deadline=None)
@given(some_addresses)
def test_an_address_is_valid_if_django_takes_it(address: str) -> None:
    try:
        taken = django_message.sanitize_address(address, "utf-8")
    except Exception:  # noqa: BLE001  # the parser raises whatever its code stumbles over
        taken = None

    try:
        bare = addr_spec(address)
    except BadAddress:
        bare = None

    assert (bare is None) == (taken is None)


@settings(max_examples=examples(25), deadline=None)
@given(st.from_regex(_PLAIN, fullmatch=True))
def test_the_short_way_finds_the_same_bare_address_as_the_parser(address: str) -> None:
    from email.headerregistry import parser  # type: ignore[attr-defined]

    assert addr_spec(address) == parser.get_mailbox(address)[0].addr_spec


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["a@b.example", "\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from([*FIELDS])


@settings(max_examples=examples(60), deadline=None)
@given(st.dictionaries(fields, anything, max_size=5).map(lambda some: a_message() | some) | anything)
def test_any_json_is_either_taken_or_refused(message: Any) -> None:
    try:
        canonical = validate(message)
    except InvalidMessage as error:
        refused: InvalidMessage | None = error
    else:
        refused = None
        assert validate(json.loads(json.dumps(canonical))) == canonical
        assert recipients(canonical)

    assert refused is None or (refused.field and refused.problem)


def test_a_long_part_is_not_parsed_beyond_its_header() -> None:
    assert problem(b"Content-Type: image/png\r\n\r\n" + b"x\n" * 1_000_000) == ""


@pytest.mark.parametrize("sender", ["<>", " <> "])
def test_the_empty_envelope_sender_can_be_given(sender: str) -> None:
    assert validate(a_message(envelope_sender=sender))["envelope_sender"] == "<>"


def test_a_sender_is_never_empty() -> None:
    with pytest.raises(InvalidMessage, match="from_email"):
        validate(a_message(from_email="<>"))
