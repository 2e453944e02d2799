"""Section 2: what is handed in is what arrives, on every door, and nothing else gets into a mail."""

from __future__ import annotations

import base64
import json
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest

from ..support.outside import RemoteError, dispatch
from ..support.waiting import eventually
from .conftest import House
from .test_rpc_methods import mail


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def delivered(house: House, message: dict[str, Any], person: str, **options: Any) -> EmailMessage:
    house.rpc.send(message, **options)
    (taken,) = house.mails_to(person)
    return taken.email


def test_every_field_arrives(any_house: House) -> None:
    ann, bob, carl = any_house.person(), any_house.person("bob"), any_house.person("carl")
    message = {
        "subject": "Zażółć ✉ 日本",
        "body": "Grüße aus Köln\n.\n..\nFrom here\n" + "é" * 2000,
        "from_email": '"Müller & Söhne, GmbH" <shop@example.org>',
        "to": [f"Änne <{ann}>"],
        "cc": bob,
        "bcc": [carl],
        "reply_to": ["Antwort <reply@example.org>"],
        "headers": {"X-Groesse": "12 €", "Auto-Submitted": "auto-generated"},
        "html": "<p>Grüße</p>",
        "alternatives": [{"content": "{}", "mimetype": "application/json"}],
        "attachments": [
            {"filename": "Rechnung–März.pdf", "content": in_base64(bytes(range(256))), "mimetype": "application/pdf"},
            {"filename": "notes.txt", "content": in_base64("Ünïcode".encode()), "mimetype": None},
            {"filename": None, "content": in_base64(b"x"), "mimetype": "application/octet-stream"},
            {"mime": in_base64(b"Content-Type: image/png\nContent-ID: <logo>\nContent-Disposition: inline\n\nPNG")},
        ],
        "envelope_sender": "bounces@example.org",
    }

    email = delivered(any_house, message, ann)

    (taken,) = any_house.mails_to(ann)
    assert sorted(taken.rcpt_tos) == sorted([ann, bob, carl])
    assert taken.mail_from == "bounces@example.org"
    assert email["Subject"] == message["subject"]
    assert email["From"].addresses[0].display_name == "Müller & Söhne, GmbH"
    assert email["To"].addresses[0].display_name == "Änne"
    assert email["Cc"] == bob
    assert email["Bcc"] is None
    assert carl not in taken.data.decode("ascii", "replace")
    assert email["Reply-To"].addresses[0].addr_spec == "reply@example.org"
    assert email["X-Groesse"] == "12 €"
    parts = {part.get_content_type(): part for part in email.walk()}
    body = email.get_body(("plain",))
    assert body is not None
    assert body.get_content().replace("\r\n", "\n").rstrip("\n") == message["body"]
    html = email.get_body(("html",))
    assert html is not None
    assert html.get_content().strip() == "<p>Grüße</p>"
    pdf = parts["application/pdf"]
    assert pdf.get_filename() == "Rechnung–März.pdf"
    assert pdf.get_payload(decode=True) == bytes(range(256))
    assert parts["image/png"]["Content-ID"] == "<logo>"


def test_a_mail_with_the_default_sender_a_single_recipient_and_nothing_else(any_house: House) -> None:
    person = any_house.person()

    email = delivered(any_house, {"to": person}, person)

    assert email["From"] == "sender@example.org"
    assert email["Message-ID"]
    assert email["Date"]


def test_ready_made_mime_arrives_as_it_is(house: House) -> None:
    person = house.person()
    lines = ["From: signed@example.org", "To: hidden@example.org", "X-Signed: yes", "Message-ID: <mine@example.org>"]
    raw = "\r\n".join([*lines, "", "Body", ""]).encode()

    house.rpc.send(mail(person, mime=in_base64(raw)))

    (taken,) = house.mails_to(person)
    assert taken.data == raw


def test_own_message_id_and_date_are_kept(house: House) -> None:
    person = house.person()
    headers = {"Message-ID": "<mine@example.org>", "Date": "Sun, 22 Nov 2026 10:00:00 +0100"}

    email = delivered(house, mail(person, headers=headers), person)

    assert email.get_all("Message-ID") == ["<mine@example.org>"]
    assert [str(value) for value in email.get_all("Date", [])] == ["Sun, 22 Nov 2026 10:00:00 +0100"]


def test_content_subtype_and_encoding(house: House) -> None:
    person = house.person()

    email = delivered(house, mail(person, body="<b>Grüße</b>", content_subtype="html", encoding="iso-8859-1"), person)

    assert email.get_content_type() == "text/html"
    assert email.get_content_charset() == "iso-8859-1"
    assert email.get_content().strip() == "<b>Grüße</b>"


@pytest.mark.parametrize("domain", ["bücher.example", "xn--bcher-kva.example"])
def test_an_international_domain_is_mailed_and_recorded_as_typed(any_house: House, domain: str) -> None:
    person = any_house.person().replace("example.org", domain)

    record = any_house.rpc.send(mail(f"Leser <{person}>"))

    assert list(record["recipients"]) == [person]
    assert record["recipients"][person]["status"] == "sent"
    local = person.partition("@")[0]
    eventually(
        lambda: [
            taken for taken in any_house.smtp.accepted() if any(local in recipient for recipient in taken.rcpt_tos)
        ]
    )


