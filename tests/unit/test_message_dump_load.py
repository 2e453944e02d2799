"""A mail that goes through ``dump``, JSON text and ``load`` is the mail it was, for every backend."""

from __future__ import annotations

import email.message
import email.policy
import json
import random
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from email.charset import BASE64, QP, Charset
from email.headerregistry import Address
from email.mime.base import MIMEBase
from email.mime.image import MIMEImage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from enum import StrEnum
from functools import cache, partial
from importlib import import_module
from io import BytesIO
from typing import Any
from uuid import UUID

import django
import pytest
from anymail.message import AnymailMessage, attach_inline_image
from anymail.utils import Attachment
from django.core.mail import EmailAttachment, EmailMessage, EmailMultiAlternatives
from django.test.utils import override_settings
from django.utils.functional import lazystr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mail_service.errors import InvalidMessage
from mail_service.message import dump, load, stamp, validate
from mail_service.message.dumping import checked_dump
from tests.support.messages import a_message, configure_django, examples, in_base64

configure_django()
# Anymail says of some ESPs that it no longer tests with them
pytestmark = pytest.mark.filterwarnings("ignore::anymail.exceptions.AnymailNotSupportedWarning")

DJANGO_6 = django.VERSION >= (6, 0)
FIXED = {"Message-ID": "<fixed@example.org>", "Date": "Tue, 01 Jan 2030 00:00:00 +0000"}


def an_email(**changes: Any) -> AnymailMessage:
    given = {"subject": "Hello", "body": "Text", "from_email": "shop@example.org", "to": ["ann@example.org"]}
    return AnymailMessage(**(given | {"headers": dict(FIXED)} | changes))


