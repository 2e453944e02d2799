"""Mails that are composed without the email package are byte for byte those that Django builds."""

from __future__ import annotations

import email
import email.policy
import re
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from mail_service import message
from mail_service.errors import InvalidMessage
from mail_service.mailers import compose as composing
from mail_service.mailers import dialect
from mail_service.mailers.compose import compose
from mail_service.mailers.content import has_lone_line_ends, mime_bytes

MESSAGE_ID = "<6d8749383ee845cd9e7bee61f2087f16@example.org>"
DATE = "Sun, 22 Nov 2026 04:11:59 +0000"
BOUNDARY = re.compile(rb"={15}\d{19}==")
#: smallest PNG there is
PIXEL = b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
INLINE = (
    b"Content-Type: image/png\nMIME-Version: 1.0\nContent-Transfer-Encoding: base64\nContent-ID: <logo@example.org>\n"
    b'Content-Disposition: inline; filename="logo.png"\n\n' + PIXEL + b"\n"
)


def b64(content: bytes) -> str:
    return b64encode(content).decode("ascii")


def a_mail(**fields: Any) -> dict[str, Any]:
    """The canonical form, as a worker has it."""
    usual = {"subject": "Order 17", "body": "Thank you.\n", "from_email": "shop@example.org", "to": ["ann@example.org"]}
    return message.validate(usual | fields)


def djangos(canonical: dict[str, Any]) -> bytes:
    loaded = message.load(canonical)
    message.stamp(loaded, message_id=MESSAGE_ID, date=DATE)
    return mime_bytes(loaded)


def ours(canonical: dict[str, Any]) -> bytes | None:
    pieces = compose(canonical, message_id=MESSAGE_ID, date=DATE)
    return None if pieces is None else b"".join(pieces)


def comparable(content: bytes) -> bytes:
    """With numbers for boundaries, in the order of their first appearance: those are of everybody's own choice."""
    names = {name: b"boundary %d" % index for index, name in enumerate(dict.fromkeys(BOUNDARY.findall(content)))}
    return BOUNDARY.sub(lambda found: names[found[0]], content)