def test_an_address_typed_twice_is_mailed_once(house: House) -> None:
    person = house.person()

    record = house.rpc.send(mail([person, f"Ann <{person}>"], cc=person, bcc=[person]))

    assert list(record["recipients"]) == [person]
    (taken,) = house.mails_to(person)
    assert taken.rcpt_tos == (person,)


INJECTIONS = ["\nBcc: x@example.org", "\r\nBcc: x@example.org", "\rBcc: x@example.org", "\x0bBcc: x", "\x00"]
DOORS = ("submit", "submit_many", "event")
PLACES: dict[str, Any] = {
    "subject": lambda bad: {"subject": f"a{bad}"},
    "from_email": lambda bad: {"from_email": f"A{bad} <a@example.org>"},
    "from_email's address": lambda bad: {"from_email": f"a@example.org{bad}"},
    "cc": lambda bad: {"cc": [f"A{bad} <a@example.org>"]},
    "bcc": lambda bad: {"bcc": [f"a@example.org{bad}"]},
    "reply_to": lambda bad: {"reply_to": [f"a@example.org{bad}"]},
    "header": lambda bad: {"headers": {"X-A": f"a{bad}"}},
    "header's name": lambda bad: {"headers": {f"X-A{bad}": "a"}},
    "filename": lambda bad: {"attachments": [{"filename": f"a{bad}", "content": "YQ==", "mimetype": None}]},
    "mimetype": lambda bad: {"attachments": [{"filename": "a", "content": "YQ==", "mimetype": f"text/plain{bad}"}]},
    "alternative": lambda bad: {"alternatives": [{"content": "a", "mimetype": f"text/html{bad}"}]},
    "content_subtype": lambda bad: {"content_subtype": f"html{bad}"},
    "encoding": lambda bad: {"encoding": f"utf-8{bad}"},
    "envelope_sender": lambda bad: {"envelope_sender": f"a@example.org{bad}"},
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("place", PLACES)
def test_no_header_can_be_smuggled_in(house: House, door: str, place: str) -> None:
    people = [house.person() for _ in INJECTIONS]
    for person, bad in zip(people, INJECTIONS, strict=True):
        message = mail(person, **PLACES[place](bad))
        match door:
            case "submit":
                with pytest.raises(RemoteError, match="InvalidMessage"):
                    house.rpc.submit(message)
            case "submit_many":
                (answer,) = house.rpc.submit_many([message])
                assert answer["error"]["type"] == "InvalidMessage"
            case _:
                dispatch(house.amqp_uri, "orders", message)
    marker = house.person("marker")
    if door == "event":
        dispatch(house.amqp_uri, "orders", mail(marker))
        eventually(lambda: house.mails_to(marker))
    for person in people:
        assert house.mails_to(person) == []


def test_a_message_of_the_largest_size_is_taken_and_a_larger_one_refused(any_house: House) -> None:
    person = any_house.person()
    empty = mail(person, body="")
    largest = 300_000 - len(json.dumps(empty, separators=(",", ":")).encode())

    assert any_house.rpc.send(empty | {"body": "x" * largest})["status"] == "sent"
    for call in (any_house.rpc.send, any_house.rpc.submit):
        with pytest.raises(RemoteError, match="max_size") as raised:
            call(empty | {"body": "x" * (largest + 1)})
        assert raised.value.exc_type == "InvalidMessage"
    assert len(any_house.mails_to(person)) == 1


def test_the_mail_is_the_one_that_django_would_have_sent(house: House) -> None:
    from django.core.mail import EmailMultiAlternatives

    from ..support.messages import configure_django

    configure_django()
    person = house.person()
    headers = {"Message-ID": "<same@example.org>", "Date": "Sun, 22 Nov 2026 10:00:00 +0100"}
    others = ["Ö <o@example.org>"]
    email = EmailMultiAlternatives("Sübject", "Bödy", "a@example.org", [person], headers=headers, cc=others)
    email.attach_alternative("<p>é</p>", "text/html")
    email.attach("a.txt", "é", "text/plain")
    house.rpc.send(
        mail(
            person,
            subject="Sübject",
            body="Bödy",
            from_email="a@example.org",
            cc="Ö <o@example.org>",
            html="<p>é</p>",
            headers=headers,
            attachments=[{"filename": "a.txt", "content": in_base64("é".encode()), "mimetype": "text/plain"}],
        )
    )

    (taken,) = house.mails_to(person)

    def parts(raw: bytes) -> list[Any]:
        # the two versions of Django have no way in common to ask for the line ends of SMTP
        made = message_from_bytes(raw.replace(b"\r\n", b"\n"), policy=policy.default)
        keys = [str(made[key]) for key in ("Subject", "From", "To", "Cc", "Date", "Message-ID")]
        contents = [
            (each.get_content_type(), each.get_filename(), each.get_payload(decode=True)) for each in made.walk()
        ]
        return keys + contents

    assert parts(taken.data) == parts(email.message().as_bytes())