def with_attributes(made: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def through(message: Any) -> Any:
    payload = dump(message)
    travelled = json.loads(json.dumps(payload))
    loaded = load(travelled)
    assert dump(loaded) == payload == travelled
    return loaded


def as_sent(message: Any) -> bytes:
    """Return the bytes that Django's SMTP backend would send, with boundaries that depend on their order only."""
    random.seed(7)
    if DJANGO_6:
        return bytes(message.message(policy=email.policy.SMTP).as_bytes())
    return bytes(message.message().as_bytes(linesep="\r\n"))


def or_error(function: Callable[[], Any]) -> Any:
    """Return what *function* does: its result, or the type of what it raises and its text."""
    try:
        return function()
    except Exception as error:  # noqa: BLE001  # whatever a backend would raise, it shall raise it again
        return type(error).__name__, str(error)[:100].partition(" object at ")[0]


def a_django_message(**changes: Any) -> EmailMessage:
    return EmailMessage("Inner", "Bödy", "a@b.example", ["c@d.example"], headers=dict(FIXED), **changes)


def a_message_of_python() -> email.message.EmailMessage:
    made = email.message.EmailMessage()
    made["Subject"] = "Ünner " + "long " * 30
    made["From"] = "a@b.example"
    made.set_content("Bödy\n")
    return made


def a_parsed_message_of_python() -> email.message.EmailMessage:
    raw = b"Subject: =?utf-8?Q?=C3=9Cn?=\n folded" + b" long" * 10 + b"\nTo: a@b.example\n\nbody\n"
    return email.message_from_bytes(raw, policy=email.policy.default)


def an_old_message_of_python() -> MIMEText:
    made = MIMEText("Bödy", "plain", "utf-8")
    made["Subject"] = "Inner " + "long " * 30
    made["X-Ünknown"] = "x"
    del made["X-Ünknown"]
    return made


def an_inline_image() -> MIMEImage:
    made = MIMEImage(b"\x89PNG" + bytes(100), "png")
    made.add_header("Content-Disposition", "inline", filename=("utf-8", "", "bild-ä.png"))
    made.add_header("Content-ID", "<img-1@inline>")
    made.add_header("X-Long", "word " * 40)
    return made


def a_multipart() -> MIMEMultipart:
    made = MIMEMultipart("related")
    made.attach(MIMEText("<p>ü</p>", "html", "utf-8"))
    made.attach(an_inline_image())
    return made


def a_part_in_eight_bits() -> MIMEBase:
    made = MIMEBase("text", "plain", charset="iso-8859-1")
    made["Content-Transfer-Encoding"] = "8bit"
    made.set_payload(b"caf\xe9".decode("ascii", "surrogateescape"))
    return made


def a_charset(body_encoding: int) -> Charset:
    made = Charset("utf-8")
    made.body_encoding = body_encoding
    return made


class Colour(StrEnum):
    RED = "red"


ATTACHMENTS: dict[str, Callable[[], Any]] = {
    "text": lambda: ("a.txt", "täxt", "text/plain"),
    "text without a type": lambda: ("a.txt", "täxt"),
    "text in bytes": lambda: ("a.csv", "ä;b".encode(), "text/csv"),
    "text that is not UTF-8": lambda: ("a.txt", b"\xff", "text/plain"),
    "bytes": lambda: ("a.pdf", b"\x00\xff%PDF", "application/pdf"),
    "bytes without a type": lambda: ("a.unknown", b"\x00"),
    "bytes without a name": lambda: (None, b"\x00", "application/x-y"),
    "text where bytes belong": lambda: ("a.json", '{"ä": 1}', "application/json"),
    "a named tuple": lambda: EmailAttachment("ä b.txt", "x", "text/plain"),
    "a mail of Django": lambda: ("a.eml", a_django_message(), "message/rfc822"),
    "a mail of Python": lambda: ("a.eml", a_message_of_python(), "message/rfc822"),
    "a mail that Python parsed": lambda: ("a.eml", a_parsed_message_of_python(), "message/rfc822"),
    "an old mail of Python": lambda: ("a.eml", an_old_message_of_python(), "message/rfc822"),
    "a mail in bytes": lambda: ("a.eml", b"Subject: x\nTo: a@b.example\n\nbody\n", "message/rfc822"),
    "a mail in text": lambda: ("a.eml", "Subject: x\n\nbody\n", "message/rfc822"),
    "a long line": lambda: ("a.txt", "x" * 2000, "text/plain"),
}
PARTS: dict[str, Callable[[], Any]] = {
    "inline image": an_inline_image,
    "multipart": a_multipart,
    "text part": lambda: MIMEText("täxt", "calendar", "utf-8"),
    "eight bits": a_part_in_eight_bits,
}
if not DJANGO_6:  # which cannot send it
    ATTACHMENTS["lazy"] = lambda: ("a.txt", lazystr("lazy"), "text/plain")
if DJANGO_6:
    PARTS["modern part"] = a_message_of_python
    PARTS["modern part, parsed"] = a_parsed_message_of_python


def with_attached(made: Any, *items: Any) -> Any:
    for item in items:
        if isinstance(item, email.message.Message):
            made.attachments.append(item)  # Django 6 warns about the old classes in attach()
        else:
            made.attach(*item)
    return made


@pytest.mark.parametrize("make", (ATTACHMENTS | PARTS).values(), ids=(ATTACHMENTS | PARTS).keys())
def test_an_attachment_is_sent_as_it_was(make: Callable[[], Any]) -> None:
    original = with_attached(an_email(), make())

    assert or_error(lambda: as_sent(through(original))) == or_error(lambda: as_sent(original))


def test_an_attached_file_is_sent_as_it_was(tmp_path: Any) -> None:
    (tmp_path / "bild.png").write_bytes(b"\x89PNG")
    original = an_email()
    original.attach_file(tmp_path / "bild.png")

    assert as_sent(through(original)) == as_sent(original)


def test_an_inline_image_keeps_its_content_id() -> None:
    original = an_email()
    cid = attach_inline_image(original, b"\x89PNG", "a.png", subtype="png")

    loaded = through(original)

    assert loaded.attachments[0]["Content-ID"] == f"<{cid}>"
    assert loaded.attachments[0].get_content_disposition() == "inline"
    assert as_sent(loaded) == as_sent(original)


MAILS: dict[str, Callable[[], Any]] = {
    "plain": an_email,
    "html": lambda: with_attributes(an_email(), content_subtype="html"),
    "empty": lambda: an_email(subject="", body=""),
    "only html": lambda: an_email(body="", alternatives=[("<p>ü</p>", "text/html")]),
    "three alternatives": lambda: an_email(
        alternatives=[
            ("<p>ü</p>", "text/html"),
            ("BEGIN:VCALENDAR", "text/calendar; method=REQUEST"),
            ("a", "text/x-y"),
        ]
    ),
    "an alternative in bytes": lambda: an_email(alternatives=[(b"\x00\xff", "application/x-y")]),
    "latin-1": lambda: with_attributes(an_email(subject="é", body="é"), encoding="iso-8859-1"),
    "quoted-printable": lambda: with_attributes(an_email(body="é"), encoding=a_charset(QP)),
    "base64": lambda: with_attributes(an_email(body="é"), encoding=a_charset(BASE64)),
    "a body that latin-1 has not": lambda: with_attributes(an_email(body="€"), encoding="iso-8859-1"),
    "all recipients": lambda: an_email(
        to=["Jürgen <j@bücher.example>", Address("Ann", "ann", "b.example")],
        cc=['"Doe, Jo" <jo@b.example>'],
        bcc=["x@y.example"],
        reply_to=["r@s.example", "Ü <u@v.example>"],
    ),
    "own headers": lambda: an_email(
        headers=FIXED | {"From": "Other <o@p.example>", "To": "list@p.example", "X-Ä": "x", "X-Long": "word " * 50}
    ),
    "odd headers": lambda: an_email(
        headers=FIXED | {"X-Number": 7, "X-Decimal": Decimal("1.50"), "X-Lazy": lazystr("é"), "X-Truth": True}
    ),
    "reply-to in the headers": lambda: an_email(headers=FIXED | {"Reply-To": "Ü <u@v.example>"}),
    "lazy strings": lambda: an_email(subject=lazystr("sübject"), body=lazystr("bödy"), to=[lazystr("a@b.example")]),
    "a long line": lambda: an_email(body="x" * 2000),
    "carriage returns": lambda: an_email(body="a\r\nb\rc\nFrom d\n.\n"),
    "a separator of lines in the subject": lambda: an_email(subject="a\u2028b"),
    "an injected header": lambda: an_email(subject="a\nBcc: x@y.example"),
}


@pytest.mark.parametrize("make", MAILS.values(), ids=MAILS.keys())
def test_a_mail_is_sent_as_it_was(make: Callable[[], Any]) -> None:
    assert or_error(lambda: as_sent(through(make()))) == or_error(lambda: as_sent(make()))
    assert through(make()).recipients() == [str(address) for address in make().recipients()]


class SignedMessage(EmailMultiAlternatives):
    """As those that sign do: a header longer than Python would leave it, which a signature may cover."""

    def message(self, **options: Any) -> Any:
        made = super().message(**options)
        made["DKIM-Signature"] = "v=1; " + "b=" + "x" * 300
        return made


class SignedBytes:
    """What some libraries return: only as_bytes is what they promise."""

    raw = b"Subject: s\r\nX-Signature: " + b"y z" * 60 + b"\r\n\r\nb\xc3\xb6dy\r\n"

    def as_bytes(self, **_options: Any) -> bytes:
        return self.raw


def test_a_message_that_builds_itself_is_carried_as_it_built_itself() -> None:
    original = SignedMessage("Hello", "Böd", "a@b.example", ["c@d.example"], headers=dict(FIXED))
    original.attach_alternative("<p>", "text/html")
    random.seed(7)
    built = original.message().as_bytes()

    random.seed(7)
    loaded = through(original)

    assert loaded.message().as_bytes() == built
    assert as_sent(loaded) == built.replace(b"\n", b"\r\n")
    assert (loaded.body, loaded.alternatives[0].content) == ("Böd", "<p>")
    assert loaded.recipients() == ["c@d.example"]


def test_the_bytes_of_a_carried_message_stay_until_somebody_changes_it() -> None:
    original = with_attributes(an_email(), message=SignedBytes)

    loaded = load(dump(original))
    message = loaded.message()

    assert message.as_bytes(linesep="\r\n") == SignedBytes.raw
    message["X-New"] = "1"
    assert b"X-New: 1" in message.as_bytes()
    assert loaded.message()["X-New"] is None


def test_a_message_with_nothing_to_carry_is_refused() -> None:
    with pytest.raises(InvalidMessage, match=r"message: .*NoneType"):
        dump(with_attributes(an_email(), message=lambda: None))


@pytest.mark.skipif(DJANGO_6, reason="Django 6 has no such attributes")
@pytest.mark.parametrize("attribute", ["mixed_subtype", "alternative_subtype"])
def test_another_kind_of_multipart_is_carried_as_it_was_built(attribute: str) -> None:
    def make() -> Any:
        made = an_email(alternatives=[("<p>", "text/html")], attachments=[("a.txt", "x", "text/plain")])
        return with_attributes(made, **{attribute: "related"})

    random.seed(7)
    loaded = load(dump(make()))

    assert as_sent(loaded) == as_sent(make())
    assert b"multipart/related" in as_sent(loaded)


def test_stamped_headers_are_the_same_each_time_and_leave_the_programs_own() -> None:
    email_ = load(a_message())
    stamp(email_, message_id="<a@b.example>", date=FIXED["Date"])
    own = load(a_message(headers={"message-id": "<own@b.example>"}))
    stamp(own, message_id="<a@b.example>", date=FIXED["Date"])

    assert email_.message().get_all("Message-ID") == ["<a@b.example>"]
    assert email_.message().get_all("Date") == [FIXED["Date"]]
    assert as_sent(email_) == as_sent(email_)
    assert own.message().get_all("Message-ID") == ["<own@b.example>"]
    assert email_.extra_headers == {}


def test_only_the_attributes_that_were_set_are_set() -> None:
    assert not hasattr(through(an_email()), "tags")
    assert through(with_attributes(an_email(), tags=[])).tags == []
    assert through(with_attributes(an_email(), tags=None)).tags is None
    assert through(with_attributes(an_email(), from_email=None)).from_email is None


ODD_VALUES = {
    "decimal": Decimal("19.90"),
    "date": date(2030, 1, 2),
    "datetime": datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "naive": datetime(2030, 1, 2, 3, 4),  # noqa: DTZ001
    "time": time(3, 4),
    "uuid": UUID(int=1),
    "lazy/~": lazystr("é"),
    "enumeration": Colour.RED,
    "nested": [{"tuple": (1, 2.5, None, True, Decimal(1))}],
}


def test_what_json_has_not_travels_as_text_and_arrives_as_it_was() -> None:
    payload = dump(with_attributes(an_email(), metadata=ODD_VALUES))

    assert payload["metadata"] == {
        "decimal": "19.90",
        "date": "2030-01-02",
        "datetime": "2030-01-02T03:04:05.000006+00:00",
        "naive": "2030-01-02T03:04:00",
        "time": "03:04:00",
        "uuid": "00000000-0000-0000-0000-000000000001",
        "lazy/~": "é",
        "enumeration": "red",
        "nested": [{"tuple": [1, 2.5, None, True, "1"]}],
    }
    loaded = load(json.loads(json.dumps(payload)))
    assert loaded.metadata == ODD_VALUES | {"nested": [{"tuple": [1, 2.5, None, True, Decimal(1)]}]}
    assert validate(payload) == payload


SEND_AT: dict[str, tuple[Any, Any]] = {
    "datetime": (datetime(2030, 1, 2, 3, tzinfo=UTC), datetime(2030, 1, 2, 3, tzinfo=UTC)),
    # America/Chicago is six hours behind in winter
    "naive": (datetime(2030, 1, 2, 3), datetime(2030, 1, 2, 9, tzinfo=UTC)),  # noqa: DTZ001
    "date": (date(2030, 1, 2), datetime(2030, 1, 2, 6, tzinfo=UTC)),
    "timestamp": (1893456000, datetime(2030, 1, 1, tzinfo=UTC)),
    "text": ("Tue, 01 Jan 2030 00:00:00 GMT", "Tue, 01 Jan 2030 00:00:00 GMT"),
    "lazy text": (lazystr("2030-01-01"), "2030-01-01"),
}


@pytest.mark.parametrize(("value", "loaded"), SEND_AT.values(), ids=SEND_AT.keys())
def test_send_at_means_what_it_meant_in_the_program(value: Any, loaded: Any) -> None:
    assert through(with_attributes(an_email(), send_at=value)).send_at == loaded


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an object": ({"metadata": {"a": [object()]}}, 'metadata["a"][0]'),
    "bytes": ({"esp_extra": {"a": b"x"}}, 'esp_extra["a"]'),
    "a set": ({"merge_global_data": {"a": {1}}}, 'merge_global_data["a"]'),
    "NaN": ({"merge_data": {"a@b.example": {"x": float("nan")}}}, 'merge_data["a@b.example"]["x"]'),
    "a tuple as a name": ({"metadata": {(1, 2): 3}}, 'metadata["(1, 2)"]'),
    "metadata a list": ({"metadata": ["x"]}, "metadata"),
    "a header in bytes": ({"extra_headers": {"X": b"x"}}, 'headers["X"]'),
    "no headers": ({"extra_headers": [("X", "y")]}, "headers"),
    "a string of recipients": ({"to": "a@b.example"}, "to"),
    "None as recipient": ({"to": [None]}, "to[0]"),
    "half a surrogate pair": ({"body": "\udc80"}, "body"),
    "half a surrogate pair, attached": ({"attachments": [("a.txt", "\udc80", "text/plain")]}, "attachments[0].content"),
    "a body in bytes": ({"body": b"\xff"}, "body"),
    "an attachment that is a file": ({"attachments": [("a.txt", BytesIO(), "text/plain")]}, "attachments[0].content"),
    "an attachment that is a string": ({"attachments": ["a.txt"]}, "attachments[0]"),
    "an attachment without a real type": ({"attachments": [("a", b"x", "pdf")]}, "attachments[0].mimetype"),
    "an alternative of three": ({"alternatives": [("a", "b/c", "d")]}, "alternatives[0]"),
    "an encoding of one's own": ({"encoding": type("Own", (Charset,), {})("utf-8")}, "encoding"),
    "an unknown encoding": ({"encoding": "utf-9"}, "encoding"),
    "a flag with three values": ({"track_opens": "html"}, "track_opens"),
    "a time that is none": ({"send_at": [2030]}, "send_at"),
    "other recipients": ({"recipients": lambda: ["x@y.example"]}, "recipients"),
    "tags in one string": ({"tags": "abc"}, "tags"),
}


