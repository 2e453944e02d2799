"""
Whatever stands in a field stays in it: no further header, recipient, part, command or mail comes of it.

Every field of a message times the values that have done such a thing somewhere: either the message is refused by the
name of the field, or a real SMTP server gets the one mail that is meant (RFC 5321, 4.1.2 and 4.5.2; RFC 5322, 2.2 and
3.4).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from email import message_from_bytes
from email.message import Message
from typing import Any

import pytest
from django.core.mail.message import BadHeaderError

from mail_service.errors import InvalidMessage
from mail_service.local.smtp_server import SmtpServer
from mail_service.mailers.content import envelope_address, has_lone_line_ends, mime_bytes
from mail_service.mailers.smtp import SmtpMailer
from mail_service.message import dump, load, recipients, stamp, validate
from mail_service.message.fields import FIELDS
from mail_service.outcome import Kind
from tests.support.messages import a_message, in_base64

from .building import MESSAGE_ID, smtp_settings

DATE = "Sun, 22 Nov 2026 10:00:00 +0000"
HEADER = "X-Evil: 1"

#: what a line break may look like to somebody on the way; the last ones are breaks for Python's ``str.splitlines``
BREAKS = {
    "CR LF": "\r\n",
    "LF": "\n",
    "CR": "\r",
    "folded": "\r\n ",
    "NUL": "\0",
    "VT": "\x0b",
    "FF": "\x0c",
    "FS": "\x1c",
    "GS": "\x1d",
    "RS": "\x1e",
    "NEL": "\x85",
    "LS": "\u2028",
    "PS": "\u2029",
}
EVIL = {
    **{name: f"a{text}{HEADER}{text}Bcc: eve@example.org" for name, text in BREAKS.items()},
    "end of the header": f"a\r\n\r\n{HEADER}",
    "end of the mail": "a\r\n.\r\nMAIL FROM:<eve@example.org>\r\nRCPT TO:<eve@example.org>\r\nDATA\r\n",
    "end of the mail for some": "a\n.\nMAIL FROM:<eve@example.org>\r.\rRCPT TO:<eve@example.org>",
    "an encoded word": "=?utf-8?q?a=0D=0AX-Evil=3A_1?=",
    "an encoded word in base64": "=?utf-8?b?DQpYLUV2aWw6IDENCg==?=",
    "encoded words in a row": "=?utf-8?q?=0D?= =?utf-8?q?=0AX-Evil=3A_1?=",
    "an encoded word that parsers disagree about": "=?x?q?y =?utf-8?q?=0D=0AX-Evil=3A_1?=",
    "an encoded word in one": "=?utf-8?q?=3D=3Futf-8=3Fq=3F=0D=0AX-Evil:1=3F=3D?=",
    "an encoded word of UTF-7": "=?utf-7?q?a+AA0ACg-X-Evil:1?=",
    "percent": "a%0D%0AX-Evil%3A%201%0D%0A",
    "quotes": 'a"; X-Evil=1; "',
    "a backslash": "a\\\r\nX-Evil: 1",
    "angle brackets": "a> SIZE=1 AUTH=<eve@example.org",
    "more recipients": "a, eve@example.org",
    "a group": "a: eve@example.org;",
    "a comment": "a(\r\nX-Evil: 1)",
    "another form of ASCII": "a\u560d\u560aX-Evil\u563a 1",
    "a boundary": "a\r\n--===============1==\r\nX-Evil: 1\r\n",
    "half a character": "a\ud800",
    "a parameter": "a; charset=x; name*0=y",
}
#: in front of what has the form of an address
ADDRESSES: dict[str, Callable[[str], str]] = {
    "bare": lambda evil: evil,
    "before the @": lambda evil: f"{evil}@example.org",
    "quoted before the @": lambda evil: f'"{evil}"@example.org',
    "after the @": lambda evil: f"ann@{evil}",
    "a domain literal": lambda evil: f"ann@[{evil}]",
    "name": lambda evil: f"{evil} <ann@example.org>",
    "quoted name": lambda evil: f'"{evil}" <ann@example.org>',
    "comment": lambda evil: f"ann@example.org ({evil})",
    "after it": lambda evil: f"<ann@example.org>{evil}",
}
PART = b"Content-Type: text/plain\nContent-Disposition: attachment; filename=a.txt\n\n"


def _whole(evil: str) -> str:
    head = b"From: a@example.org\nTo: ann@example.org\nSubject: whole\n\n"
    return in_base64(head + evil.encode("utf-8", "replace"))


def _addressed(field: str) -> dict[str, Callable[[str], dict[str, Any]]]:
    return {
        f"{field}, {name}": lambda evil, make=make: a_message(**{field: make(evil)})  # type: ignore[misc]
        for name, make in ADDRESSES.items()
    }


#: field, and where in it the value stands
PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "subject": lambda evil: a_message(subject=evil),
    "body": lambda evil: a_message(body=evil),
    **_addressed("from_email"),
    **_addressed("to"),
    **_addressed("cc"),
    **_addressed("bcc"),
    **_addressed("reply_to"),
    **_addressed("envelope_sender"),
    "headers, value": lambda evil: a_message(headers={"X-A": evil}),
    "headers, name": lambda evil: a_message(headers={evil: "x"}),
    "headers, name and colon": lambda evil: a_message(headers={f"X-A: b{evil}": "x"}),
    "headers, Sender": lambda evil: a_message(headers={"Sender": f"{evil} <ann@example.org>"}),
    "headers, Reply-To": lambda evil: a_message(headers={"Reply-To": f"é <ann@example.org>, {evil}"}),
    "headers, To": lambda evil: a_message(headers={"To": evil}),
    "headers, From": lambda evil: a_message(headers={"From": evil}),
    "headers, Message-ID": lambda evil: a_message(headers={"Message-ID": f"<{evil}@example.org>"}),
    "headers, Date": lambda evil: a_message(headers={"Date": evil}),
    "headers, References": lambda evil: a_message(headers={"References": evil}),
    "html": lambda evil: a_message(html=evil),
    "alternatives, content": lambda evil: a_message(alternatives=[{"content": evil, "mimetype": "text/html"}]),
    "alternatives, mimetype": lambda evil: a_message(alternatives=[{"content": "x", "mimetype": f"text/{evil}"}]),
    "alternatives, parameter": lambda evil: a_message(alternatives=[{"content": "x", "mimetype": f"text/x; a={evil}"}]),
    "alternatives, encoded parameter": lambda evil: a_message(
        alternatives=[{"content": "x", "mimetype": f"text/x; a*=utf-8''{evil}"}]
    ),
    "attachments, encoded parameter": lambda evil: a_message(
        attachments=[{"content": "QUJD", "mimetype": f"a/b; name*0*=utf-8''{evil}"}]
    ),
    "content_subtype, encoded parameter": lambda evil: a_message(content_subtype=f"plain; a*=utf-8''{evil}"),
    "headers, Content-Disposition": lambda evil: a_message(
        headers={"Content-Disposition": f"inline; filename*=utf-8''{evil}"}
    ),
    "headers, Content-Language": lambda evil: a_message(headers={"Content-Language": evil}),
    "content_subtype": lambda evil: a_message(content_subtype=evil),
    "content_subtype, parameter": lambda evil: a_message(content_subtype=f"plain; a={evil}"),
    "encoding": lambda evil: a_message(encoding=evil),
    "encoding, in the middle": lambda evil: a_message(encoding=f"utf{evil[1:2]}8"),
    "encoding, at its end": lambda evil: a_message(encoding=f"utf-8{evil[1:3]}"),
    "types, of an encoding": lambda evil: a_message(
        encoding="utf-8",
        types={
            "/encoding": {
                "header_encoding": None,
                "body_encoding": None,
                "output_charset": f"utf-8{evil[1:3]}",
                "input_codec": "utf-8",
                "output_codec": "utf-8",
            }
        },
    ),
    "types, of a header": lambda evil: a_message(headers={"X-A": evil}, types={"/headers/X-A": "decimal"}),
    "types, name": lambda evil: a_message(types={evil: "decimal"}),
    "attachments, filename": lambda evil: a_message(attachments=[{"filename": evil, "content": "QUJD"}]),
    "attachments, filename of a text": lambda evil: a_message(
        attachments=[{"filename": f"{evil}.txt", "content": "QUJD", "mimetype": "text/plain"}]
    ),
    "attachments, content": lambda evil: a_message(
        attachments=[{"filename": "a.txt", "content": in_base64(evil.encode("utf-8", "replace"))}]
    ),
    "attachments, content not base64": lambda evil: a_message(attachments=[{"content": evil}]),
    "attachments, mimetype": lambda evil: a_message(attachments=[{"content": "QUJD", "mimetype": f"a/{evil}"}]),
    "attachments, parameter": lambda evil: a_message(attachments=[{"content": "QUJD", "mimetype": f"a/b; c={evil}"}]),
    "attachments, mime": lambda evil: a_message(
        attachments=[{"mime": in_base64(PART + evil.encode("utf-8", "replace"))}]
    ),
    "mime": lambda evil: a_message(mime=_whole(evil)),
    "metadata, name": lambda evil: a_message(metadata={evil: "x"}),
    "metadata, value": lambda evil: a_message(metadata={"a": evil}),
    "merge_metadata, address": lambda evil: a_message(merge_metadata={evil: {"a": "b"}}),
    "merge_metadata, name": lambda evil: a_message(merge_metadata={"ann@example.org": {evil: "b"}}),
    "tags": lambda evil: a_message(tags=[evil]),
    "track_opens": lambda evil: a_message(track_opens=evil),
    "track_clicks": lambda evil: a_message(track_clicks=evil),
    "send_at": lambda evil: a_message(send_at=evil),
    "send_at, its T": lambda evil: a_message(send_at=f"2020-01-01{evil[1:2]}00:00:00"),
    "template_id": lambda evil: a_message(template_id=evil),
    "merge_data": lambda evil: a_message(merge_data={"ann@example.org": {evil: evil}}),
    "merge_global_data": lambda evil: a_message(merge_global_data={evil: evil}),
    "merge_headers, address": lambda evil: a_message(merge_headers={evil: {"X-A": "x"}}),
    "merge_headers, name": lambda evil: a_message(merge_headers={"ann@example.org": {evil: "x"}}),
    "merge_headers, value": lambda evil: a_message(merge_headers={"ann@example.org": {"X-A": evil}}),
    "esp_extra": lambda evil: a_message(esp_extra={evil: evil}),
}
#: of fields that carry content; everywhere else a line break is refused
CONTENT = {"body", "html", "alternatives, content", "attachments, content", "attachments, mime", "mime"}
#: of fields whose values go to an ESP as JSON and nowhere else
DATA = {"metadata, value", "merge_data", "merge_global_data", "esp_extra"}


def test_every_field_is_looked_at() -> None:
    assert {place.partition(",")[0] for place in PLACES} == FIELDS.keys()


@pytest.fixture
def mailer(smtp_server: SmtpServer) -> Iterator[SmtpMailer]:
    made = SmtpMailer(smtp_settings(smtp_server.port, timeout=5))
    yield made
    made.close()


@pytest.mark.parametrize("place", PLACES)
def test_nothing_gets_out_of_its_field(place: str, mailer: SmtpMailer, smtp_server: SmtpServer) -> None:
    field = place.partition(",")[0]
    for name, evil in EVIL.items():
        canonical, refused = _validated(PLACES[place](evil))
        assert refused is None or _about(refused, field), name
        if canonical is None:
            continue
        if place not in CONTENT | DATA:
            # NEL, LS and PS end no line of a mail, which they are part of in encoded words only
            assert not re.search("[\r\n\0\x0b\x0c\x1c-\x1e]", _texts_of(canonical, field)), name
        _both_ways(canonical, mailer)
        for mail in smtp_server.accepted():
            _check(mail.data, name)
            assert list(mail.rcpt_tos) == _mailable(recipients(canonical)), name
            assert "eve" not in mail.mail_from.partition("@")[2], name
        if place not in CONTENT | DATA:
            _check_built_without_checks(PLACES[place](evil), name)
        # one for each way at the most: no mail in a mail
        assert len(smtp_server.accepted()) <= 2, name
        smtp_server.forget()


def _validated(message: dict[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
    """The canonical form, or the place that the error names."""
    try:
        return validate(message), None
    except InvalidMessage as refused:
        return None, refused.field


def _about(named: str, field: str) -> bool:
    """Whether the error names the field, or what is beside it in the same one."""
    names = {"types": ("types", "headers", "encoding", "/")}.get(field, (field,))
    return named.startswith(names)


def _texts_of(canonical: dict[str, Any], field: str) -> str:
    value = canonical.get(field)
    found: list[str] = []

    def collect(item: Any) -> None:
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            for name, inner in item.items():
                found.append(str(name))
                collect(inner)
        elif isinstance(item, list):
            for inner in item:
                collect(inner)

    collect(value)
    return "".join(found)


def _both_ways(canonical: dict[str, Any], mailer: SmtpMailer) -> None:
    """Composed by ourselves and built by Django; what cannot be mailed so is no mail."""
    to = recipients(canonical)
    receipts = _attempt(lambda: mailer.send_canonical(canonical, to, message_id=MESSAGE_ID, date=DATE))
    email = load(dict(canonical))
    stamp(email, message_id=MESSAGE_ID, date=DATE)
    again = _attempt(lambda: mailer.send(email, to))
    assert [each.diagnosis.kind for each in receipts] == [each.diagnosis.kind for each in again]
    assert all(each.diagnosis.kind in (Kind.ACCEPTED, Kind.PERMANENT) for each in receipts)


def _attempt(send: Callable[[], list[Any]]) -> list[Any]:
    try:
        return send()
    except Exception:  # noqa: BLE001 - Django's own refusal, which ends as a permanent failure
        return []


def _check_built_without_checks(message: dict[str, Any], name: str) -> None:
    """Behind the check of the message stand those of Django, of Python and our own."""
    try:
        data = mime_bytes(load(message))
    except Exception:  # noqa: BLE001 - of whom it does not matter
        return
    for part in message_from_bytes(data).walk():
        assert "X-Evil" not in part, name
        assert "Bcc" not in part, name


def _check(data: bytes, name: str) -> None:
    assert not has_lone_line_ends(data), name
    assert b"\0" not in data.split(b"\r\n\r\n")[0], name
    mail: Message = message_from_bytes(data)
    for part in mail.walk():
        assert "X-Evil" not in part, name
        assert "Bcc" not in part, name
    assert len(mail.get_all("From", [])) == 1, name
    assert len(mail.get_all("Subject", [])) == 1, name
    assert len(mail.get_all("To", [])) <= 1, name


def _mailable(addresses: list[str]) -> list[str]:
    """As RCPT TO has them; some that Django takes are none when they are looked at again, and fail for good."""
    found = []
    for address in addresses:
        with suppress(ValueError):
            found.append(envelope_address(address))
    return found


def test_what_is_loaded_without_a_check_cannot_get_out_either() -> None:
    """What a copy in a queue says is checked again; Django's own refusal stands behind that."""
    evil = dump(load(a_message(subject="a\r\nX-Evil: 1")))

    with pytest.raises(InvalidMessage):
        validate(evil)
    with pytest.raises((BadHeaderError, ValueError)):
        load(evil).message().as_bytes()
