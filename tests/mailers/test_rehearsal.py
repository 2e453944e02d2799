"""The backend that fails on purpose: what it does, and what our mailer makes of it."""

from __future__ import annotations

import json
import signal
import smtplib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from mail_service.diagnosis import Context, diagnose
from mail_service.mailers import open_mailer, rehearsal, unwrap
from mail_service.mailers.rehearsal import WORDS, EmailBackend
from mail_service.outcome import Diagnosis, Kind

from .building import MESSAGE_ID, an_email, kinds, settings_of

PATH = "mail_service.mailers.rehearsal.EmailBackend"
A, B = "a@example.org", "b@example.org"

#: word, what comes of it, and whether the mail was taken
FATES = [
    ("accept", Kind.ACCEPTED, True),
    ("refuse", Kind.PERMANENT, False),
    ("transient", Kind.TRANSIENT, False),
    ("throttle", Kind.THROTTLED, False),
    ("login", Kind.CONFIGURATION, False),
    ("hang", Kind.ACCEPTED, True),
    ("timeout", Kind.UNKNOWN, False),
    ("drop", Kind.UNKNOWN, True),
    ("nothing", Kind.PERMANENT, False),
    ("nonsense", Kind.ACCEPTED, True),
    ("raise", Kind.PERMANENT, False),
]


def attempt(*to: str, **options: Any) -> dict[str, Diagnosis]:
    """One attempt as the service makes it, whole failures diagnosed for everybody."""
    mailer = open_mailer(settings_of(PATH, **options))
    try:
        receipts = mailer.send(an_email(*to), list(to))
    except Exception as error:  # noqa: BLE001 - as delivery does
        original, stage = unwrap(error)
        return dict.fromkeys(to, diagnose(original, Context(stage=stage)))
    return {receipt.address: receipt.diagnosis for receipt in receipts}


def kind_of(*to: str, **options: Any) -> Kind:
    (kind,) = {diagnosis.kind for diagnosis in attempt(*to, **options).values()}
    return kind


@pytest.mark.parametrize(("word", "kind", "is_kept"), FATES)
def test_each_word_does_the_same_as_a_name_a_rule_and_a_step(word: str, kind: Kind, is_kept: bool) -> None:
    assert kind_of(f"{word}@example.org", seconds=0) == kind
    assert kind_of(A, rules={"a@*": word}, seconds=0) == kind
    assert kind_of(A, script=[word], seconds=0) == kind
    assert len(rehearsal.outbox) == (3 if is_kept else 0)


def test_every_word_is_tried_here() -> None:
    assert set(WORDS) == {word for word, _, _ in FATES} | {"crash", "vanish"}


def test_a_name_can_say_how_often() -> None:
    kinds = [kind_of("transient-2@example.org") for _ in range(4)]

    assert kinds == [Kind.TRANSIENT, Kind.TRANSIENT, Kind.ACCEPTED, Kind.ACCEPTED]


def test_each_recipient_of_a_mail_has_a_fate_of_their_own() -> None:
    fates = attempt("fine@example.org", "transient-1@example.org", "refuse@example.org")

    assert [fate.kind for fate in fates.values()] == [Kind.ACCEPTED, Kind.TRANSIENT, Kind.PERMANENT]
    assert [kept.recipients for kept in rehearsal.outbox] == [("fine@example.org",)]


def test_names_mean_nothing_when_they_are_switched_off() -> None:
    assert kind_of("refuse@example.org", by_name=False) == Kind.ACCEPTED


def test_a_script_is_played_step_by_step_and_then_accepts() -> None:
    options = {"script": ["transient", {"do": "throttle", "wait_s": 5, "times": 2}, {"do": "refuse", "only": "b@*"}]}

    played = [attempt(A, B, **options) for _ in range(5)]

    assert [[fate.kind.value for fate in fates.values()] for fates in played] == [
        ["transient", "transient"],
        ["throttled", "throttled"],
        ["throttled", "throttled"],
        ["accepted", "permanent"],
        ["accepted", "accepted"],
    ]
    assert played[1][A].wait_s == 5