@pytest.mark.parametrize(("attributes", "field"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_carried_is_refused_by_name(attributes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidMessage) as refused:
        dump(with_attributes(an_email(), **attributes))

    assert refused.value.field == field


def test_an_object_that_contains_itself_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["endless"] = endless

    with pytest.raises(InvalidMessage, match="esp_extra"):
        dump(with_attributes(an_email(), esp_extra=endless))


def test_attributes_of_other_libraries_are_left_behind() -> None:
    assert dump(with_attributes(an_email(), mail_service={"id": "1"}, anymail_status=1)) == dump(an_email())


def test_the_programs_own_charset_is_carried() -> None:
    with override_settings(DEFAULT_CHARSET="iso-8859-1"):
        original = as_sent(an_email(body="é"))
        payload = dump(an_email(body="é"))

    assert as_sent(load(payload)) == original


def test_load_takes_a_message_as_it_is_handed_in() -> None:
    attachments = [{"filename": "a.txt", "content": in_base64(b"x")}, {"filename": "b", "content": in_base64(b"y")}]

    loaded = load(a_message(to="a@b.example", html="<p>", attachments=attachments, send_at="2030-01-01T00:00:00Z"))

    assert loaded.to == ["a@b.example"]
    assert loaded.alternatives[0].mimetype == "text/html"
    assert loaded.attachments == [("a.txt", "x", "text/plain"), ("b", b"y", "application/octet-stream")]
    assert loaded.send_at == datetime(2030, 1, 1, tzinfo=UTC)


def test_load_sets_the_connection() -> None:
    connection = object()

    loaded = load(a_message(), connection)

    assert vars(loaded)["_connection" if DJANGO_6 else "connection"] is connection


def test_load_refuses_what_it_does_not_know() -> None:
    with pytest.raises(InvalidMessage, match="field_of_tomorrow"):
        load(a_message(field_of_tomorrow=1))


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
lines = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=30)
addresses = st.sampled_from(
    ["a@b.example", "Ann <ann@example.org>", "Jürgen <j@bücher.example>", '"A, B" <c@d.example>']
)
scalars = st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False) | st.dates() | words
objects = st.dictionaries(words, scalars | st.lists(scalars, max_size=2), max_size=3)
by_recipient = st.dictionaries(st.sampled_from(["a@b.example", "ann@example.org"]), objects, max_size=2)
moments = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001  # hypothesis adds the zone
    max_value=datetime(2040, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-8))]),
)
header_names = st.sampled_from(["X-One", "X-Two", "Reply-To", "From", "List-Id"])
attributes = st.fixed_dictionaries(
    {},
    optional={
        "envelope_sender": addresses,
        "metadata": st.dictionaries(lines, words | st.integers(), max_size=3),
        "merge_metadata": by_recipient,
        "tags": st.lists(lines, max_size=2),
        "track_opens": st.booleans(),
        "track_clicks": st.booleans(),
        "send_at": moments | st.dates(date(2000, 1, 1), date(2040, 1, 1)) | st.integers(0, 2**31) | lines,
        "template_id": lines | st.integers(),
        "merge_data": by_recipient,
        "merge_global_data": objects,
        "merge_headers": st.dictionaries(
            st.sampled_from(["a@b.example"]), st.dictionaries(header_names, lines, max_size=2), max_size=1
        ),
        "esp_extra": st.dictionaries(st.sampled_from(["x", "y"]), objects | scalars, max_size=2),
        "encoding": st.sampled_from([None, "utf-8", "iso-8859-1"]),
        "content_subtype": st.sampled_from(["plain", "html"]),
    },
)
some_emails = st.builds(
    lambda fields, headers, attributes, attachments: with_attached(
        with_attributes(an_email(**fields, headers=FIXED | headers), **attributes),
        *(make() for make in attachments),
    ),
    st.fixed_dictionaries(
        {
            "subject": lines,
            "body": words,
            "to": st.lists(addresses, max_size=3),
            "alternatives": st.lists(
                st.tuples(words, st.sampled_from(["text/html", "text/plain", "text/x-y"])), max_size=2
            ),
        },
        optional={
            "cc": st.lists(addresses, max_size=2),
            "bcc": st.lists(addresses, max_size=2),
            "reply_to": st.lists(addresses, max_size=2),
        },
    ),
    st.dictionaries(header_names, lines | st.integers(), max_size=2),
    attributes,
    st.lists(st.sampled_from([*ATTACHMENTS.values(), *PARTS.values()]), max_size=2),
)
quick = settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("make", (ATTACHMENTS | PARTS).values(), ids=(ATTACHMENTS | PARTS).keys())
def test_an_attachment_is_the_same_to_an_api(make: Callable[[], Any]) -> None:
    original = with_attached(an_email(), make())

    assert described(through(original).attachments) == described(original.attachments)