ASCII = st.text(st.sampled_from("aB1 .,;:-_<>()\"'=?!@/\t"), max_size=120)
#: without what no header may hold: line ends of any kind, control characters, halves of pairs
UNICODE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=90)
LINES = st.one_of(ASCII, UNICODE, st.sampled_from(["", "Order 17", "Grüße aus Köln", "=?utf-8?q?x?=", "x" * 200]))
TEXTS = st.one_of(
    st.text(st.sampled_from("ab.é \t=\r\n\x0b\x0c\x85\u2028-"), max_size=200),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    st.builds(str.__mul__, st.sampled_from(["x", "é", "a b ", "<p>ü</p>", "=\n", "x\n"]), st.integers(0, 1100)),
    st.sampled_from(
        ["", ".", "..\r\n.\n", "From me\nFrom you\n", "--===============0000000000000000000==\n", "a\n\n\n"]
    ),
)
MAILBOXES = st.sampled_from([
    "a@example.org", "Ann <ann@example.org>", "Ann Bee <a.b+c@mail.example.org>", '"Bee, Ann" <ann@example.org>',
    "Änne <a@example.org>", "Ann Bée <a@example.org>", "a@bücher.example", "Ä B <a@bücher.example>", "root@localhost",
    f"{'Long ' * 12}<{'l' * 40}@example.org>", "A1 2b <x_y-z@example.org>", "Dr. No <no@example.org>",
    '"a b"@example.org', "a@[127.0.0.1]", "Ann (comment) <a@example.org>", "ann@EXAMPLE.org", "'Q' <q@example.org>",
])  # fmt: skip
HEADERS = st.dictionaries(
    st.sampled_from([
        "X-Foo", "x-foo", "List-Unsubscribe", "From", "To", "Cc", "Reply-To", "reply-to", "Date", "date", "Message-ID",
        "Sender", "References", "In-Reply-To", "Importance", "Subject", "Content-Language", "Resent-To", "Return-Path",
        "MIME-Version", "Comments",
    ]),
    st.one_of(LINES, MAILBOXES, st.sampled_from([
        "<a@example.org>", "<https://example.org/u?x=1>, <mailto:u@example.org>", "Sun, 22 Nov 2026 10:00:00 +0100",
        "Mon, 1 Jan 2026 10:00:00 GMT", "high",
    ])),
    max_size=3,
)  # fmt: skip
ALTERNATIVES = st.fixed_dictionaries(
    {
        "content": TEXTS,
        "mimetype": st.sampled_from(
            ["text/html", "text/html", "text/x-amp-html", "text/calendar; method=REQUEST", "text/plain", "TEXT/HTML"]
        ),
    }
)
FILENAMES = st.one_of(
    st.none(),
    st.sampled_from(
        ["a.pdf", "invoice-2026_17.pdf", "Größe.pdf", "with space.pdf", 'quo"te.pdf', "x" * 90, "f", "a;b"]
    ),
)
FILES = st.one_of(
    st.builds(
        lambda filename, content, mimetype: {"filename": filename, "content": b64(content), "mimetype": mimetype},
        FILENAMES,
        st.binary(max_size=200),
        st.sampled_from(["application/pdf", "image/png", "audio/x-wav", "application/vnd.ms-excel", "message/rfc822"]),
    ),
    st.builds(
        lambda filename, content, mimetype: {"filename": filename, "content": b64(content), "mimetype": mimetype},
        FILENAMES,
        TEXTS.map(str.encode),
        st.sampled_from(["text/csv", "text/plain", "text/calendar; method=CANCEL", "text/html; charset=latin-1"]),
    ),
    st.sampled_from([
        INLINE, INLINE.replace(b"\n", b"\r\n"), b"Content-Type: text/plain\n\nabc", b"Content-Type: text/plain\n\n",
        b"Content-Type: image/png\nContent-ID: <" + b"x" * 100 + b">\n\nAAAA\n", b"X-Only: this\n\n.dot\rlone\n",
        b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGr\xc3\xbc\xc3\x9fe\n",
        b'Content-Type: multipart/related; boundary="b"\n\n--b\nContent-Type: text/html\n\n<p>\n--b--\n',
        b"Content-Type: message/rfc822\n\nSubject: inner\n\ninner\n",
    ]).map(lambda raw: {"mime": b64(raw)}),
)  # fmt: skip
MAILS = st.fixed_dictionaries(
    {"subject": LINES, "body": TEXTS, "from_email": MAILBOXES, "to": st.lists(MAILBOXES, max_size=4)},
    optional={
        "cc": st.lists(MAILBOXES, max_size=2),
        "bcc": st.lists(MAILBOXES, min_size=1, max_size=1),
        "reply_to": st.lists(MAILBOXES, max_size=2),
        "headers": HEADERS,
        "alternatives": st.lists(ALTERNATIVES, max_size=2),
        "attachments": st.lists(FILES, max_size=3),
        "content_subtype": st.sampled_from(["plain", "html", "x-markdown"]),
        "encoding": st.sampled_from(["utf-8", "iso-8859-1"]),
    },
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(MAILS)
def test_what_is_composed_is_what_django_builds(mail: dict[str, Any]) -> None:
    try:
        canonical = message.validate(mail)
    except InvalidMessage:
        reject()

    composed = ours(canonical)

    if composed is not None:
        assert comparable(composed) == comparable(djangos(canonical))
        assert not has_lone_line_ends(composed)


@pytest.mark.parametrize(
    "mail",
    [
        a_mail(),
        a_mail(body=""),
        a_mail(body="Grüße\r\n.\r\n"),
        a_mail(body="x" * 2000),
        a_mail(content_subtype="html"),
        a_mail(html="<p>Thank you.</p>"),
        a_mail(html="<p>Danke für alles.</p>" * 100),
        a_mail(body="", html="<p>Thank you.</p>"),
        a_mail(subject="Grüße aus Köln", from_email="Jürgen <j@example.org>", to=["Ann <a@bücher.example>"]),
        a_mail(subject="An order with a long subject that goes on and on and on until it has to be folded at last"),
        a_mail(subject=""),
        a_mail(to=[f"recipient-{number}@example.org" for number in range(30)]),
        a_mail(to=[], bcc=["a@example.org"]),
        a_mail(cc=["Bee <b@example.org>"], reply_to=["help@example.org"]),
        a_mail(headers={"Message-ID": "<own@example.org>", "Date": "Sun, 22 Nov 2026 10:00:00 +0100"}),
        a_mail(headers={"From": "Other <o@example.org>", "To": "undisclosed", "List-Unsubscribe": "<https://e.org/u>"}),
        a_mail(headers={"References": "<1@example.org> <2@example.org>", "In-Reply-To": "<2@example.org>"}),
        a_mail(html="<p>x</p>", attachments=[{"filename": "a.pdf", "content": b64(bytes(5000))}]),
        a_mail(body="", attachments=[{"filename": "a.pdf", "content": b64(b"x")}]),
        a_mail(attachments=[{"content": "", "mimetype": "application/pdf"}]),
        a_mail(attachments=[{"filename": "Größe des Anhangs.pdf", "content": b64(b"x" * 57)}]),
        a_mail(attachments=[{"filename": "a.csv", "content": b64("a;b\né;ü".encode())}]),
        a_mail(alternatives=[{"content": "BEGIN:VCALENDAR\r\n", "mimetype": "text/calendar; method=REQUEST"}]),
        a_mail(html='<img src="cid:logo@example.org">', attachments=[{"mime": b64(INLINE)}]),
        a_mail(attachments=[{"filename": "big.bin", "content": b64(bytes(range(256)) * 4000)}]),
    ],
    ids=lambda mail: " ".join(f"{name}={value!r}"[:30] for name, value in mail.items() if name != "from_email"),
)
def test_the_usual_mails_are_composed(mail: dict[str, Any]) -> None:
    """Else the first property would also hold for a function that always gives up."""
    composed = ours(mail)

    assert composed is not None
    assert comparable(composed) == comparable(djangos(mail))


@pytest.mark.parametrize(
    "mail",
    [
        a_mail(mime=b64(b"Subject: mine\n\nbody")),
        a_mail(encoding="iso-8859-1"),
        a_mail(subject=None, types={"/subject": "none"}),
        a_mail(headers={"X-Count": "3"}, types={"/headers/X-Count": "integer"}),
        a_mail(headers={"Subject": "another"}),
        a_mail(headers={"X-Foo": "1", "x-foo": "2"}),
        a_mail(headers={"Content-Language": "de"}),
        a_mail(attachments=[{"filename": "a.eml", "content": b64(b"Subject: x\n\ny"), "mimetype": "message/rfc822"}]),
        a_mail(attachments=[{"mime": b64(b'Content-Type: multipart/mixed; boundary="b"\n\n--b\n\nx\n--b--\n')}]),
        a_mail(alternatives=[{"content": "x", "mimetype": "application/json"}]),
    ],
    ids=lambda mail: " ".join(f"{name}={value!r}"[:40] for name, value in list(mail.items())[4:]),
)
def test_unusual_mails_are_left_to_the_email_package(mail: dict[str, Any]) -> None:
    assert ours(mail) is None


def test_every_attempt_sends_the_same_bytes() -> None:
    mail = a_mail(html="<p>x</p>", attachments=[{"filename": "a.pdf", "content": b64(b"x")}])

    assert ours(mail) == ours(mail)


def test_a_boundary_that_stands_in_the_mail_is_not_taken() -> None:
    """The boundaries follow from the Message-ID, so that whoever knows it could try to smuggle a part in."""
    mail = a_mail(html="<p>x</p>", attachments=[{"filename": "a.pdf", "content": b64(b"x")}])
    taken = set(BOUNDARY.findall(ours(mail) or b""))
    for place in ({"body": "--{}--\n"}, {"html": "\n--{}\nContent-Type: text/html\n\nforged"}):
        ((name, text),) = place.items()
        for boundary in taken:
            forged = a_mail(
                **mail | {"alternatives": []} | {"html": "<p>x</p>"} | {name: text.format(boundary.decode())}
            )

            composed = ours(forged)

            assert composed is not None
            parsed = email.message_from_bytes(composed, policy=email.policy.default)
            types = [part.get_content_type() for part in parsed.walk()]
            assert types == ["multipart/mixed", "multipart/alternative", "text/plain", "text/html", "application/pdf"]


def test_large_attachments_are_in_pieces_that_end_with_a_line() -> None:
    pieces = compose(
        a_mail(attachments=[{"filename": "a.bin", "content": b64(bytes(2_000_000))}]), message_id=MESSAGE_ID, date=DATE
    )

    assert pieces is not None
    assert len(pieces) > 5
    assert all(piece.endswith(b"\r\n") for piece in pieces)


def test_on_a_version_that_writes_mails_in_another_way_nothing_is_composed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    composing._is_proven.cache_clear()
    monkeypatch.setattr(dialect, "text", lambda content: dialect.Text("7bit", content.encode() + b"changed"))
    try:
        assert ours(a_mail()) is None
    finally:
        composing._is_proven.cache_clear()

    assert "email package" in caplog.text