def test_any_exception_can_be_raised() -> None:
    step = {"do": "raise", "error": "smtplib.SMTPDataError", "args": [552, b"5.3.4 too big"]}

    assert attempt(A, script=[step])[A].code == "smtp 552 5.3.4"
    assert attempt(A, script=[{"do": "raise", "error": "MemoryError"}])[A].code == "MemoryError"


@pytest.mark.parametrize(
    "options",
    [{"script": ["explode"]}, {"rules": {"*": {"do": "hang", "minutes": 1}}}, {"script": [7]}, {"foldr": "x"}],
    ids=["word", "key", "type", "option"],
)
def test_a_mistake_in_the_options_is_a_fault_of_the_configuration(options: dict[str, Any]) -> None:
    assert kind_of(A, **options) == Kind.CONFIGURATION


def test_an_exception_that_does_not_exist_is_a_fault_of_the_configuration() -> None:
    assert kind_of(A, script=[{"do": "raise", "error": "no.such.Error"}]) == Kind.CONFIGURATION
    assert kind_of(A, script=[{"do": "raise", "error": "os.path"}]) == Kind.CONFIGURATION


def test_hanging_takes_its_time() -> None:
    start = time.monotonic()
    attempt(A, script=[{"do": "hang", "seconds": 0.05}])

    assert time.monotonic() - start >= 0.05


def test_a_folder_keeps_the_mails_and_the_counts_for_other_processes(tmp_path: Path) -> None:
    folder = str(tmp_path / "outbox")
    program = f"""
from mail_service.mailers.django_backend import configure_django; configure_django()
from django.core.mail import EmailMessage
from mail_service.mailers.rehearsal import EmailBackend
email = EmailMessage("s", "b", "from@example.org", ["transient-2@example.org"])
email.extra_headers["Message-ID"] = "{MESSAGE_ID}"
try:
    print(EmailBackend(folder={folder!r}).send_messages([email]))
except Exception as error:
    print(type(error).__name__)
"""
    argv = [sys.executable, "-W", "ignore", "-c", program]
    said = [subprocess.run(argv, capture_output=True, text=True, check=True).stdout for _ in range(3)]

    assert [line.strip() for line in said] == ["SMTPRecipientsRefused", "SMTPRecipientsRefused", "1"]
    (line,) = (tmp_path / "outbox" / "outbox.jsonl").read_text().splitlines()
    facts = json.loads(line)
    assert facts["to"] == ["transient-2@example.org"]
    assert facts["message_id"] == MESSAGE_ID
    assert MESSAGE_ID.encode() in (tmp_path / "outbox" / facts["file"]).read_bytes()


@pytest.mark.parametrize(("word", "is_kept"), [("crash", False), ("vanish", True)])
def test_a_crash_kills_the_process(tmp_path: Path, word: str, is_kept: bool) -> None:
    program = f"""
from mail_service.mailers.django_backend import configure_django; configure_django()
from django.core.mail import EmailMessage
from mail_service.mailers.rehearsal import EmailBackend
email = EmailMessage("s", "b", "from@example.org", ["{word}-1@example.org"])
EmailBackend(folder={str(tmp_path)!r}).send_messages([email])
"""
    argv = [sys.executable, "-W", "ignore", "-c", program]

    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    assert (tmp_path / "outbox.jsonl").exists() is is_kept
    assert subprocess.run(argv, check=False).returncode == 0


def test_it_is_a_backend_for_any_django_program() -> None:
    """Without our mailer it does as Django's SMTP backend: refusals of some are dropped, of all they are raised."""
    backend = EmailBackend()

    assert backend.send_messages([an_email("refuse@example.org", A)]) == 1
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        backend.send_messages([an_email("refuse@example.org")])
    assert backend.send_messages([]) == 0


def test_it_takes_the_envelope_sender_and_the_fields_it_is_told_to_take() -> None:
    mailer = open_mailer(settings_of(PATH, expresses=["template_id"]))

    receipts = mailer.send(an_email(A, envelope_sender="bounce@example.org", template_id="welcome"), [A])

    assert kinds(receipts) == {A: Kind.ACCEPTED}
    assert rehearsal.outbox[0].sender == "bounce@example.org"


def test_a_mistaken_option_is_not_taken_for_a_step() -> None:
    with pytest.raises(ImproperlyConfigured, match="explode"):
        EmailBackend(script=["explode"])