def described(attachments: list[Any]) -> Any:
    return or_error(lambda: [vars(Attachment(item)) | {"_attachment": None} for item in attachments])


@quick
@given(some_emails)
def test_any_mail_is_sent_as_it_was(original: Any) -> None:
    assert or_error(lambda: as_sent(through(original))) == or_error(lambda: as_sent(original))


BACKENDS: dict[str, dict[str, Any]] = {
    "amazon_ses": {},
    "brevo": {"api_key": "k"},
    "mailersend": {"api_token": "k"},
    "mailgun": {"api_key": "k", "sender_domain": "b.example"},
    "mailjet": {"api_key": "k", "secret_key": "s"},
    "mailtrap": {"api_token": "k"},
    "mandrill": {"api_key": "k"},
    "postal": {"api_key": "k", "api_url": "https://postal.example/"},
    "postmark": {"server_token": "k"},
    "resend": {"api_key": "k"},
    "scaleway": {"secret_key": "k", "project_id": "p"},
    "sendgrid": {"api_key": "k", "generate_message_id": False},
    "sparkpost": {"api_key": "k"},
    "unisender_go": {"api_key": "k", "api_url": "https://unisender.example/", "generate_message_id": False},
}


@cache
def a_backend(name: str) -> Any:
    return import_module(f"anymail.backends.{name}").EmailBackend(ignore_unsupported_features=True, **BACKENDS[name])


def as_requested(backend: Any, message: Any) -> str:
    """Return the request that Anymail would make of the message. Headers are in a dict without a useful repr."""
    random.seed(7)
    payload = backend.build_message_payload(message, backend.send_defaults)
    if backend.esp_name == "Amazon SES":  # through boto, which makes the request
        payload.finalize_payload()
        return repr(payload.params)
    return repr(payload.get_request_params("https://api.example/"))


@pytest.mark.parametrize("name", BACKENDS)
def test_an_api_is_asked_for_the_same_mail(name: str) -> None:
    backend = a_backend(name)
    original = with_attributes(
        MAILS["all recipients"](),
        tags=["a"],
        metadata={"price": "1", "n": 2},
        send_at=datetime(2030, 1, 2, 3),  # noqa: DTZ001
        merge_data={"j@bücher.example": {"name": "J"}},
        track_opens=False,
    )
    with_attached(original, ATTACHMENTS["text"](), ATTACHMENTS["bytes"](), an_inline_image())

    asked = or_error(lambda: as_requested(backend, original))

    assert or_error(lambda: as_requested(backend, through(original))) == asked


@settings(quick, max_examples=examples(15))  # times fourteen backends, twice
@given(original=some_emails)
def test_any_api_is_asked_for_the_same_mail(original: Any) -> None:
    loaded = through(original)

    for backend in map(a_backend, BACKENDS):
        assert or_error(partial(as_requested, backend, loaded)) == or_error(partial(as_requested, backend, original))


@quick
@given(some_emails.filter(lambda email: email.recipients()))
def test_what_dump_makes_is_either_refused_with_a_place_or_canonical(original: Any) -> None:
    payload = dump(original)

    with suppress(InvalidMessage):
        assert validate(payload) == payload


@quick
@given(some_emails)
def test_a_mail_that_is_handed_in_is_dumped_and_checked_in_one_step_as_in_two(original: Any) -> None:
    def in_two_steps() -> dict[str, Any]:
        payload = dump(original)
        validate(payload, default_from="a@b.example")
        return payload

    def in_one() -> dict[str, Any]:
        checked = checked_dump(original, default_from="a@b.example", max_size=25_000_000)
        assert json.loads(checked.text) == checked.message
        return dict(checked.message)

    assert or_error(in_one) == or_error(in_two_steps)


def test_a_mail_that_is_handed_in_may_be_too_large() -> None:
    checked = checked_dump(an_email(body="ж" * 1000), default_from="a@b.example", max_size=25_000_000)
    size = len(checked.text.encode())

    assert checked_dump(an_email(body="ж" * 1000), default_from="a@b.example", max_size=size).text == checked.text
    with pytest.raises(InvalidMessage, match=f"takes {size:,} bytes"):
        checked_dump(an_email(body="ж" * 1000), default_from="a@b.example", max_size=size - 1)


#: as this service's first version wrote it; what waits in a queue or an outbox may be as old
YESTERDAY = """{"subject":"Gr\\u00fc\\u00dfe","body":"Text","from_email":"a@b.example","to":["Ann <c@d.example>"],
"bcc":["e@f.example"],"headers":{"X-N":"5","X-A":"1"},"encoding":"iso-8859-1","attachments":[{"filename":"a.txt",
"content":"w6Q=","mimetype":"text/plain"},{"filename":"b","content":"/w==","mimetype":"application/octet-stream"},
{"mime":"Q29udGVudC1UeXBlOiBpbWFnZS9wbmcKQ29udGVudC1JRDogPGk+CgppVkJP"}],"alternatives":[{"content":"<p>",
"mimetype":"text/html"},{"content":"AAE=","mimetype":"application/x-a"}],"metadata":{"price":"19.90","day":
"2030-01-02"},"tags":["a"],"track_opens":false,"send_at":"2030-01-02T03:04:05+00:00","template_id":7,"esp_extra":{"a":[
null,1.5]},"merge_data":{},"types":{"/headers/X-N":"integer","/metadata/price":"decimal","/metadata/day":"date",
"/alternatives/1/content":"base64"}}"""


def test_what_was_dumped_yesterday_is_loaded_today() -> None:
    loaded: Any = load(json.loads(YESTERDAY))

    assert (loaded.subject, loaded.to, loaded.bcc) == ("Grüße", ["Ann <c@d.example>"], ["e@f.example"])
    assert list(loaded.extra_headers.items()) == [("X-N", 5), ("X-A", "1")]
    assert [tuple(item) for item in loaded.attachments[:2]] == [
        ("a.txt", "ä", "text/plain"),
        ("b", b"\xff", "application/octet-stream"),
    ]
    assert loaded.attachments[2]["Content-ID"] == "<i>"
    assert [tuple(item) for item in loaded.alternatives] == [("<p>", "text/html"), (b"\x00\x01", "application/x-a")]
    assert loaded.metadata == {"price": Decimal("19.90"), "day": date(2030, 1, 2)}
    assert (loaded.tags, loaded.track_opens, loaded.template_id, loaded.merge_data) == (["a"], False, 7, {})
    assert (loaded.send_at, loaded.esp_extra) == (datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC), {"a": [None, 1.5]})
    assert loaded.encoding == "iso-8859-1"


def test_a_carried_message_is_its_bytes_in_base64() -> None:
    payload = dump(with_attributes(an_email(), message=SignedBytes))

    assert b64decode(payload["mime"]) == SignedBytes.raw
    assert validate(payload) == payload
